"""Interim looks: decisions at them, runs that stopped early, and results that only their own design may judge."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.bundles.manifest import Manifest, TaskResult
from quantgate.bundles.schema import SAMPLES
from quantgate.judge.interim import BetweenLooks, Look, look_of, look_sizes
from quantgate.judge.judge import judge, judge_interim, judge_runs
from quantgate.judge.pairing import Pairs
from quantgate.judge.stats.exact import p_noninferior
from quantgate.judge.stats.group_sequential import Design, p_inferior_at, p_noninferior_at
from quantgate.judge.stats.stopped_estimate import corrected_estimate
from quantgate.judge.task_verdict import figures_of, not_paired
from quantgate.model.config.policy import FamilyPolicy
from quantgate.model.enums import Family, Outcome, TestKind, Verdict
from quantgate.model.records import TaskVerdict
from tests.support.sample_rows import policy_of, sample_row, task_result

ALL, MARGIN, ALPHA = 1000, 0.02, 0.05
SHARES = (0.2, 0.4, 0.6, 0.8)
POLICY = policy_of({Family.MATH: (MARGIN, 100)}, alpha=ALPHA, looks=SHARES)
LOOKS = look_sizes(ALL, SHARES, 100)
DESIGN = Design(LOOKS, MARGIN, ALPHA)


def result(
    documents: int, *, looks: tuple[int, ...] | None = None, available: int | None = ALL
) -> TaskResult:
    """Return a candidate's result so far, judged at every interim look."""
    judged_at = tuple(n for n in LOOKS if n <= documents) if looks is None else looks
    return task_result("sums", documents, documents_available=available, looks=judged_at)


def samples(scores: Any, positions: Any = None) -> pa.Table:
    """A row for each score, in the order of the task."""
    return pa.Table.from_pylist(
        [
            sample_row("sums", number, score, position=number)
            for number, score in zip(
                range(len(scores)) if positions is None else positions, scores, strict=True
            )
        ],
        schema=SAMPLES,
    )


def both(documents: int, worse: int, better: int) -> tuple[pa.Table, pa.Table]:
    """A baseline that answered everything and a candidate with so many flips among the first documents."""
    baseline = np.arange(ALL) % 10 < 7
    candidate = baseline[:documents].copy()
    candidate[np.flatnonzero(baseline[:documents])[:worse]] = False
    candidate[np.flatnonzero(~baseline[:documents])[:better]] = True
    return samples(baseline), samples(candidate)


def at(documents: int, worse: int, better: int, required: int = 1) -> TaskVerdict:
    return judge_interim(*both(documents, worse, better), result(documents), POLICY, required)


def test_it_passes_at_a_look_where_boundary_and_p_value_allow_it():
    found = at(200, 0, 7)
    assert (found.outcome, found.pairs, found.looks, found.documents_available) == (Outcome.PASS, 200, 1, ALL)
    assert found.p_noninferior == p_noninferior_at(0, 7, 0, DESIGN) <= ALPHA
    assert found.ci_low > -MARGIN
    # Below the boundary the fixed test would pass, and the looks to come are why it may not.
    assert p_noninferior(0, 0, 200, MARGIN) <= ALPHA
    goes_on = at(200, 0, 0)
    assert goes_on.outcome == Outcome.UNDECIDED
    assert goes_on.p_noninferior > ALPHA
    assert goes_on.ci_low < -MARGIN
    assert "at interim look 1, with 800 documents to go on with" in goes_on.reason


def test_a_loss_stops_it_at_alpha_over_the_required_tasks():
    alone = at(400, 30, 4)
    p = p_inferior_at(30, 4, 1, DESIGN)
    assert (alone.outcome, alone.p_inferior) == (Outcome.FAIL, p)
    assert alone.ci_high < -MARGIN
    assert at(400, 30, 4, required=int(ALPHA / p) + 1).outcome == Outcome.UNDECIDED


