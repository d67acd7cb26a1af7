"""Verdicts on tasks whose documents share subjects or passages."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from quantgate.bundles.manifest import TaskResult
from quantgate.bundles.schema import SAMPLES
from quantgate.judge.judge import judge_interim
from quantgate.judge.pairing import Pairs, Unpaired, pair_task
from quantgate.judge.stats.betting import p_noninferior_betting
from quantgate.judge.stats.clustered import (
    cluster_interval,
    cluster_totals,
    p_degraded_clusters,
    p_inferior_clusters,
    p_noninferior_clusters,
)
from quantgate.judge.stats.exact import p_degraded, p_noninferior
from quantgate.model.config.policy import Policy
from quantgate.model.config.suites import SuiteTask
from quantgate.model.enums import Family, Outcome, TestKind, Verdict
from quantgate.model.records import UseVerdict
from tests.support.sample_rows import judged_use, policy_of, sample_row, task_result

TASK = SuiteTask(task="subjects", family=Family.KNOWLEDGE)
POLICY = policy_of({Family.KNOWLEDGE: (0.02, 100)}, min_clusters=20)


def table(scores: Any, clusters: Any, positions: Any = None, first: int = 0) -> pa.Table:
    """Samples of documents that are numbered from ``first``; what they ask decides the order of clusters."""
    rows = [
        sample_row(
            "subjects",
            first + number,
            score,
            family="knowledge",
            cluster=cluster if cluster is None or isinstance(cluster, str) else f"{cluster:04d}",
            position=None if positions is None else positions[number],
        )
        for number, (score, cluster) in enumerate(zip(scores, clusters, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=SAMPLES)


def verdict(baseline: Any, candidate: Any, clusters: Any, policy: Policy = POLICY) -> UseVerdict:
    return judged_use(table(baseline, clusters), table(candidate, clusters), policy, "all", [TASK])


def spread(b: int, c: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores with b worse and c better documents, spread evenly over n."""
    baseline, candidate = np.ones(n), np.ones(n)
    places = np.linspace(0, n - 1, b + c).astype(int)
    candidate[places[:b]] = 0
    baseline[places[b:]] = 0
    return baseline, candidate


def test_a_task_of_clusters_is_judged_by_them():
    clusters = np.arange(3000) % 300
    baseline, candidate = spread(25, 25, 3000)
    found = verdict(baseline, candidate, clusters)
    task = found.tasks[0]
    pairs = pair_task(table(baseline, clusters), table(candidate, clusters), TASK)
    totals = cluster_totals(pairs.candidate - pairs.baseline, pairs.clusters)
    assert found.verdict is Verdict.VALIDATED
    assert (task.clusters, task.test) == (300, TestKind.CLUSTER)
    assert task.p_noninferior == p_noninferior_clusters(totals, 0.02, 0.05)
    assert task.p_inferior == p_inferior_clusters(totals, 0.02, 0.05)
    assert (task.ci_low, task.ci_high) == cluster_interval(totals, 0.05)
    assert task.ci_low > -0.02
    assert task.p_degraded == max(p_degraded(25, 25), p_degraded_clusters(totals))


def test_flips_that_come_together_do_not_validate_what_the_same_flips_apart_do():
    clusters = np.arange(6000) // 20
    baseline, candidate = spread(60, 30, 6000)
    apart = verdict(baseline, candidate, clusters)
    assert apart.verdict is Verdict.VALIDATED
    assert (apart.tasks[0].worse, apart.tasks[0].better) == (60, 30)
    lumped = np.ones(6000)
    lumped[:60] = 0
    gained = np.ones(6000)
    gained[100:130] = 0
    together = verdict(gained, lumped, clusters)
    assert (together.tasks[0].worse, together.tasks[0].better) == (60, 30)
    assert together.ci_low < apart.ci_low
    # The p-value depends on where the few bad clusters come in the order, which is random: most often it is large.
    tables = [(table(gained, clusters, first=n), table(lumped, clusters, first=n)) for n in range(7)]
    verdicts = [judged_use(*one, POLICY, "all", [TASK]).tasks[0] for one in tables]
    assert np.median([found.p_noninferior for found in verdicts]) > POLICY.alpha


