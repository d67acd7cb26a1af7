"""Compute what the shipped test decides at every outcome of a design, and how often: by sums, not draws.

The p-values of ``judge.stats.group_sequential`` fall with the statistic, so that at each look and flip rate there is
one statistic from which on a flip rate allows a decision; an outcome is decided where every flip rate of its
confidence set allows it. A table of these replaces a p-value for each of the millions of outcomes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from quantgate.judge.stats.boundaries import boundaries
from quantgate.judge.stats.group_sequential import INTERPOLATION, Design, confidence_set, missed
from quantgate.judge.stats.path_probabilities import TAIL, PathDensity, walks
from quantgate.judge.stats.tango import Floats, Ints, score_at_loss

STEP = 0.0005
"""Step of the grid of statistics."""
_STATISTICS: Floats = np.arange(1.2, 4.5, STEP)
"""Grid of statistics: those between two of them count as equal, which moves less than 0.0001 of probability."""


class Limits(NamedTuple):
    """Least statistics with which a look decides."""

    first: Ints
    last: Ints
    """Flip rates of the confidence set, by the number of flips: indices into the grid, the last not included."""
    greatest: list[Floats]
    """Greatest of the least statistics that decide, over 1, 2, 4 … rates from each rate on."""
    bound: float
    """The look's boundary, below which nothing is decided."""


class Rule(NamedTuple):
    """Decisions of a design."""

    design: Design
    limits: list[Limits]
    """Limits of each look."""
    sign: int = 1
    """1 validates; -1 rejects, the statistic's sign turned round."""

    def least(self, look: int, b: Ints, c: Ints) -> Floats:
        """Return the least statistic that decides at these worse and better documents; infinite where none does."""
        first, last, greatest, bound = self.limits[look]
        flips = b + c
        # The upper limit is that of at least twice the worse documents (quantgate.judge.stats.group_sequential).
        upper = np.maximum(flips, 2 * b) if look and self.sign > 0 else flips
        n = self.design.looks[look]
        begin, end = first[np.minimum(flips, n)], last[np.minimum(upper, n)]
        level = np.frexp(np.maximum(end - begin, 1))[1] - 1
        table = np.stack(greatest)
        greatest_least = np.maximum(table[level, begin], table[level, end - (1 << level)])
        return np.asarray(np.maximum(greatest_least, bound))


class Outcome(NamedTuple):
    """Result of a candidate under a rule."""

    decided: float
    """Probability of being validated (or rejected, as the rule says)."""
    stops: Floats
    """Probability that a candidate ends at each look, with a verdict or, at the last, without."""

    def documents(self, looks: tuple[int, ...]) -> tuple[float, int]:
        """Return the documents to the end: the average and the 90th percentile."""
        last = int(np.searchsorted(np.cumsum(self.stops), 0.9 - 1e-9))
        return float(self.stops @ np.array(looks)), looks[min(last, len(looks) - 1)]


def rule_of(design: Design, rates: tuple[float, float], sign: int = 1) -> Rule:
    """Return the decisions of the shipped test at every look.

    Args:
        design: looks, margin, alpha.
        rates: the least and the greatest flip rate needed.
        sign: 1 for what validates, -1 for what rejects (at alpha itself, one task being required).
    """
    grid = _rates(design, rates)
    allowed = _allowed(design, grid, sign)
    limits = []
    bounds = [*boundaries(design.looks, design.alpha), -np.inf]
    for look, (n, bound) in enumerate(zip(design.looks, bounds, strict=True)):
        low, high = confidence_set(np.arange(n + 1), n, len(design.looks))
        # One more on either side, so that no set falls between two rates of the grid.
        first = np.maximum(np.searchsorted(grid, np.maximum(low, design.margin)) - 1, 0)
        last = np.minimum(np.searchsorted(grid, np.maximum(high, design.margin)) + 1, grid.size)
        # Beyond the grid nothing is known; it reaches past every flip count that matters.
        last = np.where(high > grid[-1] + 1e-12, grid.size + 1, last)
        greatest = [np.append(allowed[look], np.inf)]
        for reach in 2 ** np.arange(int(np.log2(grid.size + 1))):
            shifted = np.append(greatest[-1][reach:], np.full(reach, np.inf))
            greatest.append(np.maximum(greatest[-1], shifted))
        limits.append(Limits(first, last, greatest, bound))
    return Rule(design, limits, sign)


