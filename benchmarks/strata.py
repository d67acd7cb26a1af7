"""Fixed subjects: how often a task is validated at the margin where one subject, or every one a little, loses.

The documents of a task with fixed subjects are judged as independent ones. They are less than that: of each subject
there are always as many, so counts vary less than under one rate for all. Part of `python -m benchmarks.clusters`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from quantgate.judge.document_order import look_sizes
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
    """Log-normal shares of all documents, at least one each."""
    shares = np.exp(rng.normal(0, 0.9, cell.subjects))
    sizes = np.maximum(1, np.floor(cell.documents * shares / shares.sum())).astype(np.int64)
    sizes[np.argmax(sizes)] += cell.documents - sizes.sum()
    return np.asarray(sizes)


def subject_rates(cell: Strata, sizes: Ints) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Chances of worse and of better documents in each subject; all together they lose the cell's delta.

    ``even``: every subject loses alike. ``few``: the smallest subjects that can bear it lose half of their documents,
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
    """The subject of each document, in an order that holds of every subject its share."""
    start = rng.random(sizes.size)
    places = np.concatenate(
        [(np.arange(size) + begin) / size for size, begin in zip(sizes, start, strict=True)]
    )
    return np.asarray(np.repeat(np.arange(sizes.size), sizes)[np.argsort(places)])


def answered(rng: np.random.Generator, cell: Strata, looks: tuple[int, ...]) -> tuple[Ints, Ints]:
    """Worse and better documents up to each look."""
    sizes = subject_sizes(rng, cell)
    worse_rate, better_rate = subject_rates(cell, sizes)
    worse, better, before = [], [], np.zeros(cell.subjects, dtype=np.int64)
    subject = order(rng, sizes)
    for look in looks:
        so_far = np.bincount(subject[:look], minlength=cell.subjects)
        new, before = so_far - before, so_far
        found = rng.multinomial(
            new, np.stack([worse_rate, better_rate, 1 - worse_rate - better_rate], axis=1)
        )
        worse.append(found[:, 0].sum())
        better.append(found[:, 1].sum())
    return np.cumsum(worse), np.cumsum(better)


def strata_rates(rng: np.random.Generator, cell: Strata, trials: int) -> tuple[float, float]:
    """Shares validated by the test at the end, and on the way by the looks of the policy `standard`."""
    looks = look_sizes(cell.documents, load_policy("standard").looks, 100)
    design = Design(looks, cell.margin, ALPHA)
    fixed = on_the_way = 0
    for _ in range(trials):
        worse, better = answered(rng, cell, looks)
        fixed += p_noninferior(int(worse[-1]), int(better[-1]), cell.documents, cell.margin) <= ALPHA
        on_the_way += any(
            p_noninferior_at(int(b), int(c), at, design) <= ALPHA
            for at, (b, c) in enumerate(zip(worse, better, strict=True))
        )
    return fixed / trials, on_the_way / trials


def graded(rng: np.random.Generator, cell: Strata) -> NDArray[np.float64]:
    """Differences of scores from 0 to 1, in the order asked: who changes does so by half a point on average."""
    sizes = subject_sizes(rng, cell)
    worse_rate, better_rate = subject_rates(cell._replace(delta=2 * cell.delta), sizes)
    subject = order(rng, sizes)
    chance = rng.random(cell.documents)
    worse = chance < worse_rate[subject]
    better = ~worse & (chance < (worse_rate + better_rate)[subject])
    return np.asarray(rng.beta(2, 2, cell.documents) * (better.astype(float) - worse))


def graded_rates(rng: np.random.Generator, cell: Strata, trials: int) -> tuple[float, float]:
    """Shares of partial credit validated by the normal limit at the end, and by the bets at any look."""
    normal = bets = 0
    for _ in range(trials):
        differences = graded(rng, cell)
        spread = float(differences.std()) / math.sqrt(cell.documents)
        normal += float(differences.mean()) + cell.margin > float(norm.isf(ALPHA)) * spread
        bets += p_noninferior_betting(differences, cell.margin, ALPHA) <= ALPHA
    return normal / trials, bets / trials


def shown(rate: float, trials: int) -> str:
    """A rate with its standard error."""
    return f"{rate:.3f} ± {math.sqrt(max(rate * (1 - rate), 1 / trials) / trials):.3f}"


def report_strata(rng: np.random.Generator, trials: int, say: Callable[[str], None]) -> None:
    """False validation at the margin, and power at a true delta of 0, of right and wrong and of partial credit."""
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
        told = f"| {subjects} | {documents:,} | {how if delta else 'none'} | {flips:.0%} | {margin:.0%} "
        say(told + f"| {cell.delta:+.0%} | {cells} |")
    limit = float(binom.ppf(1 - 0.05 / 8, trials, ALPHA)) / trials
    say(f"\nBeyond alpha by more than chance: over {limit:.3f}. Highest: {worst[0]:.3f} and {worst[1]:.3f}.")
