"""Counting the pairs of many candidates at once says what pairing them one by one says, damaged or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.bundles.manifest import TaskResult
from quantgate.bundles.schema import SAMPLES
from quantgate.judge.judge import pairs_of
from quantgate.judge.pair_counts import COLUMNS, REPETITIVE, RunSamples, count_pairs, evidence_of
from quantgate.judge.pairing import Counts, DeclaredTask, Pairs, Unpaired, counts_of
from quantgate.judge.stats.baseline_score import score_of_counts
from quantgate.model.config.suites import SuiteTask
from quantgate.model.enums import Family
from tests.support.sample_rows import policy_of, sample_row, task_result

Row = dict[str, Any]
LOOKS = policy_of({Family.MATH: (0.1, 1)}, looks=(0.5, 1.0))
DECLARED: list[DeclaredTask] = [
    SuiteTask(task="sums", family=Family.MATH),
    SuiteTask(task="words", family=Family.CONVERSATION, filter="strict"),
    SuiteTask(task="never asked", family=Family.CODE),
]


def row(task: str, number: int, score: float) -> Row:
    text = f"{task} {number}"
    return sample_row(
        task,
        number,
        score,
        filter="strict" if task == "words" else "none",
        doc_hash=f"doc {text}",
        prompt_hash=f"prompt {text}",
        target_hash=f"target {text}",
        position=number,
    )


def table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SAMPLES)


def narrow(samples: pa.Table) -> RunSamples:
    """As the bundles' reader gives them: few columns, of which some are dictionaries."""
    columns = samples.select(COLUMNS)
    for name in REPETITIVE:
        place = columns.schema.get_field_index(name)
        columns = columns.set_column(place, name, columns[name].dictionary_encode())
    return RunSamples(columns)


def found(
    baseline: list[Row], *candidates: list[Row], declared: list[DeclaredTask] = DECLARED
) -> list[dict[str, Any]]:
    """Count the pairs of each candidate's tasks."""
    there, sides = narrow(table(baseline)), [narrow(table(rows)) for rows in candidates]
    counted = count_pairs([(there, here) for here in sides])
    return [
        evidence_of(there, here, of_run, declared, LOOKS) for here, of_run in zip(sides, counted, strict=True)
    ]


def stopped(task: str, documents: int, available: int) -> TaskResult:
    """Return the result of a task whose candidate answered some of its documents."""
    return task_result(task, documents, documents_available=available, looks=(documents,))


def same(evidence: Any, expected: Any) -> bool:
    """Counts stand for the pairs that they are counted of; everything else is the same."""
    if isinstance(evidence, Counts):
        return isinstance(expected, Pairs) and evidence == counts_of(expected)
    if isinstance(evidence, Pairs):
        return isinstance(expected, Pairs) and all(
            np.array_equal(*scores) for scores in zip(evidence, expected, strict=True)
        )
    return bool(evidence == expected)


def run(task_scores: dict[str, list[float]]) -> list[Row]:
    return [row(task, n, score) for task, scores in task_scores.items() for n, score in enumerate(scores)]


SOUND = {"sums": [1.0, 0.0, 1.0, 1.0], "words": [0.0, 1.0, 1.0]}


def test_sound_runs_are_counted_and_need_no_single_score() -> None:
    other = {"sums": [0.0, 1.0, 1.0, 0.0], "words": [0.0, 1.0, 1.0]}
    first, second = found(run(SOUND), run(other), run(SOUND)[::-1])
    assert first["sums"] == Counts(pairs=4, worse=2, better=1, baseline_right=3, candidate_right=2)
    assert first["words"] == second["words"] == Counts(3, 0, 0, 2, 2)
    assert second["sums"] == Counts(4, 0, 0, 3, 3), "in another order"


@pytest.mark.parametrize(
    "change", [{"score": 0.5}, {"cluster": "physics"}], ids=["partial credit", "a passage"]
)
def test_what_a_count_cannot_tell_is_paired_document_by_document(change: Row) -> None:
    rows = run(SOUND)
    (evidence,) = found(
        [rows[0] | {"cluster": change.get("cluster")}, *rows[1:]], [rows[0] | change, *rows[1:]]
    )
    assert isinstance(evidence["sums"], Pairs)
    assert isinstance(evidence["words"], Counts), "that task is plain"


def test_a_hash_only_proposes_a_pair() -> None:
    """Two keys with each other's hash: their rows are laid beside each other, and seen not to be the same."""
    rows = run(SOUND)
    there, here = narrow(table(rows)), narrow(table(rows[::-1]))
    hashes = here.hashes.copy()
    hashes[[0, 1]] = hashes[[1, 0]]
    here.__dict__["hashes"] = hashes
    (counted,) = count_pairs([(there, here)])
    assert counted.keys() == {("sums", "none")}
    assert same(
        evidence_of(there, here, counted, DECLARED, LOOKS)["words"], Pairs(*[np.array([0.0, 1.0, 1.0])] * 2)
    )


