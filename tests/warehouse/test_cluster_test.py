"""Clustered documents: the tests' formulas by hand, and their error rates by simulation."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, nbinom, poisson
from scipy.stats import t as student

from warehouse.cluster_test import (
    ClusterTotals,
    Sizes,
    _distributions,
    cluster_interval,
    cluster_totals,
    effective_clusters,
    p_degraded_clusters,
    p_inferior_clusters,
    p_noninferior_clusters,
    p_overdispersed,
    p_robust,
    score,
)
from warehouse.exact_test import p_noninferior

ALPHA = 0.05


def totals(documents: Any, worse: Any, better: Any) -> ClusterTotals:
    return ClusterTotals(*(np.array(values, dtype=np.float64) for values in (documents, worse, better)))


TOTALS = st.integers(3, 30).flatmap(
    lambda groups: st.tuples(
        *(
            st.lists(st.integers(low, high), min_size=groups, max_size=groups)
            for low, high in ((8, 60), (0, 3), (0, 4))
        )
    ).map(lambda parts: totals(*parts))
)


def test_totals_are_summed_by_cluster():
    found = cluster_totals(np.array([-1.0, 1.0, 0.5, 0.0, -0.25]), np.array([0, 2, 2, 1, 0]))
    assert found.documents.tolist() == [2, 1, 2]
    assert found.worse.tolist() == [1.25, 0, 0]
    assert found.better.tolist() == [0, 0, 1.5]


def test_the_robust_test_by_hand():
    """e = D + 0.1 n = 1, 0, 3, 2: sum 6, root of 4/3 * 14, no skewness, four equal clusters: three degrees."""
    found = p_robust(totals([10] * 4, [1, 1, 0, 0], [1, 0, 2, 1]), -0.1)
    assert found == pytest.approx(student.sf(6 / np.sqrt(4 / 3 * 14), 3))
    assert p_robust(totals([10] * 4, [1] * 4, [0] * 4), -0.1) == 1.0, (
        "no spread about the null proves nothing"
    )


def test_unequal_clusters_count_for_fewer():
    assert effective_clusters(np.full(30, 7.0)) == pytest.approx(30)
    assert effective_clusters(np.array([100.0, *[1.0] * 50])) == pytest.approx(1.01, abs=0.01)


def test_a_few_clusters_that_lose_much_more_make_it_more_careful():
    """Hall's transform by hand: 19 clusters gain 2 on the null and one loses 18: t 1, skewness -20 / root 20."""
    excess = np.array([2.0] * 19 + [-18.0])
    found = totals([20] * 20, [0] * 19 + [20], [0] * 20)
    assert excess.std(ddof=1) == pytest.approx(np.sqrt(20))
    skewness = (19 * 1 - 19**3) * 20 / (19 * 18) / 20**1.5
    bent = skewness / np.sqrt(20)
    assert p_robust(found, -0.1) == pytest.approx(student.sf(1 + bent / 3 + bent**2 / 27 + bent / 6, 19))
    assert p_robust(found, -0.1) > student.sf(score(excess), 19), "more careful than t"
    clear = totals([20] * 20, [20] * 19 + [19], [0] * 20)
    assert p_robust(clear._replace(worse=clear.better, better=clear.worse), 0.1) < 1e-3, (
        "not where there is no doubt"
    )


@settings(max_examples=60, deadline=None)
@given(TOTALS, st.sampled_from([0.05, 0.1]))
def test_the_interval_is_what_the_score_test_does_not_refuse(found, alpha):
    low, high = cluster_interval(found, alpha)
    estimate = (found.better - found.worse).sum() / found.documents.sum()
    assert low <= estimate <= high
    critical = student.isf(alpha, max(1.0, effective_clusters(found.documents) - 1))
    for end, sign in ((low, 1), (high, -1)):
        if abs(end) < 1 and end != estimate:
            assert sign * score(found.better - found.worse - end * found.documents) == pytest.approx(critical)
            assert p_robust(found, low) >= alpha * (1 - 1e-6)


def test_the_overdispersed_totals_are_sums_of_negative_binomials():
    """Three clusters of 5 and 2 of 12 against a convolution of scipy's; without correlation, Poisson."""
    sizes, rate, correlation = Sizes(np.array([5.0, 12.0]), np.array([3.0, 2.0])), 0.08, 0.2
    found = _distributions(sizes, np.array([rate]), correlation)[0]
    concentration = (1 - correlation) / correlation
    expected = np.array([1.0])
    for documents, number in ((5, 3), (12, 2)):
        one = nbinom.pmf(np.arange(60), concentration * rate, 1 / (1 + documents / concentration))
        for _ in range(number):
            expected = np.convolve(expected, one)
    assert found[:40] == pytest.approx(expected[:40], abs=1e-6)
    independent = _distributions(sizes, np.array([rate]), 0.0)[0]
    assert independent[:20] == pytest.approx(poisson.pmf(np.arange(20), 39 * rate), abs=1e-12)


