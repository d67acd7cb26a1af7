"""docs/outside-cases.md: which conclusions others' published quality figures allow.

``python -m docs.pages.outside_cases`` writes it from ``configs/`` alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from pydantic import Field

from docs.pages.page import fill
from quantgate.judge.power import ASSUMED_FLIP_RATE
from quantgate.model.config.policy import Policy, load_policy
from quantgate.model.enums import Family
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import Strict, choose, load_yaml
from warehouse.configuration import CONFIGS, configured_in_memory
from warehouse.database import Connection, fetch
from warehouse.evidence.published_scores import Concluded, Outside, read_pairs, read_scores

PAGE = ROOT / "docs" / "outside-cases.md"
CASES = CONFIGS / "reference" / "outside-cases.yaml"

_RUNS = """
    SELECT c.model, c.precision, c.task, c.run, c.documents, b.score AS baseline, c.score AS candidate, c.source
    FROM store.published_scores c
    JOIN store.published_scores b USING (dataset, run, benchmark, task, metric, filter)
    WHERE c.dataset = $dataset AND c.is_primary AND b.is_baseline AND NOT c.is_baseline
    ORDER BY c.model, c.precision, c.task, c.run
"""
_NOISE = """
    WITH spread AS (
        SELECT task, max(documents) AS documents, max(score) - min(score) AS apart
        FROM store.published_scores
        WHERE dataset = $dataset AND is_primary
        GROUP BY task, checkpoint
        HAVING count(DISTINCT run) > 1
    )
    SELECT task, any_value(documents) AS documents, count(*) AS checkpoints, avg(apart) AS mean, max(apart) AS most
    FROM spread GROUP BY task ORDER BY task
