"""Estimate a paired quality delta where interim looks could stop the candidate, corrected for stopping.

A candidate that is ahead by chance stops earlier, so the difference seen at a stop is too large more often than not.
The estimate here is the delta under which a result that ranks above the one seen is as likely as one that ranks
below. Results rank by stages, as in ``sequential_interval``: a stop for a gain ranks above everything that went on, the
earlier the higher; a stop for a loss below it; at the same look the statistic decides. Such an estimate is
median-unbiased: C. Jennison and B. W. Turnbull, Group Sequential Methods with Applications to Clinical Trials (2000),
chapter 8.

Each end of the interval counts the stops of its own side alone, the estimate those of both sides. Both rest on a normal
limit. Here the flip rate is the one that was observed: it gives the running difference, a Brownian motion, its spread,
and each look the differences at which Tango's statistic reaches the boundary. Under another delta each path has another
weight (Girsanov), so one density of the paths that go on serves every delta.

At the same number of flips, more better documents and fewer worse ones never give a smaller estimate.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from quantgate.judge.stats.boundaries import boundaries
from quantgate.judge.stats.group_sequential import Design, sequential_interval
from quantgate.judge.stats.tango import Floats, score_at_loss

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(128)
_REACH = 10.0
"""Standard deviations on either side at which the density ends."""
_HALVINGS = 40
"""Steps of the search for a difference."""


class _Paths(NamedTuple):
    """Paths that go on after a look, at no drift, as differences from a straight line to what was seen."""

    time: float
    values: Floats
    density: Floats
    """Density times quadrature weight."""
    upper: float
    """Difference from which the next look stops for a gain; at the last look 0, what was seen."""
    step: float
    """Time to the next look."""


@lru_cache(maxsize=65536)
def corrected_estimate(b: int, c: int, look: int, design: Design) -> float:
    """Return the estimate of delta at a look, corrected for the looks that could have stopped the candidate.

    At the first look, and without a flip, it is the plain estimate (c - b) / n. At a look where the candidate goes on
    it is the estimate of a run that ends there for another reason, as at a limit.

    Args:
        b: worse documents so far.
        c: better documents so far.
        look: index into the design's looks.
        design: fixed before the first document.

    Returns:
        The estimate, a fraction; it lies within ``sequential_interval``.
    """
    n = design.looks[look]
    estimate = (c - b) / n
    if look == 0 or b + c == 0:
        return estimate
    # A unit of time is all of the look's documents; a unit of the difference is its standard deviation then.
    unit = math.sqrt(b + c) / n
    paths = _going_on(estimate, (b + c) / n, look, design)
    low, high = sequential_interval(b, c, look, design)

    def excess(delta: float) -> float:
        return _above((delta - estimate) / unit, paths) - 0.5

    if excess(low) >= 0:
        return low
    if excess(high) <= 0:
        return high
    return float(brentq(excess, low, high, xtol=1e-9))


def _going_on(estimate: float, flip_rate: float, look: int, design: Design) -> list[_Paths]:
    """Return the paths before each look."""
    n = design.looks[look]
    documents = np.array(design.looks[:look])
    unit = math.sqrt(flip_rate / n)
    lowers, uppers = (
        ((ends - estimate) * documents / n / unit).tolist() for ends in _stops(flip_rate, look, design)
    )
    times = [*(documents / n).tolist(), 1.0]
    paths, time, values, density = [], 0.0, np.zeros(1), np.ones(1)
    for index, now in enumerate(times[:-1]):
        paths.append(_Paths(time, values, density, uppers[index], now - time))
        reach, scale = _REACH * math.sqrt(now), math.sqrt(now - time)
        bottom = max(lowers[index], -reach)
        half = max(min(uppers[index], reach) - bottom, 0.0) / 2
        nodes = bottom + half * (1 + _NODES)
        kernel = np.exp(-(((nodes[:, None] - values) / scale) ** 2) / 2) / (scale * math.sqrt(2 * math.pi))
        time, values, density = now, nodes, (kernel @ density) * _WEIGHTS * half
    return [*paths, _Paths(time, values, density, 0.0, 1.0 - time)]


def _stops(flip_rate: float, look: int, design: Design) -> Floats:
    """Return the deltas seen up to which an earlier look stops for a loss, and from which for a gain, shape (2, look).

    They are those with so many flips; infinite where even flips that all go one way don't reach the boundary.
    """
    documents = np.array(design.looks[:look])
    bounds = np.array(boundaries(design.looks, design.alpha)[:look]) * np.array([[-1.0], [1.0]])

    def statistic(delta: Floats) -> Floats:
        worse, better = documents * (flip_rate - delta) / 2, documents * (flip_rate + delta) / 2
        return score_at_loss(worse, better, documents, design.margin)

    inside = np.full(bounds.shape, -flip_rate)
    outside = -inside
    unreached = np.where(bounds < 0, statistic(inside) > bounds, statistic(outside) < bounds)
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        less = statistic(middle) < bounds
        inside, outside = np.where(less, middle, inside), np.where(less, outside, middle)
    return np.where(unreached, np.copysign(np.inf, bounds), outside)


def _above(drift: float, paths: list[_Paths]) -> float:
    """Return the probability of a result that ranks above the one seen: an earlier stop for a gain, or more now."""
    return sum(
        float(
            (part.density * np.exp(drift * part.values - drift * drift * part.time / 2))
            @ ndtr((part.values + drift * part.step - part.upper) / math.sqrt(part.step))
        )
        for part in paths
    )
