import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from warehouse.bounded_test import (
    bounded_interval,
    documents_needed_bounded,
    p_inferior_bounded,
    p_noninferior_bounded,
)
from warehouse.exact_test import p_noninferior

ALPHA = 0.05
SCORES = st.lists(st.floats(-1, 1), min_size=1, max_size=200).map(np.array)


def flips(b, c, n):
    return np.concatenate([-np.ones(b), np.ones(c), np.zeros(n - b - c)])


@pytest.mark.parametrize(("n", "flip_rate", "margin"), [(60, 0.1, 0.1), (60, 0.3, 0.1), (200, 0.02, 0.02)])
def test_false_validation_at_the_margin_is_at_most_alpha(n, flip_rate, margin):
    """An exact sum over right/wrong outcomes, the discrete worst case that a normal test fails."""
    share = (flip_rate + margin) / (2 * flip_rate)
    error = 0.0
    for m in range(n + 1):
        density = binom.pmf(m, n, flip_rate)
        if density < 1e-7:
            continue
        for b in range(m + 1):
            if p_noninferior_bounded(flips(b, m - b, n), margin) > ALPHA:
                break
            error += density * binom.pmf(b, m, share)
    assert error <= ALPHA


def test_false_validation_of_partial_credit_is_at_most_alpha():
    """Every outcome of 12 documents whose delta is -0.6 or 0.2, mean -0.4: the margin exactly."""
    error = 0.0
    for lost in range(13):
        differences = np.concatenate([np.full(lost, -0.6), np.full(12 - lost, 0.2)])
        if p_noninferior_bounded(differences, 0.4) <= ALPHA:
            error += binom.pmf(lost, 12, 0.75)
    assert 0 < error <= ALPHA


def test_p_value_is_one_over_the_average_capital():
    differences, margin = [0.5, -0.25, 0.0, 0.0], 0.1
    capital = np.mean(
        [math.prod(1 + 2 ** (-k / 2) * (d + margin) / (1 - margin) for d in differences) for k in range(16)]
    )
    assert p_noninferior_bounded(np.array(differences), margin) == pytest.approx(1 / capital)


def test_without_differences_it_validates_with_enough_documents_only():
    assert p_noninferior_bounded(np.zeros(1000), 0.02) < 1e-6
    assert p_noninferior_bounded(np.zeros(100), 0.02) > ALPHA
    assert p_inferior_bounded(np.zeros(1000), 0.02) == 1.0


def test_it_decides_clear_cases():
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 0.1, 2000).clip(-0.9, 0.9)
    assert p_noninferior_bounded(noise, 0.02) <= ALPHA
    assert p_inferior_bounded(noise - 0.05, 0.02) <= ALPHA
    assert p_inferior_bounded(noise - 0.05, 0.0) <= 1e-6


@settings(max_examples=40, deadline=None)
@given(st.integers(50, 400), st.integers(0, 12), st.integers(0, 12), st.sampled_from([0.02, 0.05]))
def test_on_right_wrong_scores_it_is_never_bolder_than_the_exact_test(n, b, c, margin):
    bounded = p_noninferior_bounded(flips(b, c, n), margin)
    if bounded <= ALPHA:
        assert p_noninferior(b, c, n, margin) <= ALPHA


@settings(deadline=None)
@given(SCORES, st.sampled_from([0.01, 0.05, 0.2]), st.floats(0, 0.5))
def test_interval_holds_the_mean_and_inverts_the_tests(differences, alpha, margin):
    low, high = bounded_interval(differences, alpha)
    assert -1 <= low <= differences.mean() <= high <= 1
    if abs(low + margin) > 1e-6:
        assert (low > -margin) == (p_noninferior_bounded(differences, margin) < alpha)
    if abs(high + margin) > 1e-6:
        assert (high < -margin) == (p_inferior_bounded(differences, margin) < alpha)


@settings(deadline=None)
@given(SCORES, st.floats(0, 0.5), st.randoms())
def test_order_does_not_matter_and_p_values_are_in_range(differences, margin, random):
    shuffled = differences.copy()
    random.shuffle(shuffled)
    for test in (p_noninferior_bounded, p_inferior_bounded):
        p = test(differences, margin)
        assert 0 < p <= 1
        assert test(shuffled, margin) == pytest.approx(p, rel=1e-9)


def test_documents_needed_grow_with_flips_and_shrink_with_the_margin():
    rates, margins = (0.01, 0.05, 0.2), (0.05, 0.02, 0.01)
    for smaller, larger in itertools.pairwise(rates):
        assert documents_needed_bounded(smaller, 0.02, 0.05, 0.8) < documents_needed_bounded(
            larger, 0.02, 0.05, 0.8
        )
    for wider, tighter in itertools.pairwise(margins):
        assert documents_needed_bounded(0.05, wider, 0.05, 0.8) < documents_needed_bounded(
            0.05, tighter, 0.05, 0.8
        )
    # As many as it says, with partial credit spread evenly, are usually enough.
    rng = np.random.default_rng(3)
    n = documents_needed_bounded(0.05, 0.02, 0.05, 0.8)
    passed = 0
    for _ in range(40):
        flipped = rng.random(n) < 0.05
        passed += p_noninferior_bounded(np.where(flipped, rng.choice([-1.0, 1.0], n), 0.0), 0.02) <= 0.05
    assert passed >= 28
