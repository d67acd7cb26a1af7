import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from quantgate.judge.power import BETTING_OVERHEAD, documents_needed
from quantgate.judge.stats.betting import (
    _Betting,
    _log_capitals,
    betting_interval,
    p_inferior_betting,
    p_noninferior_betting,
)
from quantgate.judge.stats.exact import MISS, p_noninferior

ALPHA = 0.05
SCORES = st.lists(st.floats(-1, 1), min_size=1, max_size=200).map(np.array)


def flips(rng: np.random.Generator, trials: int, n: int, flip_rate: float, delta: float) -> np.ndarray:
    """Right/wrong differences, a row for each trial."""
    drawn = rng.random((trials, n))
    return np.where(drawn < (flip_rate - delta) / 2, -1.0, np.where(drawn < flip_rate, 1.0, 0.0))


def validated(rows: np.ndarray, margin: float) -> int:
    return sum(p_noninferior_betting(row, margin, ALPHA) <= ALPHA for row in rows)


@pytest.mark.parametrize(
    "outcomes",
    [
        pytest.param({-0.6: 0.75, 0.2: 0.25}, id="two values"),
        pytest.param({-1.0: 0.4, 0.0: 0.6}, id="losses only"),
        pytest.param({-1.0: 0.6, 0.5: 0.4}, id="more losses than gains"),
    ],
)
def test_false_validation_of_partial_credit_is_at_most_alpha(outcomes):
    """Every sequence of 9 documents whose delta is -0.4 on average: the margin exactly."""
    values, chances = np.array(list(outcomes)), list(outcomes.values())
    assert values @ chances == pytest.approx(-0.4)
    error = 0.0
    for picks in itertools.product(range(2), repeat=9):
        if p_noninferior_betting(values[list(picks)], 0.4, ALPHA) <= ALPHA:
            error += math.prod(chances[pick] for pick in picks)
    assert error <= ALPHA


def test_under_the_null_the_capital_is_not_expected_to_grow():
    """The mean of the capital over every sequence of 8 documents at the margin is 1, whatever the stakes."""
    values, chances = np.array([-1.0, 0.5]), [0.3, 0.7]
    margin = -float(values @ chances)
    expected = 0.0
    for picks in itertools.product(range(2), repeat=8):
        capital = _log_capitals(_Betting.of(values[list(picks)], ALPHA, None, None), np.array([-margin]))[
            -1, 0
        ]
        expected += math.prod(chances[pick] for pick in picks) * math.exp(capital)
    assert expected == pytest.approx(1.0, abs=1e-9)


def test_under_the_null_bets_on_clusters_are_not_expected_to_grow():
    """Clusters of 1 and 4 documents that lose all or gain a little, by all 256 outcomes of eight clusters."""
    documents = np.array([4.0, 1.0, 1.0, 4.0, 4.0, 1.0, 4.0, 1.0])
    values, chances = np.array([-1.0, 0.25]), np.array([0.3, 0.7])
    mean = float(values @ chances)
    expected = 0.0
    for picks in itertools.product(range(2), repeat=8):
        totals = values[list(picks)] * documents
        capital = _log_capitals(_Betting.of(totals, ALPHA, None, documents), np.array([mean]))[-1, 0]
        expected += math.prod(chances[pick] for pick in picks) * math.exp(capital)
    assert expected == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    ("n", "flip_rate", "margin"), [(120, 0.1, 0.05), (300, 0.02, 0.02), (400, 0.3, 0.05)]
)
def test_false_validation_at_the_margin_over_all_looks(n, flip_rate, margin):
    """By simulation, looking after every block: the p-value is that of the greatest capital so far."""
    rows = flips(np.random.default_rng(n), 100, n, flip_rate, -margin)
    assert validated(rows, margin) <= binom.ppf(0.999, 100, ALPHA)


def test_looking_early_is_looking_at_the_same_bets():
    """The deadline is all documents from the first on, so an early look is a prefix of the last."""
    row = np.random.default_rng(1).choice([-0.5, 0.0, 0.0, 0.5], 1000)
    seen = [p_noninferior_betting(row[:n], 0.03, ALPHA, available=1000) for n in (250, 500, 750, 1000)]
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == p_noninferior_betting(row, 0.03, ALPHA)