"""
_SHORT = {
    Concluded.WITHIN: "within, any",
    Concluded.WITHIN_IF: "within, if few",
    Concluded.BEYOND: "beyond, any",
    Concluded.BEYOND_IF: "beyond, if few",
    Concluded.UNDECIDABLE: "no",
}


class ScoredTask(Strict):
    """Two published scores of a task."""

    task: str
    family: Family
    documents: int = Field(ge=1)
    baseline: float = Field(ge=0, le=1)
    candidate: float = Field(ge=0, le=1)


class ScoredCase(Strict):
    """Published scores of a pair of checkpoints."""

    case: str
    source: str
    rounding: float = Field(gt=0, lt=0.1, description="Half of a score's last digit, a fraction.")
    tasks: tuple[ScoredTask, ...]


class PairedCase(Strict):
    """Published flip counts of a pair of checkpoints."""

    case: str
    source: str
    task: str
    family: Family
    documents: int = Field(ge=1)
    worse: int = Field(ge=0)
    better: int = Field(ge=0)
    note: str


class Repeated(Strict):
    """A stored dataset that measured its checkpoints more than once."""

    dataset: str
    families: dict[str, Family]


class Cases(Strict):
    """configs/reference/outside-cases.yaml."""

    policy: str
    scores: tuple[ScoredCase, ...]
    pairs: tuple[PairedCase, ...]
    repeated: Repeated


class Pair(NamedTuple):
    """Two checkpoints of the repeated dataset on a task."""

    model: str
    precision: str
    task: str
    documents: int
    margin: float


class Section(NamedTuple):
    """A published case: its heading, its source and a row of cells for each task."""

    case: str
    source: str
    tasks: list[tuple[str, ...]]


def outside_page(connection: Connection) -> str:
    """Return the page as Markdown, from a warehouse that holds the published scores.

    Raises:
        ConfigError: outside-cases.yaml is wrong, or names an unknown family or task.
    """
    cases = load_yaml(CASES, Cases)
    policy = load_policy(cases.policy)
    dataset = cases.repeated.dataset
    runs = fetch(connection, _RUNS, dataset=dataset)
    readings = _readings(runs, cases.repeated, policy)
    concluded = [{reading.concluded for reading in pair} for pair in readings.values()]
    return fill(
        "outside_cases",
        policy_name=cases.policy,
        policy=policy,
        level_percent=100 * (1 - 2 * policy.alpha),
        flips_percent=100 * ASSUMED_FLIP_RATE,
        cases=[*_scored(cases, policy), *_paired(cases, policy)],
        repeated_source=runs[0]["source"],
        noise=[
            _noise_cells(row, cases.repeated, policy) for row in fetch(connection, _NOISE, dataset=dataset)
        ],
        pairs=[_pair_cells(key, pair) for key, pair in readings.items()],
        within=concluded.count({Concluded.WITHIN}),
        beyond=concluded.count({Concluded.BEYOND}),
        never=concluded.count({Concluded.UNDECIDABLE}),
    )


def _scored(cases: Cases, policy: Policy) -> Iterator[Section]:
    for case in cases.scores:
        rows = []
        for task in case.tasks:
            margin = policy.families[task.family].margin
            reading = read_scores(
                task.baseline, task.candidate, task.documents, margin, *_plan(policy), case.rounding
            )
            claimed = f"{100 * task.baseline:.1f} → {100 * task.candidate:.1f}"
            rows.append(_task_cells(task.task, claimed, task.documents, margin, reading))
        yield Section(case.case, case.source, rows)


def _paired(cases: Cases, policy: Policy) -> Iterator[Section]:
    for case, pairs in groupby(cases.pairs, key=attrgetter("case")):
        rows, source = [], ""
        for pair in pairs:
            margin = policy.families[pair.family].margin
            reading = read_pairs(pair.worse, pair.better, pair.documents, margin, *_plan(policy))
            claimed = f"{pair.worse:,} worse, {pair.better:,} better ({pair.note})"
            rows.append(_task_cells(pair.task, claimed, pair.documents, margin, reading))
            source = source or f"{pair.source}. Worse and better are flip counts"
        yield Section(case, source, rows)


def _plan(policy: Policy) -> tuple[float, float]:
    return policy.alpha, policy.planned_power


def _task_cells(task: str, claimed: str, n: int, margin: float, reading: Outside) -> tuple[str, ...]:
    low, high = (100 * end for end in reading.interval)
    return (
        task,
        claimed,
        f"{100 * reading.delta:+.1f} [{low:.1f}, {high:.1f}]",
        f"{n:,}",
        f"{reading.resolvable_points:.2g}",
        f"{100 * margin:g}",
        f"{reading.documents_needed:,}",
        _concluded(reading, n),
    )


def _concluded(reading: Outside, n: int) -> str:
    if reading.flips_allowed is not None:
        share = 100 * reading.flips_allowed / n
        condition = f"if at most {reading.flips_allowed} answers ({share:.1f} %) flipped"
        return f"within the margin {condition}, which nobody published"
    settled = reading.concluded in {Concluded.WITHIN, Concluded.BEYOND}
    if settled and reading.most_flips > reading.fewest_flips:
        return f"{reading.concluded}, whatever the flips"
    return str(reading.concluded)


def _noise_cells(row: dict[str, Any], repeated: Repeated, policy: Policy) -> tuple[str, ...]:
    family = choose(repeated.families, row["task"], f"{CASES.name}: repeated.families")
    margin = policy.families[family].margin
    reading = read_scores(0.5, 0.5, 2 * (row["documents"] // 2), margin, *_plan(policy))
    return (
        row["task"],
        str(row["documents"]),
        str(row["checkpoints"]),
        f"{100 * row['mean']:.2f}",
        f"{100 * row['most']:.2f}",
        f"{reading.resolvable_points:.2g}",
        f"{100 * margin:g}",
    )


def _readings(runs: list[dict[str, Any]], repeated: Repeated, policy: Policy) -> dict[Pair, list[Outside]]:
    """Read each pair of scores, once per run."""
    readings: dict[Pair, list[Outside]] = {}
    for row in runs:
        margin = policy.families[repeated.families[row["task"]]].margin
        reading = read_scores(row["baseline"], row["candidate"], row["documents"], margin, *_plan(policy))
        pair = Pair(row["model"], row["precision"], row["task"], row["documents"], margin)
        readings.setdefault(pair, []).append(reading)
    return readings


def _pair_cells(pair: Pair, readings: list[Outside]) -> tuple[str, ...]:
    return (
        pair.model,
        pair.precision,
        pair.task,
        str(pair.documents),
        ", ".join(f"{100 * reading.delta:+.1f}" for reading in readings),
        f"{100 * pair.margin:g}",
        "; ".join(map(_short, readings)),
    )


def _short(reading: Outside) -> str:
    if reading.flips_allowed is not None:
        return f"within, if ≤ {reading.flips_allowed}"
    return _SHORT[reading.concluded]


if __name__ == "__main__":
    PAGE.write_text(outside_page(configured_in_memory()), encoding="utf-8")
