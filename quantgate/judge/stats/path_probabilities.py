"""Exact probabilities of what happens to a paired comparison from look to look, at a given flip rate.

Of the documents since the last look b turn out worse and c better, multinomial with the chances
p_worse = (rho + margin) / 2 and p_better = (rho - margin) / 2, the edge of H0. The paths that are still going on
are a density over (b, c) on a window; from look to look it is convolved with the density of what comes new
(by FFT), and what lies in the look's region is taken out. What is left at the end never was in a region.
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
"""Statistics this near are the same one, set apart by rounding: either side counts as in the region."""


class Cut(NamedTuple):
    """A look: after how many documents, and which statistics of H0 end the path there."""

    documents: int
    statistic: float
    """With Tango's statistic at least this the path ends; at most minus this, for inferiority."""


class Window(NamedTuple):
    """Counts that a density is kept for: ``size`` of them from ``first`` on."""

    first: int
    size: int


class State(NamedTuple):
    """The paths that still go on when a look's documents are there."""

    density: Floats
    """Probability of (b, c), shape (worse.size, better.size); setting an entry to 0 ends the paths there."""
    worse: Window
    better: Window


def crossing(rates: Floats, cuts: Sequence[Cut], margin: float, *, inferior: bool) -> Floats:
    """P(the statistic is in the region of at least one look) at delta = -margin.

    Args:
        rates: flip rates, at least the margin, shape (r,), fractions.
        cuts: the looks, documents ascending; what is asked of the last may differ from its boundary.
        margin: the loss that H0 claims, a fraction above 0 and below 1.
        inferior: whether the region is that of low statistics.

    Returns:
        The probabilities, shape (r,): never too small, and at most 4 ``TAIL`` a look too great.
    """
    documents = [cut.documents for cut in cuts]
    every = walks(documents, (rates + margin) / 2, (rates - margin) / 2)
    bounds = [
        _Bound(cut, margin, [walk.better[look] for walk in every], inferior=inferior)
        for look, cut in enumerate(cuts)
    ]
    going_on = np.empty(len(every))
    for index, walk in enumerate(every):
        for bound, state in zip(bounds, walk.states(), strict=True):
            bound.take_out(state)
        going_on[index] = state.density.sum()
    return np.asarray(1 - going_on + 4 * TAIL * len(cuts))


class Walk(NamedTuple):
    """Documents answered from look to look, each worse or better with a fixed chance."""

    documents: tuple[int, ...]
    p_worse: float
    p_better: float
    worse: list[Window]
    """Counts kept at each look."""
    better: list[Window]
    new_worse: list[Window]
    """Counts kept of what comes new to each look."""
    new_better: list[Window]

    def states(self) -> Iterator[State]:
        """The paths at each look; those that the caller takes out of a density don't reach the next."""
        state: State | None = None
        before = 0
        for look, documents in enumerate(self.documents):
            here, new = (self.worse[look], self.better[look]), (self.new_worse[look], self.new_better[look])
            density = _multinomial(documents - before, (self.p_worse, self.p_better), *new)
            if state is not None:
                density = _convolved(state, density, new, here)
            state, before = State(density, *here), documents
            yield state


def walks(documents: Sequence[int], p_worse: Floats, p_better: Floats) -> list[Walk]:
    """A walk for each pair of chances, with windows that hold all but ``TAIL`` at either end.

    Args:
        documents: at each look, ascending.
        p_worse: chances that a document turns out worse, shape (r,).
        p_better: chances that it turns out better, shape (r,).
    """
    steps = np.diff(documents, prepend=0)
    windows = [
        _windows(np.asarray(counts), chances)
        for counts in (documents, steps)
        for chances in (p_worse, p_better)
    ]
    return [
        Walk(tuple(documents), *one)
        for one in zip(p_worse.tolist(), p_better.tolist(), *windows, strict=True)
    ]


def _windows(documents: Ints, chances: Floats) -> list[list[Window]]:
    """For each chance and each number of documents the counts that hold all but ``TAIL`` at either end."""
    first, last = (
        np.maximum(0, quantile(TAIL, documents, chances[:, None])).astype(np.int64)
        for quantile in (binom.ppf, binom.isf)
    )
    return [
        [Window(int(a), int(b - a + 1)) for a, b in zip(*ends, strict=True)]
        for ends in zip(first, last, strict=True)
    ]


def _multinomial(n: int, chances: tuple[float, float], worse: Window, better: Window) -> Floats:
    """The density of (b, c) among n documents on a window, shape (worse.size, better.size)."""
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
    state: State, new: Floats, steps: tuple[Window, Window], wanted: tuple[Window, Window]
) -> Floats:
    """The density of the sum on the wanted window.

    The transform is periodic with at least the wanted window's size, so that only what lies outside, which is
    at most 2 ``TAIL`` in either direction, is found in the wrong place.
    """
    windows = (state.worse, state.better)
    sizes = [
        next_fast_len(max(w.size, a.size, b.size), real=True)
        for w, a, b in zip(wanted, windows, steps, strict=True)
    ]
    periodic = irfft2(rfft2(state.density, sizes) * rfft2(new, sizes), sizes)
    rows, columns = (
        (w.first - a.first - b.first + np.arange(w.size)) % size
        for w, a, b, size in zip(wanted, windows, steps, sizes, strict=True)
    )
    return np.asarray(periodic[rows[:, None], columns])


class _Bound:
    """For each number of better documents the last b whose statistic is in the region (not in it: inferior)."""

    def __init__(self, cut: Cut, margin: float, windows: Sequence[Window], *, inferior: bool) -> None:
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

    def take_out(self, state: State) -> None:
        """End the paths that lie in the region."""
        last = self._last[state.better.first - self._first :][: state.better.size]
        cut = np.clip(last + 1 - state.worse.first, 0, state.worse.size)
        rows = np.arange(state.worse.size)[:, None]
        state.density[:] *= rows < cut if self._inferior else rows >= cut
