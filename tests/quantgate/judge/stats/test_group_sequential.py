"""The test with interim looks, against every path at small n and against its own definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, norm

from quantgate.judge.stats import exact
from quantgate.judge.stats.boundaries import boundaries
from quantgate.judge.stats.exact import MISS
from quantgate.judge.stats.group_sequential import (
    Design,
    confidence_set,
    missed,
    p_inferior_at,
    p_noninferior_at,
    sequential_interval,
)
from quantgate.judge.stats.tango import score_at_loss, tango_interval
from tests.support.interim_looks import ending

ALPHA = 0.05
BELOW, ABOVE = 0.0002, 0.0008


def p_by_paths(b, c, look, design, *, inferior, points=25):
    """The definition: the probability over every path, at many flip rates of the confidence set."""
    n, parts = design.looks[look], len(design.looks)
    low = beta.ppf(BELOW / parts, b + c, n - b - c + 1) if b + c else 0.0
    high = beta.isf(ABOVE / parts, b + c + 1, n - b - c) if b + c < n else 1.0
    rates = np.linspace(max(low, design.margin), max(high, design.margin), points)
    sign = -1 if inferior else 1
    bounds = [*boundaries(design.looks, design.alpha)[:look], sign * score_at_loss(b, c, n, design.margin)]

    def ends(at, worse, better):
        return sign * score_at_loss(worse, better, design.looks[at], design.margin) >= bounds[at] - 1e-9

    def chance(rate):
        tail = sum(
            ending(design.looks[: look + 1], ends, (rate + design.margin) / 2, (rate - design.margin) / 2)
        )
        return tail + BELOW + sum(ABOVE / parts for m in design.looks if (1 - rate) ** m <= ABOVE / parts)

    return min(1.0, max(chance(rate) for rate in rates))


@pytest.mark.parametrize(
    ("looks", "margin", "b", "c", "inferior"),
    [
        ((8, 14, 20), 0.15, 0, 2, False),
        ((8, 14, 20), 0.15, 1, 6, False),
        ((6, 12, 26), 0.1, 0, 0, False),
        ((8, 14, 20), 0.15, 11, 1, True),
        ((6, 12, 18), 0.3, 10, 1, True),
    ],
)
def test_p_value_is_the_maximum_over_the_flip_rate_of_every_path(looks, margin, b, c, inferior):
    design = Design(looks, margin, 0.2)
    p = (p_inferior_at if inferior else p_noninferior_at)(b, c, 2, design)
    expected = p_by_paths(b, c, 2, design, inferior=inferior)
    assert expected < 0.25
    assert expected - 1e-9 <= p <= expected + 1.5e-3, "a coarse grid may miss a little of the maximum"
    if len(looks) == 3 and not inferior:
        assert p > exact.p_noninferior(b, c, looks[-1], margin) - 1e-6, "looks cost"


def test_the_search_does_not_end_where_a_large_alpha_is_decided():
    design, found = Design((40,), 0.1, 0.45), 0
    for b in range(6):
        expected = exact.p_noninferior(b, 3, 40, 0.1)
        if 0.25 < expected < 0.45:
            found += 1
            assert p_noninferior_at(b, 3, 0, design) == pytest.approx(expected, abs=6e-5)
    assert found


def decisions(design, *, inferior):
    """Every outcome of every look at which the shipped test decides."""
    test = p_inferior_at if inferior else p_noninferior_at
    return {
        (look, b, c)
        for look, n in enumerate(design.looks)
        for b in range(n + 1)
        for c in range(n + 1 - b)
        if test(b, c, look, design) <= design.alpha
    }


@pytest.mark.parametrize(
    ("looks", "margin", "alpha", "inferior"),
    [
        ((5, 9, 14), 0.25, 0.05, False),
        ((6, 12), 0.3, 0.1, True),
        ((4, 8, 12), 0.35, 0.1, False),
        ((10, 15), 0.2, 0.1, False),
    ],
)
def test_no_chances_under_h0_decide_oftener_than_alpha(looks, margin, alpha, inferior):
    """The shipped decisions at every look together, on every path; at the edge and inside H0."""
    design = Design(looks, margin, alpha)
    decided = decisions(design, inferior=inferior)
    assert {look for look, _, _ in decided} >= {len(looks) - 1}
    worst = 0.0
    for delta in (-margin, 0.0, 0.2) if inferior else (-margin, -margin - 0.1, -margin - 0.3):
        for rate in np.linspace(abs(delta), 1, 8):
            found = ending(looks, lambda *at: at in decided, (rate - delta) / 2, (rate + delta) / 2)
            worst = max(worst, sum(found))
    assert 0.1 * alpha < worst <= alpha


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.floats(0, 0.4), st.floats(0, 1), st.sampled_from([0.01, 0.02, 0.05, 0.2]))
def test_with_one_look_it_is_the_exact_test(n, rate, share, margin):
    flips = round(rate * n)
    b = round(share * flips)
    counts, design = (b, flips - b), Design((n,), margin, ALPHA)
    for sequential, fixed in (
        (p_noninferior_at, exact.p_noninferior),
        (p_inferior_at, exact.p_inferior),
    ):
        expected, found = fixed(*counts, n, margin), sequential(*counts, 0, design)
        if found < 0.2:
            assert expected - 6e-6 <= found <= expected + 6e-5
        else:
            assert expected >= 0.2 - 1e-6
    assert sequential_interval(*counts, 0, design) == tango_interval(*counts, n, ALPHA)


THOUSAND = Design((100, 200, 400, 700, 1000), 0.02, ALPHA)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 4), st.floats(0.01, 0.1), st.floats(-1, 4))
def test_a_worse_outcome_is_never_judged_better(look, rate, extra):
    n = THOUSAND.looks[look]
    flips = max(2, round(rate * n))
    # Near where it is decided: a difference of ``extra`` standard errors above -margin.
    b = min(flips - 1, max(0, round((flips + 0.02 * n - extra * np.sqrt(flips)) / 2)))
    here = p_noninferior_at(b, flips - b, look, THOUSAND)
    for worse in ((b + 1, flips - b - 1), (b + 1, flips - b), (b, flips - b - 1)):
        assert p_noninferior_at(*worse, look, THOUSAND) >= min(here, 0.2) - 2e-4


@pytest.mark.parametrize("look", range(5))
def test_nothing_is_decided_below_a_boundary(look):
    n, bounds = THOUSAND.looks[look], boundaries(THOUSAND.looks, ALPHA)
    for b, c in ((0, 0), (1, 4), (3, 3), (round(0.06 * n), round(0.02 * n))):
        z = float(score_at_loss(b, c, n, 0.02))
        for p, reached in (
            (p_noninferior_at(b, c, look, THOUSAND), z),
            (p_inferior_at(b, c, look, THOUSAND), -z),
        ):
            assert MISS <= p <= 1
            if look < 4 and reached < bounds[look]:
                assert p > ALPHA
                assert p == pytest.approx(norm.sf(reached * norm.isf(ALPHA) / bounds[look]))


def test_what_looks_cost_is_little():
    """At the end of five looks: the p-value of the fixed test, and what could have stopped before."""
    for b, c in ((18, 20), (15, 13), (30, 32)):
        fixed, sequential = (
            exact.p_noninferior(b, c, 1000, 0.02),
            p_noninferior_at(b, c, 4, THOUSAND),
        )
        assert fixed < sequential < fixed + 0.035


def test_the_interval_agrees_with_the_p_values():
    for look, flips in ((1, 9), (3, 40), (4, 30)):
        n = THOUSAND.looks[look]
        for b in range(flips + 1):
            c = flips - b
            # Where it is decided one way or the other, and one outcome beyond.
            if abs(abs(float(score_at_loss(b, c, n, 0.02))) - 2) < 0.7:
                low, high = sequential_interval(b, c, look, THOUSAND)
                assert low <= (c - b) / n <= high
                p, q = p_noninferior_at(b, c, look, THOUSAND), p_inferior_at(b, c, look, THOUSAND)
                if p < 0.045 or p > 0.055:
                    assert (low > -0.02) == (p <= ALPHA), (b, c, n, p)
                if q < 0.045 or q > 0.055:
                    assert (high < -0.02) == (q <= ALPHA), (b, c, n, q)


def test_the_interval_after_looks_is_wider_than_tangos():
    for b, c, look in ((4, 12, 2), (9, 10, 3), (25, 24, 4)):
        low, high = sequential_interval(b, c, look, THOUSAND)
        fixed = tango_interval(b, c, THOUSAND.looks[look], ALPHA)
        assert low < fixed.low
        assert high > fixed.high - 1e-9
    assert sequential_interval(0, 1000, 4, THOUSAND).high == 1.0
    assert sequential_interval(1000, 0, 4, THOUSAND).low == -1.0


def test_confidence_set_and_what_it_misses():
    low, high = confidence_set(np.array([0, 7, 50]), 50, 4)
    assert low.tolist() == pytest.approx([0, beta.ppf(BELOW / 4, 7, 44), beta.ppf(BELOW / 4, 50, 1)])
    assert high.tolist() == pytest.approx([1 - (ABOVE / 4) ** (1 / 50), beta.isf(ABOVE / 4, 8, 43), 1])
    looks = (50, 100, 200, 400)
    assert missed(np.array([0.001, 0.5]), looks).tolist() == pytest.approx([BELOW, MISS])


@pytest.mark.parametrize(("b", "c", "margin"), [(-1, 0, 0.02), (60, 50, 0.02), (0, 0, 0.0), (0, 0, 1.0)])
def test_impossible_counts_and_margins_are_refused(b, c, margin):
    with pytest.raises(ValueError, match=r"are not flips of|not between 0 and 1"):
        p_noninferior_at(b, c, 0, Design((100, 200), margin, ALPHA))
