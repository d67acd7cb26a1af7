"""Compute where a comparison may stop early, in the normal limit: boundaries and crossing probabilities.

The statistics of the interim looks are a Brownian motion observed at the shares t_j = n_j / N of the documents,
divided by sqrt(t_j). The recursion over looks is P. Armitage, C. K. McPherson and B. C. Rowe's
(JRSS A 132 (1969) 235-244); the boundaries' shape is S. K. Wang and A. A. Tsiatis' (Biometrics 43 (1987) 193-199).

The test keeps its error rate even if nothing here is exact: boundaries decide only when it is likely to stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from quantgate.judge.stats.tango import Floats

_EXPONENT = -0.3
"""Boundaries fall with the share of the documents to this power; 0 would be Pocock's, -0.5 O'Brien and Fleming's.
Nearer to 0 stops earlier and has less power where a task has barely enough documents."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(128)
_REACH = 8.0
"""Standard deviations below 0 at which the density ends."""


@lru_cache(maxsize=4096)
def boundaries(looks: tuple[int, ...], alpha: float) -> tuple[float, ...]:
    """Return the statistic that stops a comparison at each look but the last.

    The boundaries have the shape c t^-0.3, with c such that some look, the last among them, is crossed with
    probability alpha where the loss is just the margin.

    Args:
        looks: documents at which the candidate is judged, ascending; the last is all of them.
        alpha: one-sided error rate over all looks, above 0 and below 0.5.

    Returns:
        One boundary for each look but the last, rounded, so that every machine has the same.
    """
    shares = np.array(looks) / looks[-1]
    shape = shares**_EXPONENT
    least, most = -float(ndtri(alpha)), 8.0
    factor = brentq(lambda c: crossing_limit(c * shape, shares) - alpha, least - 1e-6, most, xtol=1e-6)
    return tuple(round(float(c), 3) for c in factor * shape[:-1])


def crossing_limit(bounds: Sequence[float] | Floats, shares: Sequence[float] | Floats) -> float:
    """Return P(a standardized Brownian motion reaches its bound at some look).

    Args:
        bounds: one for each look, in standard deviations.
        shares: times of the looks, above 0 and ascending.
    """
    times = np.asarray(shares, dtype=np.float64)
    tops = np.asarray(bounds, dtype=np.float64) * np.sqrt(times)
    values, density = np.zeros(1), np.ones(1)
    before = 0.0
    for time, bound in zip(times[:-1], tops[:-1], strict=True):
        scale, bottom = np.sqrt(time - before), -_REACH * np.sqrt(time)
        top = min(bound, -bottom)
        if top <= bottom:
            return 1.0
        nodes = (top - bottom) / 2 * _NODES + (top + bottom) / 2
        kernel = np.exp(-(((nodes[:, None] - values) / scale) ** 2) / 2) / (scale * np.sqrt(2 * np.pi))
        density = (kernel @ density) * _WEIGHTS * (top - bottom) / 2
        values, before = nodes, time
    scale = np.sqrt(times[-1] - before)
    return float(1 - density @ ndtr((tops[-1] - values) / scale))


@lru_cache(maxsize=4096)
def inflation(looks: tuple[int, ...], alpha: float, power: float) -> float:
    """Return how many times the documents of a single look at the end the design takes for the same power.

    Args:
        looks: documents at which the candidate is judged, ascending; the last is all of them.
        alpha: one-sided error rate over all looks.
        power: probability of crossing a boundary at some look, above alpha and below 1.
    """
    shares = np.array(looks) / looks[-1]
    tops = np.array([*boundaries(looks, alpha), 0.0])
    tops[-1] = last_bound(looks, alpha)
    single = float(ndtri(power) - ndtri(alpha))
    drift = brentq(
        lambda mean: crossing_limit(tops - mean * np.sqrt(shares), shares) - power,
        single - 1e-6,
        2 * single,
        xtol=1e-6,
    )
    return float((drift / single) ** 2)


@lru_cache(maxsize=4096)
def last_bound(looks: tuple[int, ...], alpha: float) -> float:
    """Return the statistic at the last look that gives alpha over all looks, given the earlier boundaries."""
    shares, earlier = np.array(looks) / looks[-1], boundaries(looks, alpha)
    return float(
        brentq(lambda top: crossing_limit([*earlier, top], shares) - alpha, -float(ndtri(alpha)) - 1e-6, 8.0)
    )
