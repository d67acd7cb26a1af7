"""Measure how often a task with fixed subjects is validated at the margin, where one subject or all subjects lose.

The documents of a task with fixed subjects are judged as independent. Their number per subject is fixed, though, so
counts vary less than under one rate for all. Part of `python -m benchmarks.clusters`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from quantgate.judge.interim import look_sizes
from quantgate.judge.stats.betting import p_noninferior_betting
from quantgate.judge.stats.exact import p_noninferior
from quantgate.judge.stats.group_sequential import Design, p_noninferior_at
from quantgate.model.config.policy import load_policy

ALPHA = 0.05
Ints = NDArray[np.int64]


class Strata(NamedTuple):
    """One cell of the simulation."""

    how: str
    subjects: int
    documents: int
    flip_rate: float
    margin: float
    delta: float


def subject_sizes(rng: np.random.Generator, cell: Strata) -> Ints:
    """Draw log-normal shares of all documents, at least one each."""
    shares = np.exp(rng.normal(0, 0.9, cell.subjects))
    sizes = np.maximum(1, np.floor(cell.documents * shares / shares.sum())).astype(np.int64)
    sizes[np.argmax(sizes)] += cell.documents - sizes.sum()
    return np.asarray(sizes)


def subject_rates(cell: Strata, sizes: Ints) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return probabilities of worse and of better documents in each subject, which lose the cell's delta together.

    ``even``: every subject loses alike. ``few``: the smallest subjects lose half of their documents, as many as needed,
    and all others flip evenly both ways.
    """
    others = (cell.flip_rate + min(cell.delta, 0)) / 2 if cell.how == "few" else cell.flip_rate / 2
    worse, better = np.full(cell.subjects, others), np.full(cell.subjects, others)
    if cell.how == "even":
        return worse - cell.delta / 2, better + cell.delta / 2
    to_lose = -cell.delta * sizes.sum()
    for subject in np.argsort(sizes):
        lost = min(0.5 * sizes[subject], to_lose)
        worse[subject] += lost / sizes[subject]
        to_lose -= lost
    return worse, better


def order(rng: np.random.Generator, sizes: Ints) -> Ints:
    """Draw the subject of each document, in an order in which every subject always has its share."""
    start = rng.random(sizes.size)
    positions = np.concatenate(
        [(np.arange(size) + begin) / size for size, begin in zip(sizes, start, strict=True)]
    )
    return np.asarray(np.repeat(np.arange(sizes.size), sizes)[np.argsort(positions)])


def answered(rng: np.random.Generator, cell: Strata, looks: tuple[int, ...]) -> tuple[Ints, Ints]:
    """Draw worse and better documents up to each look."""
    sizes = subject_sizes(rng, cell)
    worse_rate, better_rate = subject_rates(cell, sizes)
    worse, better, before = [], [], np.zeros(cell.subjects, dtype=np.int64)
    subject = order(rng, sizes)
    for look in looks:
        so_far = np.bincount(subject[:look], minlength=cell.subjects)
        new, before = so_far - before, so_far
        flips = rng.multinomial(
            new, np.stack([worse_rate, better_rate, 1 - worse_rate - better_rate], axis=1)
        )
        worse.append(flips[:, 0].sum())
        better.append(flips[:, 1].sum())
    return np.cumsum(worse), np.cumsum(better)


def strata_rates(rng: np.random.Generator, cell: Strata, trials: int) -> tuple[float, float]:
    """Return the shares validated by the test at the end, and at the interim looks of the policy `standard`."""
    looks = look_sizes(cell.documents, load_policy("standard").looks, 100)
    design = Design(looks, cell.margin, ALPHA)
    fixed = at_a_look = 0
    for _ in range(trials):
        worse, better = answered(rng, cell, looks)
        fixed += p_noninferior(int(worse[-1]), int(better[-1]), cell.documents, cell.margin) <= ALPHA
        at_a_look += any(
            p_noninferior_at(int(b), int(c), at, design) <= ALPHA
            for at, (b, c) in enumerate(zip(worse, better, strict=True))
        )
    return fixed / trials, at_a_look / trials


def graded(rng: np.random.Generator, cell: Strata) -> NDArray[np.float64]:
    """Draw differences of scores from 0 to 1, in the order asked; those that change do so by 0.5 on average."""
    sizes = subject_sizes(rng, cell)
    worse_rate, better_rate = subject_rates(cell._replace(delta=2 * cell.delta), sizes)
    subject = order(rng, sizes)
    chance = rng.random(cell.documents)
    worse = chance < worse_rate[subject]
    better = ~worse & (chance < (worse_rate + better_rate)[subject])
    return np.asarray(rng.beta(2, 2, cell.documents) * (better.astype(float) - worse))


def graded_rates(rng: np.random.Generator, cell: Strata, trials: int) -> tuple[float, float]:
    """Return the shares of partial credit validated by the normal limit at the end, and by the betting test."""
    normal = betting = 0
    for _ in range(trials):
        differences = graded(rng, cell)
        spread = float(differences.std()) / math.sqrt(cell.documents)
        normal += float(differences.mean()) + cell.margin > float(norm.isf(ALPHA)) * spread
        betting += p_noninferior_betting(differences, cell.margin, ALPHA) <= ALPHA
    return normal / trials, betting / trials


def shown(rate: float, trials: int) -> str:
    """Write a rate with its standard error."""
    return f"{rate:.3f} ± {math.sqrt(max(rate * (1 - rate), 1 / trials) / trials):.3f}"


def report_strata(rng: np.random.Generator, trials: int, say: Callable[[str], None]) -> None:
    """Report false validation at the margin and power at a true delta of 0, of right/wrong and partial credit."""
    _table(rng, trials, say, strata_rates, ("at the end", "with looks"))
    say("\nPartial credit:")
    _table(rng, trials, say, graded_rates, ("normal limit", "as shipped"))


SHAPES = ((57, 14042, 0.03, 0.01), (14, 3000, 0.1, 0.02), (7, 1324, 0.05, 0.02), (3, 756, 0.1, 0.05))
"""Subjects, documents, flips and margin."""


def _table(
    rng: np.random.Generator,
    trials: int,
    say: Callable[[str], None],
    rates_of: Callable[[np.random.Generator, Strata, int], tuple[float, float]],
    heads: tuple[str, str],
) -> None:
    say(f"\n| subjects | documents | loss | flips | margin | true delta | {' | '.join(heads)} |")
    say("|---|---|---|---|---|---|---|---|")
    worst = [0.0, 0.0]
    for (subjects, documents, flips, margin), (how, delta) in itertools.product(
        SHAPES, (("even", -1), ("few", -1), ("even", 0))
    ):
        cell = Strata(how, subjects, documents, flips, margin, delta * margin)
        rates = rates_of(rng, cell, trials)
        if delta:
            worst = [max(pair) for pair in zip(worst, rates, strict=True)]
        cells = " | ".join(shown(rate, trials) for rate in rates)
        start = f"| {subjects} | {documents:,} | {how if delta else 'none'} | {flips:.0%} | {margin:.0%} "
        say(start + f"| {cell.delta:+.0%} | {cells} |")
    limit = float(binom.ppf(1 - 0.05 / 8, trials, ALPHA)) / trials
    say(f"\nBeyond alpha by more than chance: over {limit:.3f}. Highest: {worst[0]:.3f} and {worst[1]:.3f}.")
