"""A valid test of a paired quality delta for scores that are not just right or wrong, from 0 to 1.

Per document d = candidate - baseline lies between -1 and 1, and H0 says that its mean is at most m. Whoever
stakes k, chosen before the document is seen, multiplies the capital by

    1 + k (d - m),    0 <= k < 1 / (1 + m),

which is never negative and under H0 isn't expected to grow. So the capital ever reaches 1 / alpha with
probability at most alpha (Ville), whatever the distribution of d and whenever one looks: 1 / its maximum is a
p-value. I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", Journal of the
Royal Statistical Society B 86 (2024) 1-27.

The stakes decide the power alone. They are those of a gambler who wants 1 / alpha by the last document, no more and
no sooner: with the share a of the target at hand, variance v and r documents to go,

    k = phi(Phi^-1(a)) / (a sqrt(v r)),

which in the limit of many documents makes the most powerful test of all, z at level alpha: S. Browne, "Reaching
goals by a deadline: digital options and continuous-time active portfolio management", Advances in Applied
Probability 31 (1999) 551-577. The target is reckoned anew from the capital at hand, so a poor guess of the variance
corrects itself: V. Voracek and F. Orabona, "STaR-Bets: sequential target-recalculating bets for tighter confidence
intervals" (2025).

The order of the documents matters, so it must be one that was fixed in advance.

The same bets may be placed on clusters of documents (quantgate/judge/stats/clustered.py): on the total D of a cluster's
differences with 1 + k (D - m n), where n is the number of its documents and k < 1 / (N (1 + m)), N being the number of
documents of the largest. N must bound the clusters of the whole population, not of these alone: then every stake rests
on N and on what was seen before.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri_exp

from quantgate.judge.stats.tango import Floats, Interval

_BLOCKS = 256
"""The stake changes this often at most: a block of documents is staked on alike."""

_GREATEST = 0.97
"""Greatest stake, as a share of the one that a single lost document may ruin."""

_SUPPOSED = 0.25
"""Variance of a document that is supposed before the first, so that none is 0."""

_BEYOND = 1.15
"""The target is this many times 1 / alpha: the last stakes are too coarse to meet it exactly."""

_LADDER = math.log(10)
"""A target that is met is followed by one ten times as high."""

_MEANS = 48
"""Values of the mean that are tried for an end of the interval, and as many again between two of them."""

_DENSITY = 1 / math.sqrt(2 * math.pi)


def p_noninferior_bounded(
    differences: Floats,
    margin: float,
    alpha: float,
    available: int | None = None,
    documents: Floats | None = None,
) -> float:
    """P-value of H0: mean difference <= -margin, for independent differences from -1 to 1.

    Args:
        differences: candidate - baseline per document, shape (n,), fractions, in an order fixed in advance; or their
            totals per cluster, each from minus to plus its documents.
        margin: the loss that would matter, a fraction from 0 to below 1.
        alpha: the error rate whose power the stakes aim at.
        available: documents (or clusters) that the task has, where they aren't all answered yet: the deadline.
        documents: of each cluster, shape (n,), where ``differences`` are totals of clusters.

    Returns:
        The p-value: if H0 is true, at any of the looks is it at most a level with at most that probability.
    """
    return _p_value(differences, -margin, alpha, available, documents)


def p_inferior_bounded(
    differences: Floats,
    margin: float,
    alpha: float,
    available: int | None = None,
    documents: Floats | None = None,
) -> float:
    """P-value of H0: mean difference >= -margin; at margin 0 a small one shows some loss, however slight.

    Args and returns are those of ``p_noninferior_bounded``.
    """
    return _p_value(-differences, margin, alpha, available, documents)


def bounded_interval(
    differences: Floats, alpha: float, available: int | None = None, documents: Floats | None = None
) -> Interval:
    """The two-sided 1 - 2 alpha interval of the mean difference: the values that neither test refuses.

    Args are those of ``p_noninferior_bounded``. The ends are found on a grid, rounded outwards.
    """
    low = _lower_bound(differences, alpha, available, documents)
    return Interval(low, -_lower_bound(-differences, alpha, available, documents))


def _p_value(
    differences: Floats, mean: float, alpha: float, available: int | None, documents: Floats | None
) -> float:
    bets = _Bets.of(differences, alpha, available, documents)
    return float(np.exp(-_best_log_capital(bets, np.array([mean]))[0]))


class _Bets(NamedTuple):
    """What is bet on, one document or cluster after the other."""

    differences: Floats
    documents: Floats
    """How many each difference sums up over."""
    alpha: float
    deadline: int

    @classmethod
    def of(cls, differences: Floats, alpha: float, available: int | None, documents: Floats | None) -> _Bets:
        counted = np.ones_like(differences) if documents is None else documents
        return cls(differences, counted, alpha, max(available or 0, differences.size))


def _best_log_capital(bets: _Bets, means: Floats) -> Floats:
    """Logarithm of the greatest capital so far, at least the 0 of the beginning, shape of ``means``."""
    return np.asarray(np.maximum(_log_capitals(bets, means).max(axis=0), 0.0))


def _log_capitals(bets: _Bets, means: Floats) -> Floats:
    """Logarithm of the capital of bets against H0: mean difference <= each of ``means``, a row after each block."""
    differences, documents, alpha, deadline = bets
    n = differences.size
    edges = np.unique(np.linspace(0, deadline, min(deadline, _BLOCKS) + 1).astype(np.int64))
    squares = np.concatenate([[0.0], np.cumsum(differences**2)])
    greatest = _GREATEST / (1 + means) / float(documents.max())
    supposed = _SUPPOSED * float(documents.max())
    target = math.log(_BEYOND / alpha)
    capital, capitals = np.zeros_like(means), []
    for start, end in zip(edges[:-1], np.minimum(edges[1:], n), strict=True):
        if start >= n:
            break
        deviation = math.sqrt((supposed + squares[start]) / (1 + start) * (deadline - start))
        steps = np.maximum(np.ceil((capital - target + 1e-9) / _LADDER), 0.0)
        share = np.minimum(capital - target - steps * _LADDER, -0.01)
        quantile = ndtri_exp(share)
        stake = np.minimum(_DENSITY * np.exp(-(quantile**2) / 2 - share) / deviation, greatest)
        gains = differences[start:end, None] - means * documents[start:end, None]
        capital = capital + np.log1p(stake * gains).sum(axis=0)
        capitals.append(capital)
    return np.array(capitals)


def _lower_bound(differences: Floats, alpha: float, available: int | None, documents: Floats | None) -> float:
    """A mean that the bets refuse, as every lesser one tried, next below the least that they don't; -1 if none."""
    bets = _Bets.of(differences, alpha, available, documents)
    n, counted = differences.size, float(bets.documents.sum())
    estimate = float(differences.sum()) / counted
    width = 4 * math.sqrt((counted / n + float((differences**2).sum())) / (1 + n) * n) / counted
    while True:
        low, high = (max(end, -1 + 1e-9) for end in (estimate - width, estimate))
        for _ in range(2):
            means = np.linspace(low, high, _MEANS)
            refused = _best_log_capital(bets, means) >= -math.log(alpha)
            if not refused[0]:
                break
            held = int(np.argmin(refused)) if not refused.all() else _MEANS - 1
            low, high = float(means[held - 1]), float(means[held])
        else:
            return low
        if low <= -1 + 1e-9:
            return -1.0
        width *= 3
