"""Read off two published scores, without samples, what can and can't be said of a loss.

Two checkpoints answered the same n documents, and their scores give how many each got right, not which. So the
flips lie between the fewest, where every change went one way, and the most, where the two were wrong on
different documents. What holds at both ends holds. What fails at the best end can't be shown with these
documents. Between them the flips decide, and they weren't published.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, norm

from quantgate.judge.power import ASSUMED_FLIP_RATE, documents_needed, resolvable_points
from quantgate.judge.stats.exact import flip_rate_upper, p_inferior, p_noninferior
from quantgate.judge.stats.tango import Interval, score_at_loss, tango_interval


class Concluded(StrEnum):
    """Conclusion about a loss against a margin."""

    WITHIN = "shown to be within the margin"
    WITHIN_IF = "within the margin if few answers flipped; the scores don't say"
    BEYOND = "shown to be beyond the margin"
    BEYOND_IF = "beyond the margin if few answers flipped; the scores don't say"
    UNDECIDED = "undecided"
    UNDECIDABLE = "can't be decided, however few answers flipped"


class Outside(NamedTuple):
    """Reading of other people's figures; deltas and the margin are fractions, candidate - baseline."""

    delta: float
    interval: Interval
    """Two-sided 1 - 2 alpha: unpaired (Newcombe) from scores, paired (Tango) from flip counts."""
    fewest_flips: int
    most_flips: int
    concluded: Concluded
    flips_allowed: int | None
    """With WITHIN_IF, the most flips at which it is shown; None where the scores' rounding decides."""
    resolvable_points: float
    documents_needed: int


def read_pairs(worse: int, better: int, n: int, margin: float, alpha: float, power: float) -> Outside:
    """Read published flip counts with the judge's own tests.

    Args:
        worse: documents right under the baseline and wrong under the candidate.
        better: the reverse.
        n: paired documents.
        margin: a fraction.
        alpha: one-sided error rate.
        power: the planned power of the documents needed.
    """
    flips = worse + better
    concluded = Concluded.UNDECIDED
    if p_noninferior(worse, better, n, margin) <= alpha:
        concluded = Concluded.WITHIN
    elif p_inferior(worse, better, n, margin) <= alpha:
        concluded = Concluded.BEYOND
    rate = flip_rate_upper(flips, n, alpha)
    return Outside(
        delta=(better - worse) / n,
        interval=tango_interval(worse, better, n, alpha),
        fewest_flips=flips,
        most_flips=flips,
        concluded=concluded,
        flips_allowed=None,
        resolvable_points=resolvable_points(n, flips / n, alpha, power),
        documents_needed=documents_needed(rate, margin, alpha, power),
    )


def read_scores(
    baseline: float,
    candidate: float,
    n: int,
    margin: float,
    alpha: float,
    power: float,
    rounding: float = 5e-7,
) -> Outside:
    """Read two published scores over the same n documents.

    Args:
        baseline: its score, a fraction of right answers.
        candidate: its score.
        n: documents of each.
        margin: a fraction.
        alpha: one-sided error rate.
        power: the planned power of the documents needed.
        rounding: largest distance of a published score from the true one: half of its last digit, a fraction.

    Raises:
        ValueError: a score isn't a share of n documents.
    """
    before, after = _counts(baseline, n, rounding), _counts(candidate, n, rounding)
    least_loss, most_loss = before[0] - after[1], before[1] - after[0]
    # Most documents that can have turned from wrong to right.
    turned = min(after[1], n - before[0])
    concluded, allowed = _conclude(least_loss, most_loss, turned, n, margin, alpha)
    return Outside(
        delta=candidate - baseline,
        interval=unpaired_interval(baseline, candidate, n, alpha),
        fewest_flips=0 if least_loss <= 0 <= most_loss else min(abs(least_loss), abs(most_loss)),
        most_flips=min(n, turned + min(before[1], n - after[0])),
        concluded=concluded,
        flips_allowed=allowed,
        resolvable_points=resolvable_points(n, ASSUMED_FLIP_RATE, alpha, power),
        documents_needed=documents_needed(ASSUMED_FLIP_RATE, margin, alpha, power),
    )


def unpaired_interval(baseline: float, candidate: float, n: int, alpha: float) -> Interval:
    """Return Newcombe's interval (1998, method 10) of the difference of two independent proportions of n documents.

    The view published_quality has the same formula for its fixed level; a test compares both.
    """
    ends = [
        binomtest(round(p * n), n).proportion_ci(confidence_level=1 - 2 * alpha, method="wilson")
        for p in (baseline, candidate)
    ]
    delta, (first, second) = candidate - baseline, ends
    return Interval(
        delta - math.hypot(candidate - second.low, first.high - baseline),
        delta + math.hypot(second.high - candidate, baseline - first.low),
    )


def _counts(score: float, n: int, rounding: float) -> tuple[int, int]:
    """Return the least and the most right answers that a score may mean."""
    low, high = math.ceil((score - rounding) * n - 1e-9), math.floor((score + rounding) * n + 1e-9)
    if low > high:
        raise ValueError(f"{score} is no share of {n} documents")
    return max(low, 0), min(high, n)


def _conclude(
    least_loss: int, most_loss: int, turned: int, n: int, margin: float, alpha: float
) -> tuple[Concluded, int | None]:
    """Apply both tests to the fewest and the most flips; the rounding counts against what is claimed."""

    def within(loss: int, back: int) -> bool:
        return p_noninferior(max(loss, 0) + back, max(-loss, 0) + back, n, margin) <= alpha

    def beyond(loss: int, back: int) -> bool:
        return p_inferior(max(loss, 0) + back, max(-loss, 0) + back, n, margin) <= alpha

    def most_back(loss: int) -> int:
        return min(turned if loss >= 0 else turned + loss, (n - abs(loss)) // 2)

    if within(least_loss, 0):
        top = max(0, most_back(most_loss))
        if within(most_loss, top):
            return Concluded.WITHIN, None
        if not within(most_loss, 0):
            return Concluded.WITHIN_IF, None
        # Tango's statistic says about where the test turns; the test itself then settles it.
        back = np.arange(top + 1)
        statistic = score_at_loss(max(most_loss, 0) + back, max(-most_loss, 0) + back, n, margin)
        shown = max(0, int(np.count_nonzero(statistic >= norm.isf(alpha))) - 1)
        while not within(most_loss, shown):
            shown -= 1
        while within(most_loss, shown + 1):
            shown += 1
        return Concluded.WITHIN_IF, abs(most_loss) + 2 * shown
    if beyond(most_loss, 0):
        certain = beyond(least_loss, max(0, most_back(least_loss)))
        return (Concluded.BEYOND if certain else Concluded.BEYOND_IF), None
    return Concluded.UNDECIDABLE, None
