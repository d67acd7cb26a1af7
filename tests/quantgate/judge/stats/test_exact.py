"""The exact test against sums over every outcome, written down independently of the shipped code."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import gammaln, xlogy
from scipy.stats import beta, binom, norm

from quantgate.judge.stats.exact import (
    MISS,
    flip_rate_upper,
    p_degraded,
    p_inferior,
    p_noninferior,
)
from quantgate.judge.stats.tango import score_at_loss

ALPHA = 0.05
BELOW, ABOVE = 0.0002, 0.0008


def every_outcome(n):
    b, c = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    possible = b + c <= n
    return b[possible], c[possible]


def probabilities(b, c, n, p_worse, p_better):
    """Trinomial probabilities, a row for each pair of parameters."""
    coefficient = gammaln(n + 1) - gammaln(b + 1) - gammaln(c + 1) - gammaln(n - b - c + 1)
    same = np.maximum(1 - p_worse - p_better, 0)[:, None]
    p_worse, p_better = p_worse[:, None], np.maximum(p_better, 0)[:, None]
    return np.exp(coefficient + xlogy(b, p_worse) + xlogy(c, p_better) + xlogy(n - b - c, same))


def p_by_enumeration(b, c, n, margin, *, inferior, points=1500):
    """The definition: sums over every outcome, on a dense grid of the flip rate's confidence set."""
    flips = b + c
    low = beta.ppf(BELOW, flips, n - flips + 1) if flips else 0.0
    high = beta.isf(ABOVE, flips + 1, n - flips) if flips < n else 1.0
    low, high = max(low, margin), max(high, margin)
    share = np.linspace(0, 1, points)
    rate = np.union1d(low + (high - low) * share, low + (high - low) * share**3)
    some_b, some_c = every_outcome(n)
    statistic, observed = score_at_loss(some_b, some_c, n, margin), score_at_loss(b, c, n, margin)
    extreme = statistic <= observed + 1e-9 if inferior else statistic >= observed - 1e-9
    tail = probabilities(some_b[extreme], some_c[extreme], n, (rate + margin) / 2, (rate - margin) / 2).sum(
        axis=1
    )
    added = np.where(rate <= 1 - ABOVE ** (1 / n), BELOW, ABOVE + BELOW)
    return min(1.0, max(MISS, (tail + added).max()))


def significant_flips(n, flips, margin, *, inferior=False):
    """Count the outcomes of this many flips with p <= alpha: the first in b, or the last, by monotony."""
    b = np.arange(flips + 1)
    sign = -1 if inferior else 1
    beyond = sign * score_at_loss(b, flips - b, n, margin) > norm.isf(ALPHA)

    def significant(count):
        last = flips - count + 1 if inferior else count - 1
        return (p_inferior if inferior else p_noninferior)(last, flips - last, n, margin) <= ALPHA

    count = int(beyond.sum())  # Tango's number, which the exact one is near
    while count <= flips and significant(count + 1):
        count += 1
    while count > 0 and not significant(count):
        count -= 1
    return count


def false_validation(n, flip_rate, margin):
    """Exact probability of p <= alpha at delta = -margin: of the shipped test and of Tango's alone."""
    shipped = tango = 0.0
    share = (flip_rate + margin) / (2 * flip_rate)
    for flips in range(n + 1):
        density = binom.pmf(flips, n, flip_rate)
        if density < 1e-6:
            continue
        b = np.arange(flips + 1)
        given_flips = density * binom.pmf(b, flips, share)
        tango += given_flips[score_at_loss(b, flips - b, n, margin) > norm.isf(ALPHA)].sum()
        shipped += given_flips[: significant_flips(n, flips, margin)].sum()
    return shipped, tango


@st.composite
def small_outcomes(draw):
    n = draw(st.integers(1, 25))
    flips = draw(st.integers(0, n))
    b = draw(st.integers(0, flips))
    return b, flips - b, n


@settings(max_examples=50, deadline=None)
@given(small_outcomes(), st.floats(0.003, 0.6), st.booleans())
def test_p_value_is_the_maximum_over_a_dense_grid_of_every_outcome(outcome, margin, inferior):
    b, c, n = outcome
    p = (p_inferior if inferior else p_noninferior)(b, c, n, margin)
    expected = p_by_enumeration(b, c, n, margin, inferior=inferior)
    assert expected - 1e-7 <= p <= expected + 5e-5