def test_a_loss_in_many_clusters_is_rejected():
    rng = np.random.default_rng(2)
    baseline = np.ones(2000)
    found = verdict(baseline, (rng.random(2000) > 0.15).astype(float), np.arange(2000) % 40)
    assert found.verdict is Verdict.REJECTED
    assert found.degraded


def test_too_few_clusters_to_pass_are_reported_with_what_it_takes():
    """57 subjects without a flip: one kind in 50 may be lost and none of these be of it, (1 - 0.02)^57 = 0.32."""
    found = verdict(np.ones(5700), np.ones(5700), np.arange(5700) % 57)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.documents_needed == 14900
    assert (
        "with 57 subjects or passages (the largest has 100 documents) it can't be validated" in found.reason
    )
    assert "needs at least 14900 documents in subjects or passages of this size" in found.reason
    assert "`fixed_subjects: true`" in found.reason
    assert found.tasks[0].p_noninferior > 0.3


def test_fewer_clusters_than_the_policy_asks_for_decide_nothing():
    for candidate in (np.ones(2000), np.zeros(2000)):
        found = verdict(np.ones(2000), candidate, np.arange(2000) % 14)
        assert found.verdict is Verdict.INCONCLUSIVE
        assert found.tasks[0].clusters == 14
        assert "fall into 14 subjects or passages, and the policy asks for at least 20" in found.reason
        assert "`fixed_subjects: true`" in found.reason
    fewer = POLICY.model_copy(update={"min_clusters": 14})
    assert verdict(np.ones(2000), np.zeros(2000), np.arange(2000) % 14, fewer).verdict is Verdict.REJECTED
    alone = verdict(np.ones(2000), np.ones(2000), np.zeros(2000, dtype=int))
    assert (alone.tasks[0].clusters, alone.ci_low, alone.ci_high) == (1, -1.0, 1.0)


def test_documents_that_are_each_their_own_cluster_are_as_without_clusters():
    baseline, candidate = spread(5, 4, 1000)
    found = verdict(baseline, candidate, np.arange(1000))
    assert found == verdict(baseline, candidate, [None] * 1000)
    assert found.tasks[0].clusters is None
    assert found.tasks[0].p_noninferior == p_noninferior(5, 4, 1000, 0.02)
    assert found.tasks[0].p_degraded == p_degraded(5, 4)


def test_partial_credit_in_clusters():
    rng = np.random.default_rng(8)
    clusters = np.arange(4000) % 200
    baseline = rng.uniform(0.2, 0.8, 4000)
    candidate = baseline + rng.normal(0, 0.1, 4000).clip(-0.2, 0.2)
    found = verdict(baseline, candidate, clusters)
    assert found.verdict is Verdict.VALIDATED
    shifted = baseline + np.where(clusters % 2, 0.2, -0.2)
    moved = verdict(baseline, shifted, clusters)
    assert moved.tasks[0].test == TestKind.CLUSTER
    assert moved.verdict is Verdict.INCONCLUSIVE


def test_pairs_hold_the_clusters_and_a_document_without_one_is_its_own():
    side = table([1, 1, 0, 1, 1], ["law", None, "art", "law", None])
    pairs = pair_task(side, side, TASK)
    assert isinstance(pairs, Pairs)
    assert sorted(np.bincount(pairs.clusters).tolist()) == [1, 1, 1, 2]
    none = pair_task(table([1, 0], [None, None]), table([1, 0], [None, None]), TASK)
    assert none.clusters is None


