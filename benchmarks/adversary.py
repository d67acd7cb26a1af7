"""Measure how often a claim at the margin is validated by who keeps trying: `python -m benchmarks.adversary`.

The candidate loses just the margin. After a verdict other than VALIDATED the adversary asks again, up to ten times.
Each time 1 % of the answers are drawn again, as an engine's noise does where arguments change that change no answer.
*At random*: a try renames and reorders, which changes neither the question nor the order of its documents (both follow
from content), or leaves out 5 or 10 % of the documents, which is another question; the others keep their order. *What
was lost*: all answers are known after the first try, and each later one leaves out 10 % of the documents, those first
that got worse. *All*: each later try asks other documents, from which alone a policy's reserve lets a later question
validate.

Each try is judged by the shipped judge from its counts, look by look. *Any run* is what happens without the ledger.
*Standing* is what the shipped views say of the same runs (`store.standing`, in a warehouse in memory), one claim for
each sequence of questions and verdicts that occurred. One try without looks is also a sum over every outcome.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from quantgate.bundles.manifest import TaskResult
from quantgate.judge.interim import look_sizes
from quantgate.judge.pairing import Counts
from quantgate.judge.stats.path_probabilities import walks
from quantgate.judge.task_verdict import decide_interim, figures_of
from quantgate.model.config.policy import Policy, load_policy
from quantgate.model.enums import Family, Outcome, Verdict
from warehouse.configuration import add_policy, configured_in_memory
from warehouse.database import Connection, insert_rows

Row = dict[str, Any]
Answers = NDArray[np.int8]
"""-1 for a document that got worse, 1 for better, 0 for the same; shape (replicates, documents), in their order."""

TRIES = (1, 2, 5, 10)
NOISE = 0.01
"""Share of answers that a run draws again."""
LEFT_OUT = (0.0, 0.05, 0.1)
"""Shares of documents that a try leaves out; with 0 it is the same question again."""
RESERVE = 0.4
"""Share of alpha that a policy keeps here for later questions, which then can validate."""
CONFIDENCE = 0.99
_BATCH = 1000
_LEAST = 1e-8
_VERDICTS = {Outcome.PASS: Verdict.VALIDATED, Outcome.FAIL: Verdict.REJECTED}


class Way(StrEnum):
    """What a later try leaves out of the first one's documents."""

    AT_RANDOM = "at random"
    WHAT_WAS_LOST = "what was lost"
    ALL = "all"


Asked = tuple[tuple[int, str], ...]
"""Tries at a claim in their order: the number of the question and the verdict."""


class Cell(NamedTuple):
    """A task and a candidate's flip rate on it; the margin is its family's."""

    documents: int
    family: Family
    flip_rate: float


CELLS = (Cell(1319, Family.MATH, 0.03), Cell(1000, Family.CONVERSATION, 0.05))


