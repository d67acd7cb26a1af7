"""Test a paired quality delta by betting, for any scores from 0 to 1.

Per document d = candidate - baseline lies between -1 and 1, and H0 says that its mean is at most m. A stake k, chosen
before the document is seen, multiplies the capital by

    1 + k (d - m),    0 <= k < 1 / (1 + m),

which is never negative and under H0 isn't expected to grow. So the capital ever reaches 1 / alpha with
probability at most alpha (Ville), whatever the distribution of d and however often it is checked: 1 / its maximum is a
p-value. I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", Journal of the
Royal Statistical Society B 86 (2024) 1-27.

The stakes decide only the power. They are those of a gambler who wants 1 / alpha by the last document, no more and
no sooner: with the share a of the target reached, variance v and r documents to go,

    k = phi(Phi^-1(a)) / (a sqrt(v r)),

which in the limit of many documents makes the most powerful test of all, z at level alpha: S. Browne, "Reaching
goals by a deadline: digital options and continuous-time active portfolio management", Advances in Applied
Probability 31 (1999) 551-577. The target is recalculated from the present capital, so a poor guess of the variance
corrects itself: V. Voracek and F. Orabona, "STaR-Bets: sequential target-recalculating bets for tighter confidence
intervals" (2025).

The order of the documents matters, so it must be fixed in advance.

The test applies to clusters of documents too (quantgate/judge/stats/clustered.py): it stakes on the total D of a
cluster's differences with 1 + k (D - m n), where n is the number of its documents and k < 1 / (N (1 + m)), N being the
number of documents of the largest. N must bound the clusters of the whole population, not of these alone: then every
stake depends only on N and on what was seen before.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri_exp

from quantgate.judge.stats.tango import Floats, Interval

_BLOCKS = 256
"""Most changes of the stake: all documents of a block have the same one."""

_GREATEST = 0.97
"""Greatest stake, as a share of the one with which a single lost document loses all capital."""

_FIRST_VARIANCE = 0.25
"""Variance of a document that is assumed before the first, so that no variance is 0."""

_OVERSHOOT = 1.15
"""The target is this many times 1 / alpha, because the last stakes are too coarse to reach it exactly."""

_NEXT_TARGET = math.log(10)
"""Logarithm of the next target over one that was reached: ten times as high."""

_MEANS = 48
"""Values of the mean tried for an end of the interval; as many again are tried between two of them."""

_DENSITY = 1 / math.sqrt(2 * math.pi)


def p_noninferior_betting(
    differences: Floats,
    margin: float,
    alpha: float,
    available: int | None = None,
    documents: Floats | None = None,
) -> float:
    """Return the p-value of H0: mean difference <= -margin, for independent differences from -1 to 1.

    Args:
        differences: candidate - baseline per document, shape (n,), fractions, in an order fixed in advance; or their
            totals per cluster, each from minus to plus its documents.
        margin: the loss that would matter, a fraction from 0 to below 1.
        alpha: the error rate at which the stakes aim for power.
        available: documents (or clusters) that the task has, where not all are answered yet: the deadline.
        documents: of each cluster, shape (n,), where ``differences`` are totals of clusters.

    Returns:
        The p-value. If H0 is true, the probability that it ever falls to a level or below is at most that level.
    """
    return _p_value(differences, -margin, alpha, available, documents)


def p_inferior_betting(
    differences: Floats,
    margin: float,
    alpha: float,
    available: int | None = None,
    documents: Floats | None = None,
) -> float:
    """Return the p-value of H0: mean difference >= -margin; at margin 0 a small one shows some loss, however slight.

    Args and returns are those of ``p_noninferior_betting``.
    """
    return _p_value(-differences, margin, alpha, available, documents)


def betting_interval(
    differences: Floats, alpha: float, available: int | None = None, documents: Floats | None = None
) -> Interval:
    """Return the two-sided 1 - 2 alpha interval of the mean difference: the values that neither test rejects.

    Args are those of ``p_noninferior_betting``. The ends lie on a grid, rounded outwards.
    """
    low = _lower_bound(differences, alpha, available, documents)
    return Interval(low, -_lower_bound(-differences, alpha, available, documents))


def _p_value(
    differences: Floats, mean: float, alpha: float, available: int | None, documents: Floats | None
) -> float:
    test = _Betting.of(differences, alpha, available, documents)
    return float(np.exp(-_best_log_capital(test, np.array([mean]))[0]))


class _Betting(NamedTuple):
    """Input of the test, one document or cluster after the other."""

    differences: Floats
    documents: Floats
    """Documents that each difference is the sum of."""
    alpha: float
    deadline: int

    @classmethod
    def of(
        cls, differences: Floats, alpha: float, available: int | None, documents: Floats | None
    ) -> _Betting:
        """Count each difference as one document unless ``documents`` says otherwise."""
        counted = np.ones_like(differences) if documents is None else documents
        return cls(differences, counted, alpha, max(available or 0, differences.size))


def _best_log_capital(test: _Betting, means: Floats) -> Floats:
    """Return the logarithm of the greatest capital so far, at least the 0 of the beginning, shape of ``means``."""
    return np.asarray(np.maximum(_log_capitals(test, means).max(axis=0), 0.0))


def _log_capitals(test: _Betting, means: Floats) -> Floats:
    """Return the log capital of betting against H0: mean difference <= each of ``means``, a row after each block."""
    differences, documents, alpha, deadline = test
    n = differences.size
    edges = np.unique(np.linspace(0, deadline, min(deadline, _BLOCKS) + 1).astype(np.int64))
    squares = np.concatenate([[0.0], np.cumsum(differences**2)])
    greatest = _GREATEST / (1 + means) / float(documents.max())
    first_variance = _FIRST_VARIANCE * float(documents.max())
    target = math.log(_OVERSHOOT / alpha)
    capital, capitals = np.zeros_like(means), []
    for start, end in zip(edges[:-1], np.minimum(edges[1:], n), strict=True):
        if start >= n:
            break
        deviation = math.sqrt((first_variance + squares[start]) / (1 + start) * (deadline - start))
        steps = np.maximum(np.ceil((capital - target + 1e-9) / _NEXT_TARGET), 0.0)
        share = np.minimum(capital - target - steps * _NEXT_TARGET, -0.01)
        quantile = ndtri_exp(share)
        stake = np.minimum(_DENSITY * np.exp(-(quantile**2) / 2 - share) / deviation, greatest)
        gains = differences[start:end, None] - means * documents[start:end, None]
        capital = capital + np.log1p(stake * gains).sum(axis=0)
        capitals.append(capital)
    return np.array(capitals)


def _lower_bound(differences: Floats, alpha: float, available: int | None, documents: Floats | None) -> float:
    """Return the greatest of the means tried up to which every one is rejected; -1 if none is."""
    test = _Betting.of(differences, alpha, available, documents)
    n, counted = differences.size, float(test.documents.sum())
    estimate = float(differences.sum()) / counted
    width = 4 * math.sqrt((counted / n + float((differences**2).sum())) / (1 + n) * n) / counted
    while True:
        low, high = (max(end, -1 + 1e-9) for end in (estimate - width, estimate))
        for _ in range(2):
            means = np.linspace(low, high, _MEANS)
            rejected = _best_log_capital(test, means) >= -math.log(alpha)
            if not rejected[0]:
                break
            first_kept = int(np.argmin(rejected)) if not rejected.all() else _MEANS - 1
            low, high = float(means[first_kept - 1]), float(means[first_kept])
        else:
            return low
        if low <= -1 + 1e-9:
            return -1.0
        width *= 3