def test_clusters_are_numbered_in_a_random_order_that_their_names_alone_decide():
    """In the order of names all spared clusters would come before the first broken one."""
    names = [f"{kind} {number:03d}" for kind in ("a", "b") for number in range(200) for _ in range(2)]
    pairs = pair_task(table(np.ones(800), names), table(np.ones(800), names), TASK)
    first = pairs.clusters < 200
    kinds = np.bincount(pairs.clusters[first], minlength=200)
    assert (kinds == 2).all()
    shuffled = np.random.default_rng(1).permutation(800)
    again = pair_task(*[table(np.ones(800), [names[n] for n in shuffled])] * 2, TASK)
    assert np.array_equal(np.sort(pairs.clusters), np.sort(again.clusters))
    candidate = np.array([0.0 if name.startswith("b") and int(name[2:]) < 40 else 1.0 for name in names])
    found = verdict(np.ones(800), candidate, names)
    assert found.verdict is not Verdict.VALIDATED
    lost = pair_task(table(np.ones(800), names), table(candidate, names), TASK)
    places = np.unique(lost.clusters[lost.candidate == 0])
    assert places.size == 40
    assert places.min() < 40, "not all of them after the kind that was spared"


@pytest.mark.parametrize(("other", "count"), [(["law", "law", "law"], 2), (["law", "art", None], 1)])
def test_a_cluster_that_differs_between_the_sides_does_not_pair(other, count):
    found = pair_task(table([1, 1, 1], ["law", "art", "art"]), table([1, 1, 1], other), TASK)
    assert found == Unpaired(f"task subjects: the cluster differs on {count} of 3 documents")


def test_partial_credit_is_judged_in_the_order_of_asking():
    rng = np.random.default_rng(9)
    baseline, candidate = rng.uniform(0, 1, 300), rng.uniform(0, 1, 300)
    positions = rng.permutation(300)
    sides = (table(scores, [None] * 300, positions.tolist()) for scores in (baseline, candidate))
    pairs = pair_task(*sides, TASK)
    order = np.argsort(positions)
    assert np.array_equal(pairs.candidate, candidate[order])
    unrecorded = pair_task(table(baseline, [None] * 300), table(candidate, [None] * 300), TASK)
    again = pair_task(table(baseline, [None] * 300), table(candidate, [None] * 300), TASK)
    assert np.array_equal(unrecorded.baseline, again.baseline), "the shuffle is the same at every judging"
    assert not np.array_equal(unrecorded.baseline, baseline[np.argsort([f"d{n}" for n in range(300)])])
    found = judged_use(
        table(baseline, [None] * 300, positions.tolist()),
        table(candidate, [None] * 300, positions.tolist()),
        POLICY,
        "all",
        [TASK],
    )
    assert found.tasks[0].p_noninferior == p_noninferior_betting((candidate - baseline)[order], 0.02, 0.05)


def result(documents: int, *looks: int) -> TaskResult:
    """Return a candidate's result so far, of 3,000 documents."""
    return task_result("subjects", documents, family=Family.KNOWLEDGE, documents_available=3000, looks=looks)


def test_clusters_are_judged_at_the_end_only_and_then_with_the_whole_of_alpha():
    policy = POLICY.model_copy(update={"looks": (0.5,)})
    baseline, candidate = spread(6, 6, 3000)
    clusters, positions = np.arange(3000) % 300, list(range(3000))
    whole = table(baseline, clusters, positions)
    half = judge_interim(
        whole, table(candidate[:1500], clusters[:1500], positions[:1500]), result(1500, 1500), policy, 1
    )
    assert half.outcome == Outcome.UNDECIDED
    assert half.clusters == 300
    assert (
        "undecided until all 3000 documents are answered, because they share subjects or passages"
        in half.reason
    )
    apart = [None] * 3000
    alone = judge_interim(
        table(baseline, apart, positions),
        table(candidate[:1500], apart[:1500], positions[:1500]),
        result(1500, 1500),
        policy,
        1,
    )
    assert alone.outcome == Outcome.PASS, "the same flips in independent documents"
    end = judge_interim(whole, table(candidate, clusters, positions), result(3000, 1500, 3000), policy, 1)
    fixed = verdict(baseline, candidate, clusters).tasks[0]
    assert end.outcome == Outcome.PASS
    assert (end.p_noninferior, end.ci_low, end.ci_high) == (fixed.p_noninferior, fixed.ci_low, fixed.ci_high)
