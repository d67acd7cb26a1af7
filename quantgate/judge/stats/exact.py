"""Test a paired quality delta exactly and unconditionally; compute the other exact figures of a verdict.

Of ``n`` paired documents ``b`` are right under the baseline and wrong under the candidate (worse), ``c`` the
reverse (better); delta = P(better) - P(worse). Outcomes are ordered by Tango's statistic and the p-value is
maximised over the nuisance, which is the true flip rate rho = P(worse) + P(better):

* The number of flips m = b + c is binomial (n, rho) and at delta = -margin b is binomial
  (m, (rho + margin) / 2 rho). The statistic falls with b at fixed m, so the outcomes at least as extreme are
  b <= bound(m), and their probability is a sum over m of a binomial density times a distribution function.
* H0 is a half-plane (delta <= -margin) of which only the edge is searched: at fixed rho, moving probability
  from worse to better moves documents the same way and can only raise the statistic, so for every rho the
  edge is the worst case.
* The maximum is taken over a confidence set of rho from m, and the probability that the set misses rho is
  added: R. L. Berger and D. D. Boos, "P values maximized over a confidence set for the nuisance parameter",
  JASA 89 (1994) 1012-1016. This excludes flip rates that the data rule out.

The test without the confidence set: H. Hsueh, J. Liu and J. Chen, Biometrics 57 (2001) 478-483; K. Sidik,
Statistics in Medicine 22 (2003) 265-278.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import betaincc, betaincinv, gammaln
from scipy.stats import binom, binomtest

from quantgate.judge.stats.tango import Floats, Ints, score_at_loss

MISS = 0.001
"""Probability that the confidence set of the flip rate misses it (Berger and Boos): a 99.9 % set."""

MISS_BELOW = 0.0002
MISS_ABOVE = MISS - MISS_BELOW
"""Parts of MISS for the set's lower and upper limit. An upper limit is never below that of no flips at
all, so a smaller flip rate is missed by the lower limit only, and only that share is added there: without
flips a one-point margin takes the 299 documents of 0.99^n <= 0.05, not 301."""

_STEP = 0.1
"""Step of the search, in standard errors of the flip rate."""

_INTERPOLATION = 5e-6
"""Added because the search may miss this much between its steps."""

_TIE = 1e-9
"""Statistics this near count as equal, as rounding may separate them."""

_TRUNCATED = 1e-13
"""Probability of the flip counts left out at each end of the sum; it is added."""

_LOG_OF_ZERO = -1e6
"""Replaces the logarithm of a probability of 0, which may be raised to the power of 0."""


@lru_cache(maxsize=65536)
def p_noninferior(b: int, c: int, n: int, margin: float) -> float:
    """Return the exact p-value of H0: delta <= -margin; a small one shows that the candidate is not inferior.

    Args:
        b: worse documents.
        c: better documents.
        n: paired documents.
        margin: the loss that would matter, a fraction above 0 and below 1.

    Returns:
        The p-value, from ``MISS`` to 1: if H0 is true, it is at most alpha with probability at most alpha.

    Raises:
        ValueError: the counts are not those of n pairs, or the margin is not between 0 and 1.
    """
    return _p_value(b, c, n, margin, inferior=False)


@lru_cache(maxsize=65536)
def p_inferior(b: int, c: int, n: int, margin: float) -> float:
    """Return the exact p-value of H0: delta >= -margin; a small one shows that the candidate is inferior.

    Args, returns and errors are those of ``p_noninferior``.
    """
    return _p_value(b, c, n, margin, inferior=True)


@lru_cache(maxsize=65536)
def p_degraded(b: int, c: int) -> float:
    """Return the exact one-sided McNemar p-value of H0: delta >= 0, given the flips.

    Args:
        b: worse documents.
        c: better documents.

    Returns:
        P(at least b of b + c fair coins); 1 without a flip. A small one shows some loss, however slight.
    """
    return float(binomtest(b, b + c, 0.5, alternative="greater").pvalue) if b + c else 1.0


def flip_rate_upper(flips: int, n: int, alpha: float) -> float:
    """Return the one-sided upper 1 - alpha bound of the flip rate (Clopper and Pearson 1934), a fraction."""
    return 1.0 if flips >= n else float(betaincinv(flips + 1, n - flips, 1 - alpha))


def _p_value(b: int, c: int, n: int, margin: float, *, inferior: bool) -> float:
    """Maximise the tail probability over the confidence set of the flip rate; add what the set misses."""
    if min(b, c) < 0 or b + c > n or n < 1:
        raise ValueError(f"b = {b} and c = {c} are not flips of n = {n} pairs")
    if not 0 < margin < 1:
        raise ValueError(f"margin = {margin} is not between 0 and 1")
    search = _search(b + c, n, margin)
    grid, right = search.grid, search.grid[-1]
    tail = _tail(search, _bound(b, c, n, margin, search.counts, inferior=inferior), inferior=inferior)
    if grid.size > 1:
        fine = np.linspace(grid[0], right, 16 * (grid.size - 1) + 1)
        grid, tail = fine, CubicSpline(grid, tail)(fine)
    # At most one cell of the fine grid contains the step of what is added; it counts as past it.
    never_missed_above = 1 - MISS_ABOVE ** (1 / n)
    added = np.where(flip_rate_at(np.append(grid[1:], right), margin) < never_missed_above, MISS_BELOW, MISS)
    return float(min(1.0, max(MISS, (tail + added).max() + _INTERPOLATION + 2 * _TRUNCATED)))


class _Search(NamedTuple):
    """Grid on which the maximum is searched: the same for all outcomes of as many flips, and for either direction."""

    grid: Floats
    """Angles whose flip rates span the confidence set, shape (r,)."""
    counts: Ints
    """Consecutive flip counts m of the sum, shape (m,)."""
    density: Floats
    """Their probabilities, shape (r, m)."""
    share: Floats
    """Probability that a flip is for the worse at delta = -margin, shape (r, 1)."""


@lru_cache(maxsize=4)
def _search(flips: int, n: int, margin: float) -> _Search:
    low = betaincinv(flips, n - flips + 1, MISS_BELOW) if flips else 0.0
    high = flip_rate_upper(flips, n, MISS_ABOVE)
    # At delta = -margin the flip rate is at least the margin. Where the set lies below, the edge itself is
    # taken: it is the worst case for every smaller rate.
    low, high = max(low, margin), max(high, margin)
    # Why the search finds the maximum: P(better) = (1 - margin) sin^2(angle) / 2, and Fisher's information on
    # the angle is at most 4n (1 - margin) everywhere, so a step of _STEP / (2 sqrt n) is at most _STEP
    # standard errors. Per standard error the k-th derivative of a tail probability f is, in the normal limit,
    # at most sqrt(f (1 - f) k!) (Cauchy-Schwarz on the k-th Hermite polynomial of the score), so f hides no
    # peak between two points: a cubic spline through them is off by at most
    # 5/384 _STEP^4 sqrt(24 f (1 - f)) < 4e-6. The tests compare with dense grids, small n included.
    left, right = (float(np.arcsin(np.sqrt((rate - margin) / (1 - margin)))) for rate in (low, high))
    cells = max(8, int(np.ceil((right - left) * 2 * np.sqrt(n) / _STEP)))
    grid = np.linspace(left, right, cells + 1) if right > left else np.array([left])
    rate = flip_rate_at(grid, margin)[:, None]
    counts = np.arange(
        int(binom.ppf(_TRUNCATED, n, low)), int(binom.isf(_TRUNCATED, n, high)) + 1, dtype=np.int64
    )
    # Logarithms as large as log n! lose their last digits, yet a row's probabilities must add up to 1.
    density = _binomial(counts, n, rate)
    density /= density.sum(axis=1, keepdims=True)
    return _Search(grid, counts, density, (rate + margin) / (2 * rate))


def flip_rate_at(angle: Floats, margin: float) -> Floats:
    """Return the flip rate at an angle of the search."""
    return margin + (1 - margin) * np.sin(angle) ** 2


def _tail(search: _Search, bound: Ints, *, inferior: bool) -> Floats:
    """Return P(outcome at least as extreme) at delta = -margin, for each flip rate of the search.

    ``bound`` has for each flip count m the last b <= bound(m) that is as extreme (for the inferior side, the last one
    that is not). Neither a worse document more nor a better one moves the bound by more than
    one, and it never falls (Tango's statistic is monotone), so P(b <= bound(m)) follows from that of m - 1 by
    adding single binomial probabilities.
    """
    counts, density, share = search.counts, search.density, search.share
    at_bound = _binomial(np.maximum(bound, 0), counts, share)
    at_bound[:, bound < 0] = 0.0
    below = np.empty_like(density)
    below[:, 0] = _at_most(int(bound[0]), int(counts[0]), share[:, 0])
    below[:, 1:] = at_bound[:, 1:] * (np.diff(bound) > 0) - share * at_bound[:, :-1]
    np.cumsum(below, axis=1, out=below)
    return np.asarray((density * (1 - below if inferior else below)).sum(axis=1))


def _binomial(k: Ints, n: Ints | int, chance: Floats) -> Floats:
    """Return P(k of n), broadcast; from logarithms, which for whole tables is far faster than scipy.stats' function."""
    ways = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    with np.errstate(divide="ignore"):
        log_chance, log_rest = (np.maximum(np.log(p), _LOG_OF_ZERO) for p in (chance, 1 - chance))
    logarithm: Floats = np.asarray(k * log_chance)
    np.add(logarithm, (n - k) * log_rest, out=logarithm)
    np.add(logarithm, ways, out=logarithm)
    return np.exp(logarithm, out=logarithm)


def _at_most(k: int, n: int, chance: Floats) -> Floats:
    """Return P(at most k of n)."""
    if k < 0 or k >= n:
        return np.full(chance.shape, 0.0 if k < 0 else 1.0)
    return np.asarray(betaincc(k + 1.0, n - k, chance))


def _bound(b: int, c: int, n: int, margin: float, counts: Ints, *, inferior: bool) -> Ints:
    """Return for each m the largest b whose statistic is at least the observed one (beyond it, if ``inferior``).

    Ties count as extreme on either side, so rounding never leaves an outcome out.
    """
    observed = float(score_at_loss(b, c, n, margin))
    threshold = observed + _TIE if inferior else observed - _TIE
    inside, outside = np.full(counts.shape, -1, dtype=np.int64), counts + 1
    while np.any(outside - inside > 1):
        middle = (inside + outside) // 2
        above = score_at_loss(middle, counts - middle, n, margin) > threshold
        inside, outside = np.where(above, middle, inside), np.where(above, outside, middle)
    # One more document moves it by one at most and never back, since Tango's statistic is monotone. Where rounding
    # says otherwise, the greater p-value counts.
    steps = np.arange(counts.size)
    if inferior:
        inside = np.minimum.accumulate(inside[::-1])[::-1]
        return np.asarray(np.minimum.accumulate(inside - steps) + steps)
    inside = np.maximum.accumulate(inside)
    return np.asarray(np.maximum.accumulate((inside - steps)[::-1])[::-1] + steps)