def test_power_is_near_the_exact_tests():
    """On right/wrong scores, where the best is known: 5 % flips, 2 points, 1,000 documents, true delta 0."""
    rows = flips(np.random.default_rng(2), 60, 1000, 0.05, 0.0)
    exact = sum(
        p_noninferior(int((row < 0).sum()), int((row > 0).sum()), 1000, 0.02) <= ALPHA for row in rows
    )
    assert exact > 40
    assert validated(rows, 0.02) >= 0.85 * exact


def test_differences_of_many_sizes_are_used_in_full():
    """Losses and gains of a tenth of a point of credit: their variance counts, not how many documents flip."""
    rng = np.random.default_rng(3)
    rows = rng.uniform(-0.2, 0.2, (50, 300))
    assert validated(rows, 0.03) >= 45
    rounded = np.where(rng.random(rows.shape) < abs(rows), np.sign(rows), 0.0)
    exact = sum(
        p_noninferior(int((row < 0).sum()), int((row > 0).sum()), 300, 0.03) <= ALPHA for row in rounded
    )
    assert exact < 25, "randomized rounding to -1, 0 and 1 would be exact, and is far weaker here"


def test_without_differences_it_validates_with_enough_documents_only():
    assert p_noninferior_betting(np.zeros(1000), 0.02, ALPHA) < 1e-4
    assert p_noninferior_betting(np.zeros(148), 0.02, ALPHA) > ALPHA, "0.98^148 is 0.0503"
    assert p_noninferior_betting(np.zeros(200), 0.02, ALPHA) <= ALPHA
    assert p_inferior_betting(np.zeros(1000), 0.02, ALPHA) == 1.0


def test_it_decides_clear_cases():
    rng = np.random.default_rng(7)
    noise = rng.normal(0, 0.1, 2000).clip(-0.9, 0.9)
    assert p_noninferior_betting(noise, 0.02, ALPHA) <= ALPHA
    assert p_inferior_betting(noise - 0.05, 0.02, ALPHA) <= ALPHA
    assert p_inferior_betting(noise - 0.05, 0.0, ALPHA) <= 1e-4


@settings(max_examples=35, deadline=None)
@given(
    st.integers(50, 400), st.integers(0, 12), st.integers(0, 12), st.sampled_from([0.02, 0.05]), st.randoms()
)
def test_on_right_wrong_scores_it_sees_the_same_evidence_as_the_exact_test(n, b, c, margin, random):
    """A lucky order may validate what the exact test finds no evidence for; few random orders do, and the reverse."""
    row = [-1.0] * b + [1.0] * c + [0.0] * (n - b - c)
    random.shuffle(row)
    exact, betting = p_noninferior(b, c, n, margin), p_noninferior_betting(np.array(row), margin, ALPHA)
    if exact > 0.25:
        orders = np.random.default_rng([n, b, c]).permuted(np.tile(row, (40, 1)), axis=1)
        assert sum(p_noninferior_betting(order, margin, ALPHA) <= ALPHA for order in orders) <= 10
    if exact <= 1.01 * MISS and n > 8 / margin:
        assert betting <= 0.25


@settings(max_examples=35, deadline=None)
@given(SCORES, st.sampled_from([0.01, 0.05, 0.2]), st.floats(0, 0.5))
def test_interval_holds_the_mean_and_agrees_with_the_tests(differences, alpha, margin):
    low, high = betting_interval(differences, alpha)
    assert -1 <= low <= differences.mean() <= high <= 1
    width = max(high - low, 1e-3)
    if low > -margin + 0.02 * width:
        assert p_noninferior_betting(differences, margin, alpha) <= alpha * 1.2
    if high < -margin - 0.02 * width:
        assert p_inferior_betting(differences, margin, alpha) <= alpha * 1.2


@settings(max_examples=35, deadline=None)
@given(SCORES, st.floats(0, 0.5))
def test_p_values_are_in_range_and_mirror_each_other(differences, margin):
    low, high = (
        p_noninferior_betting(differences, margin, ALPHA),
        p_inferior_betting(differences, margin, ALPHA),
    )
    assert 0 < low <= 1
    assert 0 < high <= 1
    assert max(low, high) > ALPHA, "not both at once"


def test_planned_documents_are_enough_about_as_often_as_planned():
    n = documents_needed(0.05, 0.02, ALPHA, 0.8, overhead=BETTING_OVERHEAD)
    passed = validated(flips(np.random.default_rng(3), 60, n, 0.05, 0.0), 0.02)
    assert binom.ppf(0.001, 60, 0.8) <= passed
