"""Boundaries against tables of the literature, and crossing probabilities against simulated walks."""

import numpy as np
import pytest
from scipy.stats import norm

from quantgate.judge.stats.boundaries import boundaries, crossing_limit, inflation, last_bound

FIVE = np.arange(1, 6) / 5


@pytest.mark.parametrize(
    ("factor", "exponent"),
    [
        # Jennison and Turnbull (2000), one-sided 0.05 (two-sided 0.1), five looks: Pocock 2.122, O'Brien-Fleming
        # 1.751 (tables 2.1 and 2.3).
        (2.122, 0.0),
        (1.751, -0.5),
    ],
)
def test_crossing_of_published_boundaries_is_their_alpha(factor, exponent):
    assert crossing_limit(factor * FIVE**exponent, FIVE) == pytest.approx(0.05, abs=2e-4)


def test_one_look_is_the_normal_tail():
    assert crossing_limit([1.7], [1.0]) == pytest.approx(norm.sf(1.7), abs=1e-12)
    assert boundaries((500,), 0.05) == ()
    assert last_bound((500,), 0.05) == pytest.approx(norm.isf(0.05), abs=1e-6)
    assert inflation((500,), 0.05, 0.8) == pytest.approx(1, abs=1e-5)


def test_crossing_with_drift_is_that_of_simulated_walks():
    shares = np.array([0.1, 0.25, 0.6, 1.0])
    bounds = np.array([2.5, 2.2, 2.0, 1.8]) - 1.3 * np.sqrt(shares)
    steps = np.random.default_rng(3).normal(0, np.sqrt(np.diff(shares, prepend=0)), (400_000, 4))
    walks = steps.cumsum(axis=1) / np.sqrt(shares)
    simulated = (walks >= bounds).any(axis=1).mean()
    assert crossing_limit(bounds, shares) == pytest.approx(simulated, abs=0.003)


def test_boundaries_spend_alpha_and_fall():
    looks = (50, 100, 200, 400, 700, 1000)
    found = boundaries(looks, 0.05)
    assert list(found) == sorted(found, reverse=True)
    assert found[0] / found[1] == pytest.approx(2**0.3, abs=1e-3)
    end = last_bound(looks, 0.05)
    assert norm.isf(0.05) < end < found[-1]
    assert crossing_limit([*found, end], np.array(looks) / 1000) == pytest.approx(0.05, abs=1e-6)
    assert boundaries(tuple(10 * n for n in looks), 0.05) == found, "shares alone decide"


def test_more_looks_take_more_documents_at_the_same_power():
    few, many = (inflation(tuple(range(100, 1001, step)), 0.05, 0.8) for step in (300, 100))
    assert 1.03 < few < many < 1.15