def test_hashes_that_collide_are_no_proof_of_a_document_that_comes_twice() -> None:
    there, here = (narrow(table(run(SOUND))) for _ in range(2))
    there.__dict__["hashes"] = np.zeros(7, dtype=np.uint64)
    (counted,) = count_pairs([(there, here)])
    assert counted == {}
    assert isinstance(evidence_of(there, here, counted, DECLARED, LOOKS)["sums"], Pairs)


def test_a_document_twice_on_both_sides_is_not_counted_twice() -> None:
    rows = run(SOUND)
    (evidence,) = found([*rows, rows[0]], [*rows, rows[0]])
    assert evidence["sums"] == Unpaired("task sums: 1 document twice in the baseline's samples")


def test_a_candidate_that_stopped_is_counted_on_the_first_documents() -> None:
    """The files hold the documents in another order than they were asked in, as a run's do."""
    asked = [
        row("sums", n, float(n % 2)) | {"position": position} for n, position in enumerate((3, 0, 4, 1, 2))
    ]
    answered = [one | {"score": 1.0} for one in asked if one["position"] < 3]
    task = stopped("sums", 3, 5)
    (first,) = found(asked, answered, declared=[task])
    whole = score_of_counts(2, 5)
    assert first["sums"] == Counts(3, worse=0, better=1, baseline_right=2, candidate_right=3, whole=whole)
    others = [one for one in asked if one["position"] in {0, 1, 3}]
    (chosen,) = found(asked, others, declared=[task])
    assert isinstance(chosen["sums"], Unpaired), "somebody chose among the documents"
    (unsaid,) = found(asked, answered, declared=[DECLARED[0]])
    assert "2 documents without a pair" in unsaid["sums"].reason


def changed(rows: list[Row], at: int, **change: Any) -> list[Row]:
    return [*rows[:at], rows[at] | change, *rows[at + 1 :]]


ROWS = run(SOUND)
TWO_FILTERS = [*ROWS, *(one | {"filter": "strict"} for one in ROWS if one["task"] == "sums")]
ODD: dict[str, tuple[list[Row], list[Row]]] = {
    **{
        f"another {name}": (ROWS, changed(ROWS, 1, **{name: "x"}))
        for name in ("doc_hash", "prompt_hash", "target_hash", "metric")
    },
    "another metric in the baseline": (changed(ROWS, 0, metric="x"), ROWS),
    "a document less": (ROWS, ROWS[1:]),
    "a document more": (ROWS[1:], ROWS),
    "a document twice in place of another": (ROWS, changed(ROWS, 0, **ROWS[1])),
    "no number": (ROWS, changed(ROWS, 0, score=float("nan"))),
    "more than right": (ROWS, changed(ROWS, 0, score=2.0)),
    "two filters": (TWO_FILTERS, TWO_FILTERS),
    "the other filter": (ROWS, [one | {"filter": "other"} for one in ROWS]),
}


@pytest.mark.parametrize("odd", ODD)
def test_whatever_is_odd_is_named_as_pairing_names_it(odd: str) -> None:
    baseline, candidate = ODD[odd]
    task = DECLARED[0]
    expected = pairs_of(table(baseline), table(candidate), task, LOOKS)
    assert isinstance(expected, Unpaired)
    for rows in (candidate, candidate[::-1]):
        (evidence,) = found(baseline, rows)
        assert evidence["sums"] == expected


IN_ORDER = run({"sums": [1.0, 0.0, 1.0, 1.0, 0.0]})
NOT_THE_FIRST: dict[str, tuple[list[Row], list[Row]]] = {
    "positions that it gives itself": (IN_ORDER, changed(IN_ORDER[:3], 0, position=9)),
    "no position": (IN_ORDER, changed(IN_ORDER[:3], 0, position=None)),
}
ANOTHER_ORDER: dict[str, tuple[list[Row], list[Row]]] = {
    "its positions are not the baseline's": (
        IN_ORDER,
        changed([IN_ORDER[n] for n in (0, 1, 3)], 2, position=2),
    ),
    "two that are asked third": (changed(IN_ORDER, 4, position=2), IN_ORDER[:3]),
    "no position in the baseline": (changed(IN_ORDER, 4, position=None), IN_ORDER[:3]),
}
"""Baselines of earlier versions, whose order was another one."""


@pytest.mark.parametrize("odd", NOT_THE_FIRST)
def test_documents_that_are_not_the_first_are_not_counted(odd: str) -> None:
    baseline, candidate = NOT_THE_FIRST[odd]
    task = stopped("sums", 3, 5)
    expected = pairs_of(table(baseline), table(candidate), task, LOOKS)
    assert isinstance(expected, Unpaired)
    (evidence,) = found(baseline, candidate, declared=[task])
    assert evidence["sums"] == expected