def outcome_of(rule: Rule, flip_rate: float, delta: float) -> Outcome:
    """Return how often a candidate with these probabilities is validated, and after which look.

    Args:
        rule: the decisions.
        flip_rate: a fraction.
        delta: the true quality delta, a fraction, its absolute value at most the flip rate.
    """
    looks = rule.design.looks
    (walk,) = walks(looks, np.array([(flip_rate - delta) / 2]), np.array([(flip_rate + delta) / 2]))
    stops = np.zeros(len(looks))
    for look, paths in enumerate(walk.path_densities()):
        statistic = rule.sign * statistics_of(paths, looks[look], rule.design.margin)
        ended = statistic >= rule.least(look, *_counts(paths))
        stops[look] = paths.density[ended].sum()
        paths.density[ended] = 0
    decided = float(stops.sum())
    stops[-1] += 1 - decided
    return Outcome(decided, stops)


def _rates(design: Design, rates: tuple[float, float]) -> Floats:
    """Return flip rates a step apart on the scale of their standard error, past every confidence set that matters."""
    n, margin = design.looks[-1], design.margin
    first = design.looks[0]
    reach = 9.5 / (2 * np.sqrt(first))
    step = (0.25 if n <= 2000 else 2.0) / (2 * np.sqrt(n))
    ends = np.arcsin(np.sqrt(np.array([max(rates[0], margin), rates[1]])))
    least = float(np.arcsin(np.sqrt(margin)))
    angles = np.arange(max(least, ends[0] - reach), min(np.pi / 2, ends[1] + reach) + step, step)
    return np.unique((np.sin(np.minimum(angles, np.pi / 2)) ** 2).clip(margin, 1.0))


def _allowed(design: Design, grid: Floats, sign: int) -> Floats:
    """Return the least statistic with a p-value of at most alpha, for each look and flip rate."""
    bounds = [*boundaries(design.looks, design.alpha), np.inf]
    allowed = np.full((len(design.looks), grid.size), np.inf)
    added = missed(grid, design.looks) + INTERPOLATION
    edge = (grid + design.margin) / 2, (grid - design.margin) / 2
    for index, walk in enumerate(walks(design.looks, *edge)):
        before = 0.0
        for look, paths in enumerate(walk.path_densities()):
            statistic = sign * statistics_of(paths, design.looks[look], design.margin)
            # The tail from each statistic on: what stopped before, and what stops now.
            slots = np.clip(np.ceil((statistic - _STATISTICS[0]) / STEP), 0, _STATISTICS.size).astype(
                np.int64
            )
            mass = np.bincount(slots.ravel(), paths.density.ravel(), _STATISTICS.size + 1)
            tail = before + mass[::-1].cumsum()[::-1]
            spent = 4 * TAIL * (look + 1) + added[index]
            good = np.flatnonzero(tail + spent <= design.alpha)
            if good.size:
                # Every statistic greater than the one before is in this slot or a later one.
                allowed[look, index] = _STATISTICS[0] + (good[0] - 1) * STEP + 1e-12
            ended = statistic >= bounds[look] - 1e-9
            before += paths.density[ended].sum()
            paths.density[ended] = 0
    return allowed


def _counts(paths: PathDensity) -> tuple[Ints, Ints]:
    b, c = (np.arange(window.first, window.first + window.size) for window in (paths.worse, paths.better))
    return b[:, None], c


def statistics_of(paths: PathDensity, n: int, margin: float) -> Floats:
    """Return the statistic of every outcome that a look's paths cover, of the density's shape."""
    b, c = _counts(paths)
    return score_at_loss(b, c, n, margin)
