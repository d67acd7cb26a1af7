"""Compute Tango's score statistic and interval for a difference of paired proportions.

Of ``n`` paired documents ``b`` are right under the baseline and wrong under the candidate (worse), ``c`` the
reverse (better); delta = P(better) - P(worse), estimated by (c - b) / n.

Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
paired-sample design", Statistics in Medicine 17 (1998) 891-908, equations (24)-(26).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtri

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_EDGE = 1e-12
"""Distance from -1 and 1 at which the search for a root ends; the statistic is not defined at the very ends."""


class Interval(NamedTuple):
    """A closed interval of deltas, fractions."""

    low: float
    high: float


def score_at_loss(b: Ints | Floats | float, c: Ints | Floats | float, n: Ints | float, loss: float) -> Floats:
    """Return Tango's statistic of H0: delta = -loss, for whole arrays of outcomes.

    The statistic is large where the candidate does better than H0 says. It falls with every document that turns from
    better to the same or from the same to worse (K. Sidik, Statistics in Medicine 22 (2003) 265-278); the exact test
    relies on that.

    Args:
        b: worse documents, any shape.
        c: better documents, the same shape.
        n: paired documents, one number or the same shape.
        loss: the loss that H0 claims, a fraction above 0 and below 1.

    Returns:
        The statistic, standard normal under H0 for large n, of the shape of ``b`` and ``c``.
    """
    worse, better = np.asarray(b, dtype=np.float64), np.asarray(c, dtype=np.float64)
    return np.asarray((better - worse + n * loss) / np.sqrt(n * _variance(worse, better, n, loss)))


def _variance(worse: Floats, better: Floats, n: Ints | float, loss: float) -> Floats:
    """Return the variance of one document's difference, estimated under H0: delta = -loss."""
    # The constrained maximum-likelihood estimate q of P(better) is the positive root of
    # 2n q^2 - linear q - constant; P(worse) is q + loss.
    linear = worse + better - loss * (2 * n + better - worse)
    constant = better * loss * (1 - loss)
    root = np.sqrt(linear * linear + 8 * n * constant)
    # There are two equal forms; this is the one that adds, never subtracts, magnitudes.
    with np.errstate(invalid="ignore", divide="ignore"):
        q = np.where(linear >= 0, (root + linear) / (4 * n), 2 * constant / (root - linear))
    return np.asarray(2 * q + loss * (1 - loss))


def spread(b: int, c: int, n: int, delta: float) -> float:
    """Return the standard deviation of one document's difference, estimated under H0: delta = ``delta``.

    Args:
        b: worse documents.
        c: better documents.
        n: paired documents.
        delta: the difference that H0 claims, a fraction between -1 and 1.
    """
    if delta > 0:
        b, c, delta = c, b, -delta
    if delta == 0:
        return math.sqrt((b + c) / n)
    return math.sqrt(float(_variance(np.asarray(float(b)), np.asarray(float(c)), n, -delta)))


def score(b: int, c: int, n: int, delta: float) -> float:
    """Return Tango's statistic of H0: delta = ``delta``, any value between -1 and 1.

    Args:
        b: worse documents.
        c: better documents.
        n: paired documents.
        delta: the difference that H0 claims, a fraction.

    Returns:
        The statistic; at ``delta`` 0 it is McNemar's (c - b) / sqrt(b + c), and 0 without a flip.
    """
    if delta < 0:
        return float(score_at_loss(b, c, n, -delta))
    if delta > 0:
        return -float(score_at_loss(c, b, n, delta))
    return (c - b) / math.sqrt(b + c) if b + c else 0.0


@lru_cache(maxsize=65536)
def tango_interval(b: int, c: int, n: int, alpha: float) -> Interval:
    """Return Tango's two-sided 1 - 2 alpha interval of delta: every value that the score test does not reject.

    Args:
        b: worse documents.
        c: better documents.
        n: paired documents, at least 1.
        alpha: error rate of each side, above 0 and below 0.5.

    Returns:
        The interval, fractions; it contains the estimate (c - b) / n.
    """
    z = -float(ndtri(alpha))
    estimate = (c - b) / n
    low, high = -1.0, 1.0
    if estimate > -1:
        low = _crossing(b, c, n, z, -1 + _EDGE, min(estimate, 1 - _EDGE))
    if estimate < 1:
        high = _crossing(b, c, n, -z, max(estimate, -1 + _EDGE), 1 - _EDGE)
    return Interval(min(low, estimate), max(high, estimate))


def _crossing(b: int, c: int, n: int, z: float, left: float, right: float) -> float:
    """Return the delta in [left, right] at which the statistic, which falls with delta, is z."""
    at_left, at_right = score(b, c, n, left) - z, score(b, c, n, right) - z
    if at_left <= 0:
        return left
    if at_right >= 0:
        return right
    return float(brentq(lambda delta: score(b, c, n, delta) - z, left, right, xtol=1e-13, rtol=1e-13))