@pytest.mark.parametrize("odd", ANOTHER_ORDER)
def test_documents_of_a_baseline_in_another_order_pair_by_their_keys(odd: str) -> None:
    baseline, candidate = ANOTHER_ORDER[odd]
    task = stopped("sums", 3, 5)
    expected = pairs_of(table(baseline), table(candidate), task, LOOKS)
    assert isinstance(expected, Pairs)
    assert expected.candidate.tolist() == [one["score"] for one in candidate], "as the candidate was asked"
    (evidence,) = found(baseline, candidate, declared=[task])
    assert same(evidence["sums"], expected)


def test_no_samples_at_all() -> None:
    rows = run(SOUND)
    for baseline, candidate in ((rows, []), ([], rows), ([], [])):
        (evidence,) = found(baseline, candidate)
        for task in DECLARED:
            assert same(evidence[task.task], pairs_of(table(baseline), table(candidate), task, LOOKS))


scores = st.sampled_from([0.0, 1.0])
damage = st.one_of(
    st.tuples(st.just("drop")),
    st.tuples(st.just("repeat")),
    st.tuples(st.just("shuffle"), st.randoms(use_true_random=False)),
    st.builds(
        lambda change: ("change", change),
        st.one_of(
            st.fixed_dictionaries(
                {"score": st.sampled_from([float("nan"), float("inf"), 0.5, 1.5, -1.0, 0.0])}
            ),
            *(
                st.fixed_dictionaries({name: st.sampled_from(["x", "y"])})
                for name in ("doc_hash", "prompt_hash", "target_hash", "metric")
            ),
            st.fixed_dictionaries({"filter": st.sampled_from(["none", "strict"])}),
            st.fixed_dictionaries({"task": st.sampled_from(["sums", "words", "other"])}),
            st.fixed_dictionaries({"doc_id": st.sampled_from(["d0", "d1", "d9"])}),
            st.fixed_dictionaries({"doc_repeat": st.integers(0, 2)}),
            st.fixed_dictionaries({"position": st.sampled_from([None, 0, 1, 7])}),
        ),
    ),
)


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Row], list[list[Row]]]:
    """A baseline and its candidates, of which some are damaged, and some of those so that it does not show."""
    sizes = {"sums": draw(st.integers(1, 6)), "words": draw(st.integers(1, 4))}

    def answers() -> list[Row]:
        return run({task: draw(st.lists(scores, min_size=n, max_size=n)) for task, n in sizes.items()})

    def spoilt(rows: list[Row]) -> list[Row]:
        for kind, *how in draw(st.lists(damage, max_size=2)):
            if not rows:
                break
            at = draw(st.integers(0, len(rows) - 1))
            if kind == "drop":
                rows = rows[:at] + rows[at + 1 :]
            elif kind == "repeat":
                rows = [*rows, rows[at]]
            elif kind == "shuffle":
                rows = how[0].sample(rows, len(rows))
            else:
                rows = [*rows[:at], rows[at] | how[0], *rows[at + 1 :]]
        return rows

    baseline = spoilt(answers()) if draw(st.booleans()) else answers()
    stops = draw(st.integers(1, 6))
    return baseline, [
        spoilt([one for one in answers() if whole or one["position"] < stops])
        for whole in draw(st.lists(st.booleans(), min_size=1, max_size=3))
    ]


@settings(max_examples=60, deadline=None)
@given(runs(), st.booleans())
def test_counts_and_pairs_agree_on_random_and_on_damaged_runs(
    drawn: tuple[list[Row], list[list[Row]]], early: bool
) -> None:
    baseline, candidates = drawn
    stops: list[DeclaredTask] = [stopped(task, 1, 100) for task in ("sums", "words")]
    declared = stops if early else DECLARED
    for evidence, rows in zip(found(baseline, *candidates, declared=declared), candidates, strict=True):
        for task in declared:
            expected = pairs_of(table(baseline), table(rows), task, LOOKS)
            assert same(evidence[task.task], expected), (task.task, evidence[task.task], expected)


def test_documents_that_stopped_early_wait_where_others_of_the_task_have_clusters():
    """The answered ones have none, and a later one does: counts alone would judge them as independent."""
    baseline = [row("sums", number, 1.0) for number in range(6)]
    for late in baseline[4:]:
        late["cluster"] = "a passage"
    (evidence,) = found(baseline, baseline[:3], declared=[stopped("sums", 3, 6)])
    assert isinstance(evidence["sums"], Pairs)
    assert evidence["sums"].clusters is not None
