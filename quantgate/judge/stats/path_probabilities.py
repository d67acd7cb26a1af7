"""Compute exact probabilities of what happens to a paired comparison from look to look, at a given flip rate.

Of the documents since the last look b turn out worse and c better, multinomial with the chances
p_worse = (rho + margin) / 2 and p_better = (rho - margin) / 2, the edge of H0. The paths that go on
are a density over (b, c) on a window; from look to look it is convolved with the density of the new documents
(by FFT), and the part in the look's region is removed. What is left at the end never was in a region.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.special import gammaln, xlogy
from scipy.stats import binom

from quantgate.judge.stats.tango import Floats, Ints, score_at_loss

TAIL = 1e-7
"""Probability beyond each end of the windows of worse and of better documents."""

_TIE = 1e-9
"""Statistics this near count as equal, as rounding may separate them: either side counts as in the region."""


class Cut(NamedTuple):
    """A look: after how many documents, and at which statistics of H0 it ends a path."""

    documents: int
    statistic: float
    """With Tango's statistic at least this the path ends; at most minus this, for inferiority."""


class Window(NamedTuple):
    """Counts that a density covers: ``size`` of them from ``first`` on."""

    first: int
    size: int


class PathDensity(NamedTuple):
    """Density of the paths that go on until a look's documents are answered."""

    density: Floats
    """Probability of (b, c), shape (worse.size, better.size); setting an entry to 0 ends the paths there."""
    worse: Window
    better: Window


def crossing(rates: Floats, cuts: Sequence[Cut], margin: float, *, inferior: bool) -> Floats:
    """Return P(the statistic is in the region of at least one look) at delta = -margin.

    Args:
        rates: flip rates, at least the margin, shape (r,), fractions.
        cuts: the looks, documents ascending; the last one's statistic may differ from its boundary.
        margin: the loss that H0 claims, a fraction above 0 and below 1.
        inferior: True for the region of low statistics.

    Returns:
        The probabilities, shape (r,): never too small, and at most 4 ``TAIL`` a look too great.
    """
    documents = [cut.documents for cut in cuts]
    rate_walks = walks(documents, (rates + margin) / 2, (rates - margin) / 2)
    bounds = [
        _Bound(cut, margin, [walk.better[look] for walk in rate_walks], inferior=inferior)
        for look, cut in enumerate(cuts)
    ]
    going_on = np.empty(len(rate_walks))
    for index, walk in enumerate(rate_walks):
        for bound, paths in zip(bounds, walk.path_densities(), strict=True):
            bound.end_paths(paths)
        going_on[index] = paths.density.sum()
    return np.asarray(1 - going_on + 4 * TAIL * len(cuts))


class Walk(NamedTuple):
    """Documents answered from look to look, each worse or better with a fixed probability."""

    documents: tuple[int, ...]
    p_worse: float
    p_better: float
    worse: list[Window]
    """Counts covered at each look."""
    better: list[Window]
    new_worse: list[Window]
    """Counts covered of the new documents of each look."""
    new_better: list[Window]

    def path_densities(self) -> Iterator[PathDensity]:
        """Yield the paths at each look; those that the caller removes from a density don't reach the next look."""
        paths: PathDensity | None = None
        before = 0
        for look, documents in enumerate(self.documents):
            windows = self.worse[look], self.better[look]
            new_windows = self.new_worse[look], self.new_better[look]
            density = _multinomial(documents - before, (self.p_worse, self.p_better), *new_windows)
            if paths is not None:
                density = _convolved(paths, density, new_windows, windows)
            paths, before = PathDensity(density, *windows), documents
            yield paths


def walks(documents: Sequence[int], p_worse: Floats, p_better: Floats) -> list[Walk]:
    """Return a walk for each pair of probabilities, with windows that cover all but ``TAIL`` at either end.

    Args:
        documents: at each look, ascending.
        p_worse: probabilities that a document turns out worse, shape (r,).
        p_better: probabilities that it turns out better, shape (r,).
    """
    steps = np.diff(documents, prepend=0)
    windows = [
        _windows(np.asarray(counts), chances)
        for counts in (documents, steps)
        for chances in (p_worse, p_better)
    ]
    return [
        Walk(tuple(documents), *walk)
        for walk in zip(p_worse.tolist(), p_better.tolist(), *windows, strict=True)
    ]


