import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from quantgate.judge.stats.tango import score, score_at_loss, tango_interval


@st.composite
def outcomes(draw, largest=3000):
    n = draw(st.integers(1, largest))
    flips = draw(st.integers(0, n))
    b = draw(st.integers(0, flips))
    return b, flips - b, n


@pytest.mark.parametrize(
    ("b", "c", "n", "alpha", "low", "high"),
    [
        # Tango (1998), section 6.1, soft contact lenses: the lower limit of the 90 % interval.
        (1, 0, 44, 0.05, -0.096, None),
        # Tango (1998), section 6.2, sleeping difficulties of marijuana users: 95 %.
        (3, 9, 32, 0.025, -0.027, 0.390),
        # Fagerland, Lydersen and Laake, complete response before and after consolidation therapy: 95 %.
        (16, 6, 161, 0.025, -0.1240, -0.0054),
        # PropCIs 0.3-0, scoreci.mp(60, 20, 1000): 95 %.
        (60, 20, 1000, 0.025, -0.0584, -0.0231),
    ],
)
def test_published_intervals(b, c, n, alpha, low, high):
    interval = tango_interval(b, c, n, alpha)
    decimals = 4 if n > 100 else 3
    assert round(interval.low, decimals) == low
    if high is not None:
        assert round(interval.high, decimals) == high


def test_published_statistic_and_p_value():
    # Tango (1998), section 6.1: 44 pairs, one worse, margin 0.1.
    statistic = score(1, 0, 44, -0.1)
    assert round(statistic, 3) == 1.709
    assert round(float(norm.sf(statistic)), 3) == 0.044


def test_without_flips_the_interval_has_a_closed_form():
    z = norm.isf(0.05)
    for n in (5, 100, 5000):
        low, high = tango_interval(0, 0, n, 0.05)
        assert high == pytest.approx(z**2 / (n + z**2), abs=1e-9)
        assert low == pytest.approx(-high, abs=1e-9)


def test_268_documents_without_flips_pass_one_point_by_the_score_test_alone():
    assert tango_interval(0, 0, 268, 0.05).low > -0.01 > tango_interval(0, 0, 267, 0.05).low


@settings(deadline=None)
@given(outcomes(), st.floats(0.001, 0.9))
def test_statistic_uses_the_constrained_maximum_likelihood_estimate(outcome, loss):
    b, c, n = outcome

    def surprise(q):
        terms = ((b, q + loss), (c, q), (n - b - c, 1 - 2 * q - loss))
        return -sum(count * math.log(p) for count, p in terms if count)

    edge = (1 - loss) / 2
    q = minimize_scalar(
        surprise, bounds=(1e-300, edge * (1 - 1e-12)), method="bounded", options={"xatol": 1e-12}
    ).x
    expected = (c - b + n * loss) / math.sqrt(n * (2 * q + loss - loss**2))
    assert float(score_at_loss(b, c, n, loss)) == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("loss", [0.001, 0.02, 0.1, 0.5, 0.95])
def test_statistic_falls_with_worse_and_rises_with_better_documents(loss):
    for n in (1, 2, 7, 30, 90):
        b, c = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
        possible = b + c <= n
        statistic = np.where(possible, score_at_loss(b * possible, c * possible, n, loss), np.nan)
        assert np.nanmax(np.diff(statistic, axis=0), initial=-1) < 1e-12
        assert np.nanmin(np.diff(statistic, axis=1), initial=1) > -1e-12


@settings(deadline=None)
@given(outcomes(20_000), st.floats(0.0005, 0.9), st.data())
def test_statistic_is_monotone_for_large_samples(outcome, loss, data):
    b, c, n = outcome
    step = data.draw(st.integers(1, max(1, n // 3)))
    fewer, more = max(0, b - step), min(n - b, c + step)
    here = score_at_loss(b, c, n, loss)
    assert score_at_loss(fewer, c, n, loss) >= here - 1e-9
    assert score_at_loss(b, more, n, loss) >= here - 1e-9


@settings(deadline=None)
@given(outcomes(), st.floats(0.005, 0.2))
def test_interval_inverts_the_statistic_and_is_symmetric(outcome, alpha):
    b, c, n = outcome
    low, high = tango_interval(b, c, n, alpha)
    assert -1 <= low <= (c - b) / n <= high <= 1
    z = norm.isf(alpha)
    if low > -1 + 1e-9:
        assert score(b, c, n, low) == pytest.approx(z, rel=1e-4, abs=1e-4)
    if high < 1 - 1e-9:
        assert score(b, c, n, high) == pytest.approx(-z, rel=1e-4, abs=1e-4)
    swapped = tango_interval(c, b, n, alpha)
    assert swapped.low == pytest.approx(-high, abs=1e-9)
    assert swapped.high == pytest.approx(-low, abs=1e-9)


@settings(deadline=None)
@given(outcomes())
def test_at_delta_zero_the_statistic_is_mcnemars(outcome):
    b, c, n = outcome
    expected = (c - b) / math.sqrt(b + c) if b + c else 0.0
    assert score(b, c, n, 0.0) == expected
    assert score(b, c, n, -1e-13) == pytest.approx(expected, abs=1e-3)