@pytest.mark.parametrize(("b", "c", "n", "margin"), [(0, 0, 60, 0.05), (1, 2, 50, 0.05), (0, 9, 60, 0.02)])
def test_p_value_at_larger_samples(b, c, n, margin):
    for inferior, test in ((False, p_noninferior), (True, p_inferior)):
        expected = p_by_enumeration(b, c, n, margin, inferior=inferior)
        assert expected - 1e-7 <= test(b, c, n, margin) <= expected + 2e-5


def p_by_conditioning(b, c, n, margin, *, inferior, points=300):
    """The definition again, for any n: given the flips, the worse ones are binomial. scipy.stats does the sums."""
    flips = b + c
    low = beta.ppf(BELOW, flips, n - flips + 1) if flips else 0.0
    rate = np.linspace(max(low, margin), max(beta.isf(ABOVE, flips + 1, n - flips), margin), points)[:, None]
    m = np.arange(binom.ppf(1e-12, n, rate[0, 0]), binom.isf(1e-12, n, rate[-1, 0]) + 1)
    observed = score_at_loss(b, c, n, margin)
    if inferior:
        last = (
            np.array(
                [
                    (score_at_loss(np.arange(k + 1), np.arange(k, -1, -1), n, margin) > observed + 1e-9).sum()
                    for k in m
                ]
            )
            - 1
        )
        tail = binom.pmf(m, n, rate) * binom.sf(last, m, (rate + margin) / (2 * rate))
    else:
        last = (
            np.array(
                [
                    (
                        score_at_loss(np.arange(k + 1), np.arange(k, -1, -1), n, margin) >= observed - 1e-9
                    ).sum()
                    for k in m
                ]
            )
            - 1
        )
        tail = binom.pmf(m, n, rate) * binom.cdf(last, m, (rate + margin) / (2 * rate))
    added = np.where(rate[:, 0] <= 1 - ABOVE ** (1 / n), BELOW, ABOVE + BELOW)
    return min(1.0, max(MISS, (tail.sum(axis=1) + added).max()))


@pytest.mark.parametrize(
    ("b", "c", "n", "margin"),
    [
        (0, 2, 400, 0.01),
        (33, 20, 1319, 0.02),
        (190, 150, 6000, 0.01),
        (1180, 1000, 20_000, 0.01),
        (470, 480, 1000, 0.3),
    ],
)
def test_p_value_at_the_sizes_of_real_tasks(b, c, n, margin):
    for inferior, test in ((False, p_noninferior), (True, p_inferior)):
        expected = p_by_conditioning(b, c, n, margin, inferior=inferior)
        assert expected - 1e-7 <= test(b, c, n, margin) <= expected + 2e-5


@pytest.mark.parametrize(
    ("n", "flip_rate", "margin", "tango_error"),
    [
        # Where Tango's test alone exceeds alpha.
        (270, 0.01, 0.01, 0.066),
        (140, 0.02, 0.02, 0.059),
        (280, 0.05, 0.05, 0.057),
        # Where it doesn't.
        (100, 0.02, 0.02, 0.000),
        (198, 0.02, 0.02, 0.018),
        (500, 0.01, 0.01, 0.040),
        (299, 0.01, 0.01, 0.0495),
    ],
)
def test_false_validation_at_the_margin_is_at_most_alpha(n, flip_rate, margin, tango_error):
    shipped, tango = false_validation(n, flip_rate, margin)
    assert shipped <= ALPHA
    assert tango == pytest.approx(tango_error, abs=0.0006)


@pytest.mark.parametrize(("n", "margin", "inferior"), [(40, 0.1, False), (40, 0.1, True), (70, 0.05, False)])
def test_no_flip_rate_and_no_delta_under_h0_exceeds_alpha(n, margin, inferior):
    """Both parameters, inside H0 too: the edge that is searched must be the worst case."""
    b, c = every_outcome(n)
    flips = b + c
    at_most = 24  # more flips are too rare at these rates to matter
    counts = np.array([significant_flips(n, m, margin, inferior=inferior) for m in range(at_most + 1)])
    significant = (flips <= at_most) & ((c if inferior else b) < counts[np.minimum(flips, at_most)])
    assert significant.any()
    rates = np.linspace(0, 0.2, 81)
    for beyond in (0.0, 0.01, 0.03, 0.09):
        delta = -margin + beyond if inferior else -margin - beyond
        possible = rates[rates >= abs(delta)]
        found = probabilities(
            b[significant], c[significant], n, (possible - delta) / 2, (possible + delta) / 2
        )
        assert found.sum(axis=1).max() <= ALPHA