def test_without_flips_the_overdispersed_test_asks_for_enough_clusters():
    """Correlated 0.3, a cluster of 50 keeps free of flips at a rate of 2 % with probability 0.865, so 20 say little."""
    few, more = (totals([50] * groups, [0] * groups, [0] * groups) for groups in (20, 60))
    free = (1 + 50 * 0.3 / 0.7) ** (-0.7 / 0.3 * 0.02)
    assert free == pytest.approx(0.865, abs=0.001)
    assert p_overdispersed(few, 0.02, inferior=False) >= free**20 > ALPHA
    assert p_overdispersed(more, 0.02, inferior=False) <= ALPHA
    assert p_robust(few, -0.02) < 0.001, "the robust test sees no variance at all"


@settings(max_examples=25, deadline=None)
@given(TOTALS, st.sampled_from([0.02, 0.05]), st.randoms())
def test_p_values_are_in_range_and_do_not_depend_on_the_order_of_clusters(found, margin, random):
    order = list(range(found.documents.size))
    random.shuffle(order)
    shuffled = ClusterTotals(*(part[order] for part in found))
    for test in (p_noninferior_clusters, p_inferior_clusters):
        p = test(found, margin)
        assert 0 <= p <= 1
        assert test(shuffled, margin) == pytest.approx(p, abs=1e-9)
    assert 0 <= p_degraded_clusters(found) <= 1


def test_with_many_small_clusters_it_comes_near_the_exact_test():
    """Flips spread evenly over 400 clusters of 5: as good as independent."""
    worse, better = np.zeros(400), np.zeros(400)
    worse[::20], better[5::20] = 1, 1
    found = totals([5] * 400, worse, better)
    exact = p_noninferior(20, 20, 2000, 0.01)
    assert p_noninferior_clusters(found, 0.01) == pytest.approx(exact, abs=0.01)
    alike = totals([5] * 400, worse * 5, better * 5)
    assert p_noninferior_clusters(alike, 0.01) > 0.1, "the same flips five to a cluster say much less"


def drawn(rng, groups, documents, flip_rate, delta, correlation):
    """Clusters whose documents are worse, better or the same with probabilities of their own (Dirichlet)."""
    worse, better = (flip_rate - delta) / 2, (flip_rate + delta) / 2
    chances = np.tile([worse, better, 1 - flip_rate], (groups, 1))
    if correlation:
        gamma = rng.gamma(chances * (1 - correlation) / correlation + 1e-300)
        chances = gamma / gamma.sum(axis=1, keepdims=True)
    found = rng.multinomial(documents, chances)
    return totals([documents] * groups, found[:, 0], found[:, 1])


@pytest.mark.parametrize(("margin", "flip_rate", "correlation"), [(0.05, 0.05, 0.3), (0.01, 0.02, 0.1)])
def test_false_validation_at_the_margin_is_at_most_alpha_where_the_usual_tests_fail(
    margin, flip_rate, correlation
):
    rng, trials = np.random.default_rng(4), 200
    usual = held = 0
    for _ in range(trials):
        found = drawn(rng, 20, 50, flip_rate, -margin, correlation)
        worse, better = int(found.worse.sum()), int(found.better.sum())
        usual_p = student.sf(score(found.better - found.worse + margin * found.documents), 19)
        if usual_p <= ALPHA and p_noninferior(worse, better, 1000, margin) <= ALPHA:
            usual += 1
            held += p_noninferior_clusters(found, margin) <= ALPHA
    assert usual > binom.ppf(0.999, trials, ALPHA), "exact and cluster-robust tests together are not enough"
    assert held <= binom.ppf(0.999, trials, ALPHA)


def test_false_rejection_at_the_margin_is_at_most_alpha():
    rng, trials = np.random.default_rng(5), 80
    rejected = sum(
        p_inferior_clusters(drawn(rng, 20, 20, 0.1, -0.05, 0.1), 0.05) <= ALPHA for _ in range(trials)
    )
    assert rejected <= binom.ppf(0.999, trials, ALPHA)


def test_it_decides_clear_cases():
    rng = np.random.default_rng(6)
    same = drawn(rng, 60, 100, 0.04, 0.0, 0.0)
    assert p_noninferior_clusters(same, 0.02) <= ALPHA
    assert p_degraded_clusters(same) > ALPHA
    lost = drawn(rng, 60, 100, 0.2, -0.15, 0.05)
    assert p_inferior_clusters(lost, 0.02) <= ALPHA
    assert p_degraded_clusters(lost) <= ALPHA
