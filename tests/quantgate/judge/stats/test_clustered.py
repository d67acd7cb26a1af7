"""Clustered documents: the tests' formulas by hand, and their error rates by simulation."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from scipy.stats import t as student

from benchmarks.clusters import Clustered, clustered_rates
from quantgate.judge.stats.betting import p_inferior_betting, p_noninferior_betting
from quantgate.judge.stats.clustered import (
    ClusterTotals,
    cluster_interval,
    cluster_totals,
    clusters_needed,
    effective_clusters,
    p_degraded_clusters,
    p_inferior_clusters,
    p_noninferior_clusters,
    p_robust,
    robust_interval,
    score,
)

ALPHA = 0.05


def totals(documents: Any, differences: Any) -> ClusterTotals:
    return ClusterTotals(*(np.array(values, dtype=np.float64) for values in (documents, differences)))


TOTALS = st.lists(
    st.integers(8, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(-3, 4))), min_size=3, max_size=30
).map(lambda clusters: totals(*zip(*clusters, strict=True)))


def test_totals_are_summed_by_cluster():
    found = cluster_totals(np.array([-1.0, 1.0, 0.5, 0.0, -0.25]), np.array([0, 2, 2, 1, 0]))
    assert found.documents.tolist() == [2, 1, 2]
    assert found.differences.tolist() == [-1.25, 0, 1.5]


def test_the_robust_test_by_hand():
    """e = D + 0.1 n = 1, 0, 3, 2: sum 6, root of 4/3 * 14, four equal clusters: three degrees."""
    found = p_robust(totals([10] * 4, [0, -1, 2, 1]), -0.1)
    assert found == pytest.approx(student.sf(6 / np.sqrt(4 / 3 * 14), 3))
    assert p_robust(totals([10] * 4, [-1] * 4), -0.1) == 1.0, "no spread about the null proves nothing"


def test_unequal_clusters_count_for_fewer():
    assert effective_clusters(np.full(30, 7.0)) == pytest.approx(30)
    assert effective_clusters(np.array([100.0, *[1.0] * 50])) == pytest.approx(1.01, abs=0.01)


@settings(max_examples=60, deadline=None)
@given(TOTALS, st.sampled_from([0.05, 0.1]))
def test_the_robust_interval_is_what_the_score_test_does_not_refuse(found, alpha):
    # Clusters that are all alike vary nowhere: the interval is a point.
    assume(np.ptp(found.differences / found.documents) > 0)
    low, high = robust_interval(found, alpha)
    assert low <= found.differences.sum() / found.documents.sum() <= high
    critical = student.isf(alpha, max(1.0, effective_clusters(found.documents) - 1))
    for end, sign in ((low, 1), (high, -1)):
        excess = found.differences - end * found.documents
        if abs(end) < 1 and excess.any():
            assert sign * score(excess) == pytest.approx(critical)


@settings(max_examples=30, deadline=None)
@given(TOTALS, st.sampled_from([0.02, 0.1, 0.3]))
def test_the_greater_p_value_counts_and_the_interval_says_the_same(found, margin):
    counted = {"documents": found.documents}
    noninferior = p_noninferior_clusters(found, margin, ALPHA)
    bets = p_noninferior_betting(found.differences, margin, ALPHA, **counted)
    assert noninferior == max(bets, p_robust(found, -margin))
    mirror = found._replace(differences=-found.differences)
    inferior = p_inferior_clusters(found, margin, ALPHA)
    assert inferior == max(
        p_inferior_betting(found.differences, margin, ALPHA, **counted), p_robust(mirror, margin)
    )
    assert 0 < noninferior <= 1
    assert 0 < inferior <= 1
    assert p_degraded_clusters(found) == p_robust(mirror, 0.0)
    low, high = cluster_interval(found, ALPHA)
    if low > -margin + 1e-6:
        assert noninferior <= ALPHA
    if high < -margin - 1e-6:
        assert inferior <= ALPHA


@pytest.mark.parametrize(("margin", "least"), [(0.01, 299), (0.02, 149), (0.05, 59)])
def test_clusters_needed_are_near_what_any_method_takes(margin, least):
    """Without a flip a share ``margin`` of clusters, all lost, is missed with probability (1 - margin)^G."""
    assert (1 - margin) ** least <= ALPHA < (1 - margin) ** (least - 1)
    assert clusters_needed(margin, ALPHA) == least
    for size in (1, 40):
        enough, fewer = (totals([size] * n, [0] * n) for n in (round(1.05 * least), least - 1))
        assert (
            p_noninferior_clusters(enough, margin, ALPHA)
            <= ALPHA
            < p_noninferior_clusters(fewer, margin, ALPHA)
        )


def test_the_same_flips_together_say_less():
    """20 worse and 20 better of 2,000 documents, one to a cluster and five to a cluster."""
    apart = np.zeros(400)
    apart[::20], apart[5::20] = -1, 1
    assert p_noninferior_clusters(totals([5] * 400, apart), 0.02, ALPHA) <= ALPHA
    together = np.zeros(400)
    together[::100], together[5::100] = -5, 5
    p_apart, p_together = (
        p_noninferior_clusters(totals([5] * 400, found), 0.01, ALPHA) for found in (apart, together)
    )
    assert p_apart < p_together


@pytest.mark.parametrize(
    ("how", "clusters", "correlation", "flip_rate", "margin"),
    [
        ("broken", 400, 0.3, 0.1, 0.02),
        ("large", 200, 0.0, 0.2, 0.05),
        ("broken", 100, 0.1, 0.2, 0.05),
        ("flips", 100, 0.3, 0.05, 0.05),
        ("mixed", 100, 0.1, 0.2, 0.05),
    ],
)
def test_false_validation_at_the_margin_is_at_most_alpha_where_the_usual_tests_fail(
    how, clusters, correlation, flip_rate, margin
):
    trials = 200
    cell = Clustered(how, clusters, 30, "uneven", correlation, flip_rate, margin, -margin)
    alone, _, shipped = clustered_rates(np.random.default_rng(4), cell, trials)
    assert alone > binom.ppf(0.999, trials, ALPHA) / trials
    assert shipped <= binom.ppf(0.999, trials, ALPHA) / trials


def test_false_rejection_at_the_margin_is_at_most_alpha():
    rng, trials = np.random.default_rng(5), 300
    rejected = 0
    for _ in range(trials):
        # A kind of cluster that gains much is rare; all others lose a little more than the margin.
        gained = rng.random(80) < 0.05
        found = totals([20] * 80, np.where(gained, 18, -rng.binomial(20, 0.0974, 80)))
        rejected += p_inferior_clusters(found, 0.0475, ALPHA) <= ALPHA
    assert rejected <= binom.ppf(0.999, trials, ALPHA)


def test_it_decides_clear_cases():
    rng = np.random.default_rng(6)
    same = totals([10] * 300, rng.binomial(10, 0.02, 300) - rng.binomial(10, 0.02, 300))
    assert p_noninferior_clusters(same, 0.02, ALPHA) <= ALPHA
    assert p_degraded_clusters(same) > ALPHA
    lost = totals([100] * 60, -rng.binomial(100, 0.15, 60))
    assert p_inferior_clusters(lost, 0.02, ALPHA) <= ALPHA
    assert p_degraded_clusters(lost) <= ALPHA