def test_the_verdict_of_a_run_that_stopped_is_the_one_that_stopped_it():
    for documents, worse, better, expected in (
        (200, 0, 7, Verdict.VALIDATED),
        (400, 30, 4, Verdict.REJECTED),
        (400, 8, 8, Verdict.INCONCLUSIVE),
        (ALL, 16, 14, Verdict.VALIDATED),
    ):
        stopped = result(documents)
        (verdict,) = judge(*both(documents, worse, better), "looks", POLICY, [stopped])
        assert verdict.verdict is expected
        on_its_way = at(documents, worse, better)
        assert verdict.tasks[0] == on_its_way.model_copy(update={"reason": verdict.tasks[0].reason})
        assert on_its_way.reason in verdict.reason or expected is Verdict.VALIDATED


def test_more_documents_than_the_task_has_is_said():
    found = at(ALL, 43, 32)
    assert found.outcome == Outcome.UNDECIDED
    assert found.documents_needed > 1400
    assert found.reason.endswith(
        f"has 1000 documents and needs about {found.documents_needed} if its true delta is 0, "
        "more than the 1000 that this task has"
    )
    assert "at look" not in found.reason


def test_between_looks_nothing_is_decided():
    """A run that a limit cut: its figures are there, its design goes on at the next look."""
    found = at(250, 0, 9)
    assert found.outcome == Outcome.UNDECIDED
    assert found.looks == 1
    assert "250 documents are between two interim looks, the next is at 400" in found.reason
    assert found.p_noninferior == found.p_inferior == 1.0
    assert "150 documents are before the first interim look, the next is at 200" in at(150, 0, 9).reason


def test_judged_once_it_is_the_fixed_test():
    """Nobody looked before the end (--full, or a policy without looks)."""
    for policy, task in (
        (POLICY, result(ALL, looks=(ALL,))),
        (POLICY, result(ALL, looks=())),
        (POLICY.model_copy(update={"looks": ()}), result(ALL)),
        (POLICY, result(ALL, looks=(), available=None)),
    ):
        (verdict,) = judge(*both(ALL, 16, 14), "looks", policy, [task])
        assert verdict.tasks[0].p_noninferior == p_noninferior(16, 14, ALL, MARGIN)
    looked = at(ALL, 16, 14)
    assert looked.looks == len(LOOKS)
    assert looked.p_noninferior > p_noninferior(16, 14, ALL, MARGIN)


def test_the_delta_is_corrected_where_an_earlier_look_could_have_stopped_the_task():
    for task in (at(200, 0, 9), at(150, 0, 9)):
        assert task.quality_delta_corrected == task.quality_delta, "no look before it"
    assert at(250, 0, 9).quality_delta_corrected is None, "between two looks"
    late = at(600, 9, 19)
    assert late.outcome is Outcome.PASS
    assert late.quality_delta_corrected == corrected_estimate(9, 19, 2, DESIGN)
    assert late.ci_low < late.quality_delta_corrected < late.quality_delta
    (once,) = judge(*both(ALL, 16, 14), "looks", POLICY, [result(ALL, looks=(ALL,))])
    assert once.tasks[0].quality_delta_corrected == once.tasks[0].quality_delta