def test_without_flips_one_point_takes_299_documents():
    assert p_noninferior(0, 0, 299, 0.01) <= ALPHA < p_noninferior(0, 0, 298, 0.01)
    assert p_noninferior(0, 0, 149, 0.02) <= ALPHA < p_noninferior(0, 0, 148, 0.02)
    assert 0 <= p_noninferior(0, 0, 299, 0.01) - 0.99**299 <= MISS


def test_known_orders_of_magnitude_at_a_thousand_documents():
    assert p_noninferior(0, 0, 1000, 0.02) == pytest.approx(MISS, abs=1e-5)
    # Many flips, where the score test is good: its p-value, and a little for the confidence set.
    for b, c, n, margin in ((100, 100, 1000, 0.02), (1200, 1210, 12_000, 0.01), (50, 62, 800, 0.02)):
        asymptotic = float(norm.sf(score_at_loss(b, c, n, margin)))
        assert asymptotic - 0.002 <= p_noninferior(b, c, n, margin) <= asymptotic + MISS + 0.004
        assert 1 - asymptotic - 0.002 <= p_inferior(b, c, n, margin) <= 1 - asymptotic + MISS + 0.004


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 500), st.floats(0, 0.3), st.floats(0, 1), st.sampled_from([0.01, 0.02, 0.05, 0.1]))
def test_p_values_lie_in_range_and_follow_b_at_fixed_flips(n, rate, share, margin):
    flips = min(n, round(rate * n))
    b = round(share * flips)
    p, q = p_noninferior(b, flips - b, n, margin), p_inferior(b, flips - b, n, margin)
    assert MISS <= p <= 1
    assert MISS <= q <= 1
    assert p + q >= 1  # the observed outcome is in both tails
    if b < flips:
        assert p_noninferior(b + 1, flips - b - 1, n, margin) >= p - 1e-6
        assert p_inferior(b + 1, flips - b - 1, n, margin) <= q + 1e-6


@settings(max_examples=25, deadline=None)
@given(st.integers(80, 600), st.integers(0, 15), st.integers(0, 15), st.sampled_from([0.01, 0.02, 0.05]))
def test_a_better_outcome_is_never_judged_worse(n, b, c, margin):
    """Where it decides, below p = 0.2; far above, the confidence set may move a p-value either way."""
    for worse in ((b + 1, c), *(((b, c - 1),) if c else ())):
        assert p_noninferior(*worse, n, margin) >= min(p_noninferior(b, c, n, margin), 0.2) - 1e-5
        if p_inferior(b, c, n, margin) <= 0.2:
            assert p_inferior(*worse, n, margin) <= p_inferior(b, c, n, margin) + 1e-5


@pytest.mark.parametrize(("b", "c", "n"), [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_impossible_counts_are_refused(b, c, n):
    with pytest.raises(ValueError, match="are not flips of"):
        p_noninferior(b, c, n, 0.02)


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.1])
def test_impossible_margins_are_refused(margin):
    with pytest.raises(ValueError, match="not between 0 and 1"):
        p_inferior(0, 0, 10, margin)


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_counts_coins(b, c):
    flips = b + c
    expected = sum(math.comb(flips, k) for k in range(b, flips + 1)) / 2**flips
    assert p_degraded(b, c) == pytest.approx(expected, rel=1e-9)


def test_flip_rate_upper_is_clopper_pearson():
    # Closed forms: no flip gives 1 - alpha^(1/n); all flips give 1.
    assert flip_rate_upper(0, 100, 0.05) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert flip_rate_upper(7, 7, 0.05) == 1.0
    upper = flip_rate_upper(13, 250, 0.05)
    assert binom.cdf(13, 250, upper) == pytest.approx(0.05)