def _windows(documents: Ints, chances: Floats) -> list[list[Window]]:
    """Return the counts that cover all but ``TAIL`` at either end, for each probability and number of documents."""
    first, last = (
        np.maximum(0, quantile(TAIL, documents, chances[:, None])).astype(np.int64)
        for quantile in (binom.ppf, binom.isf)
    )
    return [
        [Window(int(a), int(b - a + 1)) for a, b in zip(*ends, strict=True)]
        for ends in zip(first, last, strict=True)
    ]


def _multinomial(n: int, chances: tuple[float, float], worse: Window, better: Window) -> Floats:
    """Return the density of (b, c) among n documents on a window, shape (worse.size, better.size)."""
    b, c = (np.arange(window.first, window.first + window.size) for window in (worse, better))
    # The last factor depends on b + c alone: one row for each b, shifted by one.
    same = n - worse.first - better.first - np.arange(worse.size + better.size - 1)
    none = same < 0
    same[none] = 0
    rest = xlogy(same, max(0.0, 1 - sum(chances))) - gammaln(same + 1)
    rest[none] = -np.inf
    of_worse = xlogy(b, chances[0]) - gammaln(b + 1) + gammaln(n + 1)
    of_better = xlogy(c, chances[1]) - gammaln(c + 1)
    return np.exp(of_worse[:, None] + of_better + sliding_window_view(rest, better.size))


def _convolved(
    paths: PathDensity, new: Floats, steps: tuple[Window, Window], wanted: tuple[Window, Window]
) -> Floats:
    """Return the density of the sum on the wanted window.

    The transform is periodic with at least the wanted window's size, so that only what lies outside, which is
    at most 2 ``TAIL`` in either direction, ends up at a wrong count.
    """
    windows = (paths.worse, paths.better)
    sizes = [
        next_fast_len(max(w.size, a.size, b.size), real=True)
        for w, a, b in zip(wanted, windows, steps, strict=True)
    ]
    periodic = irfft2(rfft2(paths.density, sizes) * rfft2(new, sizes), sizes)
    rows, columns = (
        (w.first - a.first - b.first + np.arange(w.size)) % size
        for w, a, b, size in zip(wanted, windows, steps, sizes, strict=True)
    )
    return np.asarray(periodic[rows[:, None], columns])


class _Bound:
    """The last b in the region (not in it: inferior), for each number of better documents."""

    def __init__(self, cut: Cut, margin: float, windows: Sequence[Window], *, inferior: bool) -> None:
        """Search the last b by bisection over all windows' counts of better documents."""
        first = min(window.first for window in windows)
        last = max(window.first + window.size for window in windows)
        better = np.arange(first, min(last, cut.documents + 1))
        threshold = -cut.statistic + _TIE if inferior else cut.statistic - _TIE
        self._first, self._inferior = first, inferior
        inside, outside = np.full(better.shape, -1, dtype=np.int64), cut.documents - better + 1
        # The statistic falls with b at a fixed c.
        while np.any(outside - inside > 1):
            middle = (inside + outside) // 2
            above = score_at_loss(middle, better, cut.documents, margin) > threshold
            split = outside - inside > 1
            inside = np.where(above & split, middle, inside)
            outside = np.where(above | ~split, outside, middle)
        self._last = inside

    def end_paths(self, paths: PathDensity) -> None:
        """End the paths that lie in the region."""
        last = self._last[paths.better.first - self._first :][: paths.better.size]
        cut = np.clip(last + 1 - paths.worse.first, 0, paths.worse.size)
        rows = np.arange(paths.worse.size)[:, None]
        paths.density[:] *= rows < cut if self._inferior else rows >= cut