class Judge:
    """The shipped judge of one task, which judges equal counts once."""

    def __init__(self, policy: Policy, family: Family) -> None:
        """Judge a task of a family by a policy."""
        self.policy, self.family = policy, family
        self.rule = policy.families[family]
        self._known: dict[tuple[int, ...], Outcome] = {}
        self._later: dict[float, Judge] = {policy.alpha: self}

    def at_question(self, number: int) -> Judge:
        """Return the judge of a question about a claim, from 1: it has the part of alpha that the policy gives it."""
        policy = self.policy.at_question(number)
        return self._later.setdefault(policy.alpha, Judge(policy, self.family))

    def looks(self, documents: int) -> tuple[int, ...]:
        """Return the numbers of documents at which a task of this size is judged."""
        return look_sizes(documents, self.policy.looks, self.rule.min_documents)

    def follow(self, answers: Answers) -> NDArray[np.str_]:
        """Return the verdict of each replicate: the first that its looks give, or INCONCLUSIVE; shape (replicates,)."""
        looks = self.looks(answers.shape[1])
        worse, better = (
            np.add.reduceat(answers == sign, [0, *looks[:-1]], axis=1, dtype=np.int64).cumsum(axis=1)
            for sign in (-1, 1)
        )
        verdicts = np.full(len(answers), str(Verdict.INCONCLUSIVE))
        going_on = np.arange(len(answers))
        for look in range(len(looks)):
            counts = np.column_stack([worse[going_on, look], better[going_on, look]])
            distinct, which = np.unique(counts, axis=0, return_inverse=True)
            outcomes = [self.outcome(b, c, look, looks) for b, c in distinct.tolist()]
            decided = np.array([str(_VERDICTS.get(outcome, "")) for outcome in outcomes])[which.ravel()]
            verdicts[going_on[decided != ""]] = decided[decided != ""]
            going_on = going_on[decided == ""]
            if not going_on.size:
                break
        return verdicts

    def outcome(self, b: int, c: int, look: int, looks: tuple[int, ...]) -> Outcome:
        """Return what a look decides at so many worse and better documents."""
        key = (b, c, look, looks[-1])
        if key not in self._known:
            n = looks[look]
            result = TaskResult(
                task="attacked",
                family=self.family,
                metric="acc",
                filter="none",
                version="1",
                documents=n,
                mean_score=0.5,
                output_type="multiple_choice",
                duration_s=1.0,
                engine_start_id="start",
                documents_available=looks[-1],
                looks=looks[: look + 1],
            )
            right = max(b, 7 * n // 10)  # decides nothing, as long as the baseline can do the task
            figures = figures_of(result, Counts(n, b, c, right, right - b + c), self.policy)
            self._known[key] = decide_interim(figures, self.policy, 1).outcome
        return self._known[key]


def draw(rng: np.random.Generator, shape: tuple[int, ...], flip_rate: float, delta: float) -> Answers:
    """Draw answers of a candidate with this flip rate and true delta, fractions."""
    drawn = rng.random(shape, dtype=np.float32)
    worse, better = (flip_rate - delta) / 2, (flip_rate + delta) / 2
    return np.asarray((drawn > 1 - better).astype(np.int8) - (drawn < worse))


def asked_again(
    rng: np.random.Generator, first: Answers, cell: Cell, delta: float, way: Way
) -> Iterator[tuple[NDArray[np.int64], Answers, bool]]:
    """Yield one more try of each replicate: replicates, their answers, and whether it is the first question again.

    Args:
        rng: the random numbers.
        first: answers of the first try.
        cell: the task.
        delta: true, a fraction.
        way: what it leaves out.
    """
    count, n = first.shape
    if way is Way.ALL:
        yield np.arange(count), draw(rng, first.shape, cell.flip_rate, delta), False
        return
    again = rng.random(first.shape, dtype=np.float32) < NOISE
    answers = np.where(again, draw(rng, first.shape, cell.flip_rate, delta), first)
    knowing = way is Way.WHAT_WAS_LOST
    chosen = np.full(count, len(LEFT_OUT) - 1) if knowing else rng.integers(0, len(LEFT_OUT), count)
    for index, share in enumerate(LEFT_OUT):
        replicates = np.flatnonzero(chosen == index)
        kept = n - round(share * n)
        if not replicates.size or kept == n:
            yield replicates, answers[replicates], True
            continue
        draws = rng.random((replicates.size, n), dtype=np.float32)
        if knowing:
            draws += first[replicates] < 0
        stays = np.sort(np.argpartition(draws, kept, axis=1)[:, :kept], axis=1)
        yield replicates, np.take_along_axis(answers[replicates], stays, axis=1), False


def attack(
    judges: Sequence[Judge],
    cell: Cell,
    delta: float,
    replicates: int,
    seed: int,
    way: Way,
    tries: int,
) -> list[list[Asked]]:
    """Return, for each judge, what each replicate asked until it was validated or its tries were used up."""
    rng = np.random.default_rng([seed, cell.documents, [*Way].index(way), round(1e6 * delta) + 10**7])
    asked: list[list[Asked]] = [[] for _ in judges]
    for begin in range(0, replicates, _BATCH):
        count = min(_BATCH, replicates - begin)
        first = draw(rng, (count, cell.documents), cell.flip_rate, delta)
        batch: list[list[list[tuple[int, str]]]] = [
            [[(1, verdict)] for verdict in judge.at_question(1).follow(first).tolist()] for judge in judges
        ]
        for _ in range(1, tries):
            open_ = [at for at in range(count) if any(_is_open(histories[at]) for histories in batch)]
            for rows, answers, same in asked_again(rng, first[open_], cell, delta, way):
                for judge, histories in zip(judges, batch, strict=True):
                    asking: dict[int, list[int]] = {}
                    for at, row in enumerate(rows):
                        history = histories[open_[row]]
                        if _is_open(history):
                            question = 1 if same else max(number for number, _ in history) + 1
                            asking.setdefault(question, []).append(at)
                    for question, places in asking.items():
                        followed = judge.at_question(numbered(question, way)).follow(answers[places]).tolist()
                        for at, verdict in zip(places, followed, strict=True):
                            histories[open_[rows[at]]].append((question, verdict))
        for histories, of_judge in zip(batch, asked, strict=True):
            of_judge.extend(tuple(history) for history in histories)
    return asked


def numbered(question: int, way: Way) -> int:
    """Return the number by which a question is judged: a later one has part of the reserve for new documents alone."""
    return question if way is Way.ALL else 1


def exact_rate(judge: Judge, cell: Cell, delta: float) -> float | None:
    """Return the probability that the first try is validated, summed over outcomes; None where it has interim looks.

    Outcomes less probable than 1e-8 are left out, of which there are a few thousand at most.
    """
    judge = judge.at_question(1)
    looks = judge.looks(cell.documents)
    if len(looks) > 1:
        return None
    chances = (np.array([(cell.flip_rate - delta) / 2]), np.array([(cell.flip_rate + delta) / 2]))
    ((paths,),) = (walk.path_densities() for walk in walks(looks, *chances))
    return sum(
        float(paths.density[row, column])
        for row, column in np.argwhere(paths.density > _LEAST).tolist()
        if judge.outcome(paths.worse.first + row, paths.better.first + column, 0, looks) is Outcome.PASS
    )


def _is_open(history: list[tuple[int, str]]) -> bool:
    return history[-1][1] != Verdict.VALIDATED


def standing(asked: Sequence[Asked], policy_name: str, policy: Policy, way: Way) -> list[str]:
    """Return the verdict that stands for each claim, by the shipped views over rows of its runs."""
    with configured_in_memory() as connection:
        add_policy(connection, policy_name, policy)
        blank = _blank_run(connection)
        common = {
            "policy": policy_name,
            "policy_fingerprint": policy.fingerprint(),
            "baseline_run_id": "base",
        }
        runs, tasks, verdicts = [], [], []
        for claim, questions in enumerate(asked):
            for number, (question, verdict) in enumerate(questions, 1):
                run_id = {"run_id": f"{claim}-{number}"}
                runs.append(
                    blank
                    | common
                    | run_id
                    | {
                        "claim_key": f"{claim:06}",
                        "verdict_key": f"{claim}-{question}",
                        "question": numbered(question, way),
                        "declared_order": number,
                        "started_at": blank["started_at"] + timedelta(hours=number),
                    }
                )
                tasks.append(_TASK | run_id)
                verdicts.append(common | run_id | {"use": "all", "verdict": verdict, "reason": ""})
        for table, rows in (("runs", runs), ("run_tasks", tasks), ("verdicts", verdicts)):
            insert_rows(connection, table, rows)
        standing = connection.execute(
            "SELECT verdict FROM store.standing WHERE use_key = 'all' ORDER BY claim_key"
        ).fetchall()
    return [str(verdict) for (verdict,) in standing]


def _blank_run(connection: Connection) -> Row:
    """Return a valid run that says nothing: what a run must say, and that its documents suffice to decide."""
    needed = connection.execute(
        "SELECT column_name FROM duckdb_columns() WHERE schema_name = 'store' AND table_name = 'runs' "
        "AND NOT is_nullable AND data_type = 'VARCHAR'"
    ).fetchall()
    numbers = (
        "parameters",
        "size_bytes",
        "vocab_size",
        "gpu_count",
        "memory_bytes",
        "cpu_cores",
        "schema_version",
    )
    day = datetime(2026, 1, 1, tzinfo=UTC)
    return (
        {name: "" for (name,) in needed}
        | dict.fromkeys(numbers, 1)
        | {"validity": "valid", "validity_reasons": [], "counts_as_try": True, "manifest": "{}"}
        | {"started_at": day, "measured_at": day, "baseline": "base", "baseline_weights": "base"}
    )


_TASK: Row = {
    **dict.fromkeys(("task", "family", "metric", "filter", "version", "output_type", "engine_start_id"), ""),
    **dict.fromkeys(("documents", "mean_score", "duration_s", "truncated_prompts"), 1),
}


def examine(
    cell: Cell, policies: dict[str, Policy], replicates: int, seed: int, tries: Sequence[int] = TRIES
) -> Iterator[Row]:
    """Compute the rates of one cell: those at the margin, and of an honest user with one try at delta 0.

    Args:
        cell: the task.
        policies: by their names.
        replicates: claims of each figure.
        seed: of the random numbers.
        tries: numbers of tries, ascending from 1.

    Yields:
        Rows with ``delta``, ``tries``, ``way`` (None at one try), ``any`` and ``standing`` (claims validated out of
        ``replicates``), and ``exact`` (``exact_rate``) at one try.
    """
    judges = {name: Judge(policy, cell.family) for name, policy in policies.items()}
    margin = next(iter(judges.values())).rule.margin
    for delta, way, numbers in (
        (-margin, Way.AT_RANDOM, tries),
        (-margin, Way.WHAT_WAS_LOST, tries[1:]),
        (-margin, Way.ALL, tries[1:]),
        (0.0, Way.AT_RANDOM, (1,)),
    ):
        most = max(numbers, default=0)
        if not most:
            continue
        attacked = attack(list(judges.values()), cell, delta, replicates, seed, way, most)
        for (name, judge), histories in zip(judges.items(), attacked, strict=True):
            for number in numbers:
                occurred = Counter(history[:number] for history in histories)
                stands = standing(list(occurred), name, judge.policy, way)
                yield {
                    **cell._asdict(),
                    "margin": margin,
                    "policy": name,
                    "alpha": judge.policy.alpha,
                    "delta": delta,
                    "tries": number,
                    "way": way if number > 1 else None,
                    "replicates": replicates,
                    "any": sum(
                        count
                        for history, count in occurred.items()
                        if any(verdict == Verdict.VALIDATED for _, verdict in history)
                    ),
                    "standing": sum(
                        count
                        for verdict, count in zip(stands, occurred.values(), strict=True)
                        if verdict == Verdict.VALIDATED
                    ),
                    "exact": exact_rate(judge, cell, delta) if number == 1 else None,
                }


def holds(rows: Sequence[Row]) -> bool:
    """Check that false claims don't stand validated oftener than alpha, by the interval, and that one try is equal."""
    return all(
        (row["delta"] == 0 or _interval(row["standing"], row["replicates"])[0] <= row["alpha"])
        and (row["tries"] > 1 or row["any"] == row["standing"])
        for row in rows
    )


def markdown(rows: Sequence[Row]) -> str:
    """Write a table of false validation at the margin and one of an honest user's power."""
    names = [
        "documents",
        "margin",
        "flips",
        "policy",
        "leaves out",
        "tries",
        "any run VALIDATED",
        "standing",
        "exact",
    ]
    lines = []
    for title, delta_is_0 in (("False validation at the margin", False), ("Power at delta 0, one try", True)):
        lines += [f"{title} (in brackets the {CONFIDENCE:.0%} interval):", ""]
        lines += ["| " + " | ".join(names) + " |", "|---:|---:|---:|---|---|" + "---:|" * 4]
        lines += [_line(row) for row in rows if (row["delta"] == 0) == delta_is_0]
        lines.append("")
    return "\n".join(lines)


def _line(row: Row) -> str:
    cells = [
        f"{row['documents']:,}",
        f"{100 * row['margin']:g} point{'s' if row['margin'] != 0.01 else ''}",
        f"{row['flip_rate']:.0%}",
        row["policy"],
        row["way"] or "–",
        str(row["tries"]),
        *(_shown(row[name], row["replicates"]) for name in ("any", "standing")),
        "–" if row["exact"] is None else f"{row['exact']:.4f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _shown(count: int, replicates: int) -> str:
    low, high = _interval(count, replicates)
    return f"{count / replicates:.4f} [{low:.4f}, {high:.4f}]"


def _interval(count: int, replicates: int) -> tuple[float, float]:
    """Return Clopper and Pearson's interval of a share."""
    interval = binomtest(count, replicates).proportion_ci(CONFIDENCE, method="exact")
    return float(interval.low), float(interval.high)


def main(argv: list[str] | None = None) -> int:
    """Print the tables; 1 if a false claim stands validated too often, or one try is not judged alike."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adversary", description=__doc__)
    parser.add_argument("--replicates", type=int, default=20_000, help="claims a figure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--policy", default="", help="this one of the policies alone")
    parser.add_argument("--documents", type=int, help="the task of so many documents alone")
    options = parser.parse_args(argv)
    standard = load_policy("standard")
    policies = {
        "standard": standard,
        "standard without looks": standard.model_copy(update={"looks": ()}),
        f"without looks, reserve {RESERVE:g}": standard.model_copy(update={"looks": (), "reserve": RESERVE}),
    }
    policies = {name: policy for name, policy in policies.items() if options.policy in ("", name)}
    rows: list[Row] = []
    begin, cpu = time.monotonic(), time.process_time()
    for cell in CELLS:
        if options.documents not in (None, cell.documents):
            continue
        for row in examine(cell, policies, options.replicates, options.seed):
            rows.append(row)
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {_line(row)}\n")
    print(f"{options.replicates:,} claims a figure, seed {options.seed}.\n\n{markdown(rows)}")
    sys.stderr.write(f"{time.monotonic() - begin:.0f} s, {time.process_time() - cpu:.0f} s of CPU\n")
    return 0 if holds(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
