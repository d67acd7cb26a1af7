"""Compute how far the observed delta and the corrected one are off, by sums over every outcome that ends a candidate.

A candidate ends where the shipped test validates or rejects it, one task being required, or at the last look.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.verdicts.cells import Rule, statistics_of
from quantgate.judge.stats.path_probabilities import walks
from quantgate.judge.stats.stopped_estimate import corrected_estimate
from quantgate.judge.stats.tango import Floats

_LEAST = 1e-7
"""Outcomes less probable than this are left out; all of them together have less than a thousandth."""


def bias_of(passes: Rule, fails: Rule, flip_rate: float, delta: float) -> dict[str, Any]:
    """Return how far estimates of delta are off, over all candidates and over those that stop early.

    Args:
        passes: what validates at each look.
        fails: what rejects.
        flip_rate: a fraction.
        delta: the true one, a fraction, its absolute value at most the flip rate.

    Returns:
        For ``raw`` and ``corrected``: ``mean`` and ``median`` of estimate minus delta (fractions), and the mean of
        those that stop early (``early_mean``); ``early``, the probability of an early stop, and ``left_out``.
    """
    chances, ends = _ends(passes, fails, flip_rate, delta)
    design = passes.design
    looks = np.array(design.looks)[ends[:, 0]]
    early = looks < design.looks[-1]
    figures: dict[str, Any] = {
        "n": design.looks[-1],
        "margin": design.margin,
        "flip_rate": flip_rate,
        "delta": delta,
        "left_out": float(1 - chances.sum()),
        "early": float(chances[early].sum()),
    }
    corrected = np.array([corrected_estimate(b, c, look, design) for look, b, c in ends.tolist()])
    for name, estimates in (("raw", (ends[:, 2] - ends[:, 1]) / looks), ("corrected", corrected)):
        off = estimates - delta
        figures[name] = {
            "mean": _mean(off, chances),
            "median": _median(off, chances),
            "early_mean": _mean(off[early], chances[early]),
        }
    return figures


def _ends(passes: Rule, fails: Rule, flip_rate: float, delta: float) -> tuple[Floats, Any]:
    """Return the outcomes at which a candidate ends: their probabilities, and look, worse and better documents."""
    design = passes.design
    (walk,) = walks(design.looks, np.array([(flip_rate - delta) / 2]), np.array([(flip_rate + delta) / 2]))
    chances, ends = [], []
    for look, paths in enumerate(walk.path_densities()):
        b = paths.worse.first + np.arange(paths.worse.size)[:, None]
        c = paths.better.first + np.arange(paths.better.size)
        statistic = statistics_of(paths, design.looks[look], design.margin)
        ended = (statistic >= passes.least(look, b, c)) | (-statistic >= fails.least(look, b, c))
        if look == len(design.looks) - 1:
            ended = np.ones_like(ended)
        rows, columns = np.nonzero(ended & (paths.density > _LEAST))
        chances.append(paths.density[rows, columns])
        ends.append(
            np.column_stack(
                [np.full(rows.size, look), paths.worse.first + rows, paths.better.first + columns]
            )
        )
        paths.density[ended] = 0
    return np.concatenate(chances), np.concatenate(ends)


def _mean(values: Floats, chances: Floats) -> float:
    return float(values @ chances / chances.sum())


def _median(values: Floats, chances: Floats) -> float:
    """Return the middle of a distribution; half-way between two values where it lies between them."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(chances[order]) / chances.sum()
    first, last = np.searchsorted(below, 0.5 - 1e-9), np.searchsorted(below, 0.5 + 1e-9)
    return float(values[order][[first, last]].mean())
