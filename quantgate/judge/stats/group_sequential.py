"""Test a paired quality delta exactly, at interim looks where it may stop early.

A task's documents are answered in a fixed order and judged when n_1 < ... < n_K of them are answered, of which b
are worse and c better so far. Z_j is Tango's statistic of H0: delta = -margin at look j. Boundaries c_1 ...
c_{K-1} are fixed by the looks and alpha alone; R_j is the event Z_j >= c_j. At look j

    p_j = max over rho of P_rho(R_1 or ... or R_{j-1} or Z_j >= z, the value seen) + what the sets of rho miss,

where the maximum is over a confidence set of the flip rate rho from the flips at look j. The task passes at
look j < K if Z_j >= c_j and p_j <= alpha, at look K if p_K <= alpha.

Why the test validates falsely with probability at most alpha, over all looks and whatever the boundaries:

* The K confidence sets miss the true rho with probability at most MISS in all, and MISS is part of every p_j.
  Suppose that none does, and let J be the last look at which P_rho(R_1 or ... or R_{J-1}) <= alpha - MISS.
  Nothing is validated after J, since those p are greater. What is validated before J lies in R_1 or ... or
  R_{J-1}. What is validated at J has Z_J >= z*, the least value with P_rho(R_1 or ... or R_{J-1} or Z_J >= z*)
  <= alpha - MISS. So all of it lies in one event of at most that probability.
* The edge delta = -margin is the worst case of H0. Z_j falls with every document that turns from better to the
  same or from the same to worse (Sidik 2003), so "some R_i with i < j, or Z_j >= z" is an event that such a
  change can only remove, on every path. At a fixed rho a lower delta is a chance for each document to turn
  from better to worse, which leaves the flips, and with them the confidence set, as they are.

Mirrored, this gives the p-value of inferiority: there R_j is Z_j <= -c_j. H0: delta >= -margin allows flip
rates below the margin too; all of them are dominated by rho = margin with every flip a worse one. Either side
ignores that the other may stop the run, which can only lower its probabilities. With one look it is the test of
``stats.exact``, where the confidence set (Berger and Boos 1994) is explained.

The boundaries of ``stats.boundaries`` decide when the test is likely to stop, not how often it errs.
Ordering outcomes by the stage at which they stop: C. Jennison and B. W. Turnbull, Group Sequential Methods with
Applications to Clinical Trials (2000), chapter 8.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev
from scipy.optimize import brentq
from scipy.special import betaincinv, ndtr, ndtri

from quantgate.judge.stats.boundaries import boundaries, crossing_limit
from quantgate.judge.stats.exact import MISS, MISS_ABOVE, MISS_BELOW, flip_rate_at
from quantgate.judge.stats.path_probabilities import Cut, crossing
from quantgate.judge.stats.tango import Floats, Interval, Ints, score, score_at_loss, spread, tango_interval

INTERPOLATION = 5e-5
"""Largest error of the polynomial through the points of the search; it is added."""

_HOPELESS = 0.25
"""The search ends where the middle of the confidence set alone gives such a p-value, if that is at least alpha: the
p-value decides nothing."""

_FINE = 2000
"""Points at which that polynomial is evaluated: at least 250 a standard error of the flip rate."""

_EDGE = 1e-9
"""Distance from -1, 1 and the estimate at which the search for an end of the interval ends."""


class Design(NamedTuple):
    """A design, fixed before the first document; it alone decides the boundaries."""

    looks: tuple[int, ...]
    """Documents at which the candidate is judged, ascending; the last is all that the task has."""
    margin: float
    """The loss that would matter, a fraction above 0 and below 1."""
    alpha: float
    """One-sided error rate over all looks."""


def p_noninferior_at(b: int, c: int, look: int, design: Design) -> float:
    """Return the p-value of H0: delta <= -margin at a look, all earlier looks counted.

    Args:
        b: worse documents so far.
        c: better documents so far.
        look: index into the design's looks.
        design: fixed before the first document.

    Returns:
        The p-value, from ``MISS`` to 1. Where H0 is true, the probability that it is at most a, at any look, is
        at most a for every a up to alpha. Before the last look and below its boundary, where nothing may stop,
        it is z's p-value scaled so that the boundary has alpha: a figure above alpha, for information.

    Raises:
        ValueError: the counts are not those of the look's documents, or the margin is not between 0 and 1.
    """
    return _p_value(b, c, look, design, inferior=False)


def p_inferior_at(b: int, c: int, look: int, design: Design) -> float:
    """Return the p-value of H0: delta >= -margin at a look; all else is as of ``p_noninferior_at``."""
    return _p_value(b, c, look, design, inferior=True)


@lru_cache(maxsize=65536)
def sequential_interval(b: int, c: int, look: int, design: Design) -> Interval:
    """Return the two-sided 1 - 2 alpha interval of delta at a look, adjusted for stopping.

    At the last look, or where a boundary is reached on either side: every delta that the ordering by stages does
    not reject in the normal limit, with Tango's variance under that delta. The lower end agrees with
    ``p_noninferior_at`` at the margin as Tango's interval does with the exact test, the upper end with
    ``p_inferior_at``. Each end counts the looks that could have stopped on its own side; counting both would
    narrow it a little. With one look it is Tango's interval.

    At any other look the run goes on, and it is the repeated interval (Jennison and Turnbull 2000, chapter 9):
    Tango's with the look's boundary in place of the quantile of alpha. The intervals of all looks hold at once.

    Args:
        b: worse documents so far.
        c: better documents so far.
        look: index into the design's looks.
        design: fixed before the first document.

    Returns:
        The interval, fractions; it contains the estimate (c - b) / n.
    """
    n, bounds = design.looks[look], boundaries(design.looks, design.alpha)
    if look < len(bounds) and abs(float(score_at_loss(b, c, n, design.margin))) < bounds[look]:
        return tango_interval(b, c, n, float(ndtr(-bounds[look])))
    if look == 0:
        return tango_interval(b, c, n, design.alpha)
    estimate = (c - b) / n
    low, high = (_end(b, c, look, design, inferior=inferior) for inferior in (False, True))
    return Interval(min(low, estimate), max(high, estimate))


@lru_cache(maxsize=65536)
def _p_value(b: int, c: int, look: int, design: Design, *, inferior: bool) -> float:
    """Maximise over the confidence set of the flip rate; add what the sets of all looks miss."""
    n, margin = design.looks[look], design.margin
    if min(b, c) < 0 or b + c > n:
        raise ValueError(f"b = {b} and c = {c} are not flips of n = {n} pairs")
    if not 0 < margin < 1:
        raise ValueError(f"margin = {margin} is not between 0 and 1")
    reached = float(score_at_loss(b, c, n, margin)) * (-1 if inferior else 1)
    bounds = boundaries(design.looks, design.alpha)
    last = look == len(bounds)
    if not last and reached < bounds[look]:
        return float(ndtr(reached * ndtri(design.alpha) / bounds[look]))
    cuts = [*map(Cut, design.looks[:look], bounds[:look]), Cut(n, reached)]

    def tail_at(angles: Floats) -> Floats:
        return crossing(flip_rate_at(angles, margin), cuts, margin, inferior=inferior)

    # Flip rates below the margin are dominated by the edge.
    limits = np.array(confidence_set(np.asarray(b + c), n, len(design.looks)))
    if look and not inferior:
        # With fewer better documents the upper limit would fall, and p with it: worse must never be judged better.
        limits[1] = confidence_set(np.asarray(min(max(b + c, 2 * b), n)), n, len(design.looks))[1]
    left, right = np.arcsin(np.sqrt(np.maximum(limits - margin, 0) / (1 - margin))).tolist()
    fine = np.array([(left + right) / 2])
    tail = tail_at(fine)
    if right > left and tail[0] < max(_HOPELESS, design.alpha):
        points = _points(left, right, n, margin)
        angles = fine[0] + (right - left) / 2 * chebyshev.chebpts2(points)
        polynomial = chebyshev.Chebyshev.fit(angles, tail_at(angles), points - 1, domain=[left, right])
        fine = np.linspace(left, right, _FINE + 1)
        tail = polynomial(fine) + INTERPOLATION
    # A cell of the fine grid that contains a step of what is added counts as past it.
    added = missed(flip_rate_at(np.append(fine[1:], right), margin), design.looks)
    return float(min(1.0, max(MISS, (tail + added).max())))


def confidence_set(flips: Ints, n: int, looks: int) -> tuple[Floats, Floats]:
    """Return Clopper and Pearson's limits of the flip rate; each look may miss an equal part of what all may.

    Args:
        flips: worse and better documents together, any shape.
        n: paired documents.
        looks: how many looks the design has.
    """
    some = np.minimum(flips, n - 1)
    high = np.where(flips < n, betaincinv(some + 1, n - some, 1 - MISS_ABOVE / looks), 1.0)
    some = np.maximum(flips, 1)
    low = np.where(flips > 0, betaincinv(some, n - some + 1, MISS_BELOW / looks), 0.0)
    return low, high


def missed(rate: Floats, looks: tuple[int, ...]) -> Floats:
    """Return the probability that the confidence set of some look misses a flip rate.

    An upper limit is never below that of no flips at all, so only lower limits miss a smaller flip rate.

    Args:
        rate: flip rates, shape (r,).
        looks: documents of each look.

    Returns:
        Probabilities, shape (r,), at most ``MISS``.
    """
    part = MISS_ABOVE / len(looks)
    least_upper = 1 - part ** (1 / np.array(looks))
    return np.asarray(MISS_BELOW + part * (rate[:, None] >= least_upper).sum(axis=1))


def _points(left: float, right: float, n: int, margin: float) -> int:
    """Return how many Chebyshev points keep the interpolated probability within ``INTERPOLATION``.

    The probability of any event of n documents is a polynomial in their probabilities, so it is an entire function of
    the angle; at a complex angle it is at most (|P(worse)| + |P(better)| + |P(same)|)^n. With that as its
    maximum M on the ellipse of parameter r around [left, right] the error through k + 1 points is at most
    4 M r^-k / (r - 1): L. N. Trefethen, Approximation Theory and Approximation Practice (2013), theorem 8.2.
    """
    ellipse = np.exp(1j * np.linspace(0, np.pi, 65)) * _RADII[:, None]
    angle = (left + right) / 2 + (right - left) / 4 * (ellipse + 1 / ellipse)
    better = (1 - margin) / 2 * np.sin(angle) ** 2
    largest = n * np.log(np.abs(better + margin) + np.abs(better) + np.abs(1 - margin - 2 * better)).max(
        axis=1
    )
    degree = (math.log(4 / INTERPOLATION) + largest - np.log(_RADII - 1)) / np.log(_RADII)
    return max(2, math.ceil(float(degree.min())) + 1)


_RADII: Floats = 1 + np.geomspace(0.05, 60, 60)
"""Ellipses tried, by the sum of their half axes; each gives a bound."""


def _end(b: int, c: int, look: int, design: Design, *, inferior: bool) -> float:
    """Return the delta, left of the estimate (right of it: inferior), whose p-value is alpha in the normal limit."""
    n, sign = design.looks[look], -1 if inferior else 1
    looks = np.array(design.looks[: look + 1])
    bounds = np.array([*boundaries(design.looks, design.alpha)[:look], 0.0])

    def excess(delta: float) -> float:
        # Where delta is true the earlier statistics, of H0: delta = -margin, have this mean.
        drift = sign * (delta + design.margin) / spread(b, c, n, delta) * np.sqrt(looks)
        moved = bounds - drift
        moved[-1] = sign * score(b, c, n, delta)
        return crossing_limit(moved, looks / n) - design.alpha

    edge, inner = -sign * (1 - _EDGE), (c - b) / n - sign * _EDGE
    if sign * (inner - edge) <= 0 or excess(edge) >= 0:
        return float(-sign)
    return float(brentq(excess, edge, inner, xtol=1e-10))