def test_the_delta_of_partial_credit_is_not_corrected_and_that_of_clusters_needs_none():
    baseline = np.where(np.arange(ALL) % 2, 0.5, 1.0)
    pairs = Pairs(baseline, baseline - 0.25)
    graded = figures_of(result(ALL), pairs, POLICY)
    assert (graded.test, graded.quality_delta_corrected) == (TestKind.BETTING, None)
    once = figures_of(result(ALL, looks=(ALL,)), pairs, POLICY)
    assert once.quality_delta_corrected == once.quality_delta == -0.25
    clustered = figures_of(result(ALL), pairs._replace(clusters=np.arange(ALL) // 4), POLICY)
    assert (clustered.test, clustered.quality_delta_corrected) == (TestKind.CLUSTER, -0.25)
    assert not_paired(result(ALL), POLICY, "").quality_delta_corrected is None


def test_where_a_task_stands():
    assert look_of(result(400), 400, POLICY) == Look(DESIGN, 1)
    assert look_of(result(401), 401, POLICY) == BetweenLooks(DESIGN, 401)
    # A look that was left out counts as looked at: the design is what was declared.
    assert look_of(result(ALL, looks=(200, ALL)), ALL, POLICY) == Look(DESIGN, 4)
    assert look_of(result(80), 80, POLICY).number == 0


@pytest.mark.parametrize(
    ("positions", "reason"),
    [
        ([*range(199), 200], "the documents that the candidate answered are not the first of its order"),
        ([*range(1, 201)], "the documents that the candidate answered are not the first of its order"),
    ],
)
def test_only_the_first_documents_pair(positions: list[int], reason: str):
    baseline, _ = both(200, 0, 0)
    candidate = samples(np.ones(200), positions)
    (verdict,) = judge(baseline, candidate, "looks", POLICY, [result(200)])
    assert (verdict.verdict, verdict.reason) == (Verdict.NOT_COMPARABLE, f"task sums: {reason}")
    found = judge_interim(baseline, candidate, result(200), POLICY, 1)
    assert (found.outcome, found.pairs, found.reason) == (Outcome.UNDECIDED, 0, f"task sums: {reason}")


def test_documents_left_out_without_a_stop_do_not_pair():
    baseline, candidate = both(200, 0, 0)
    for task, policy in (
        (result(200), POLICY.model_copy(update={"looks": ()})),
        (result(200, available=200), POLICY),
    ):
        (verdict,) = judge(baseline, candidate, "looks", policy, [task])
        assert verdict.verdict is Verdict.NOT_COMPARABLE
        assert "800 documents without a pair (800 only in the baseline" in verdict.reason
    unknown = candidate.set_column(
        candidate.schema.get_field_index("position"), SAMPLES.field("position"), pa.nulls(200, pa.int32())
    )
    (verdict,) = judge(baseline, unknown, "looks", POLICY, [result(200)])
    assert "the order of its documents was not recorded" in verdict.reason
    other = samples(np.ones(200)).set_column(
        SAMPLES.get_field_index("doc_id"), SAMPLES.field("doc_id"), pa.array([f"e{n}" for n in range(200)])
    )
    (verdict,) = judge(baseline, other, "looks", POLICY, [result(200)])
    assert verdict.reason.startswith("task sums: 200 documents without a pair (0 only in the baseline")


def test_a_baseline_that_was_asked_in_an_older_order_pairs_by_documents():
    """What it holds beyond the candidate's documents, copies among them, waits."""
    _, candidate = both(200, 0, 7)
    scores = np.arange(ALL) % 10 < 7
    older = samples(scores, range(ALL))
    for positions in (pa.array(range(ALL - 1, -1, -1), pa.int32()), pa.nulls(ALL, pa.int32())):
        column = SAMPLES.get_field_index("position")
        baseline = older.set_column(column, SAMPLES.field("position"), positions)
        found = judge_interim(baseline, candidate, result(200), POLICY, 1)
        assert (found.pairs, found.better, found.outcome) == (200, 7, Outcome.PASS)


def test_what_stopped_early_is_judged_by_its_own_design_alone():
    stopped, tables = result(200), both(200, 0, 7)
    wider = POLICY.model_copy(update={"families": {Family.MATH: FamilyPolicy(margin=0.1, min_documents=100)}})
    for other in (wider, POLICY.model_copy(update={"alpha": 0.1}), POLICY.model_copy(update={"looks": ()})):
        (verdict,) = judge(*tables, "other", other, [stopped], own=POLICY)
        assert verdict.verdict is Verdict.INCONCLUSIVE
        assert "it stopped after 200 of 1000 documents as its own policy says" in verdict.reason
        assert verdict.tasks[0].p_noninferior == 1.0
    stale = POLICY.model_copy(update={"stale_after_days": 10})
    (verdict,) = judge(*tables, "other", stale, [stopped], own=POLICY)
    assert verdict.verdict is Verdict.VALIDATED
    (verdict,) = judge(*both(ALL, 16, 14), "other", wider, [result(ALL)], own=POLICY)
    assert verdict.verdict is Verdict.VALIDATED, "it answered everything: any policy may judge it"


def test_a_bundle_that_stopped_early_judged_under_its_own_policy_and_another(place, three):
    """Down to the manifests: what the loader and ``quantgate judge`` do with them."""
    place.write(*three[:2])
    own = three[0].policy.model_copy(update={"looks": (0.6,)})
    read = {}
    for run in three[:2]:
        folder = place.bundles / run.run_id
        manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
        answered = 60 if run is three[1] else 100
        tasks = tuple(
            task.model_copy(update={"documents": answered, "documents_available": 100, "looks": (answered,)})
            for task in manifest.tasks
        )
        rows = pq.read_table(folder / "samples.parquet", schema=SAMPLES)
        position = pc.cast(rows["doc_id"], pa.int32())
        rows = rows.set_column(SAMPLES.get_field_index("position"), SAMPLES.field("position"), position)
        read[run.run_id] = (
            manifest.model_copy(update={"tasks": tasks, "policy": own}),
            rows.filter(pc.less(position, answered)),
        )
    baseline, candidate = read.values()
    first = judge_runs(*baseline, *candidate)[0]
    assert first.verdict is Verdict.VALIDATED
    assert {(task.pairs, task.looks, task.documents_available) for task in first.tasks} == {(60, 1, 100)}
    other = own.model_copy(update={"looks": (0.5, 0.6)})
    there, here = (
        (manifest.model_copy(update={"policy_name": "other", "policy": other}), rows)
        for manifest, rows in (baseline, candidate)
    )
    verdict = judge_runs(*there, *here, own=own)[0]
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert "only that policy can judge it" in verdict.reason


def test_a_limit_below_the_only_look_decides_nothing_and_breaks_nothing():
    """No share of 50 documents lies above the policy's 100: its design has one look, at the end."""
    few = task_result("sums", 20, documents_available=50, looks=(20,))
    (verdict,) = judge(samples(np.ones(50)), samples(np.ones(20)), "looks", POLICY, [few])
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert "20 documents are before the first interim look, the next is at 50" in verdict.reason


def test_scores_that_are_graded_later_are_judged_as_such_from_the_first_look():
    baseline, candidate = both(400, 0, 0)
    graded = baseline.to_pylist()
    graded[-1]["score"] = 0.5
    found = judge_interim(pa.Table.from_pylist(graded, schema=SAMPLES), candidate, result(400), POLICY, 1)
    assert found.test == TestKind.BETTING
    assert judge_interim(baseline, candidate, result(400), POLICY, 1).test == TestKind.EXACT


@pytest.mark.parametrize(
    ("shares", "sizes"),
    [
        ((), (1000,)),
        ((0.1, 0.5, 1.0), (100, 500, 1000)),
        ((0.01, 0.1), (100, 1000)),
        ((0.5, 0.5), (500, 1000)),
    ],
)
def test_looks_begin_where_the_policy_lets_a_task_pass(shares, sizes) -> None:
    assert look_sizes(1000, shares, 50) == sizes


@given(st.integers(1, 10_000), st.lists(st.floats(0.001, 1.0), max_size=8), st.integers(1, 500))
def test_looks_rise_and_end_with_all(available, shares, least) -> None:
    sizes = look_sizes(available, shares, least)
    assert sizes[-1] == available
    assert list(sizes) == sorted(set(sizes))
    assert all(size >= least for size in sizes[:-1])
