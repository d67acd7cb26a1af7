"""Measure how often clustered and partial-credit tasks pass: `python -m benchmarks.clusters --seed 0 --trials 500`.

Simulated documents go through the judge's own p-values (clustered.py, betting.py, exact.py and
group_sequential.py of quantgate/judge/stats). At a true delta of minus the margin the rate is that of false
validation and must be at most alpha; at a true delta of 0 it is power. The output is tables in markdown, each rate
with its Monte-Carlo standard error.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from benchmarks.strata import report_strata, shown
from quantgate.judge.stats.betting import p_noninferior_betting
from quantgate.judge.stats.clustered import ClusterTotals, clusters_needed, p_noninferior_clusters, p_robust
from quantgate.judge.stats.exact import p_noninferior
from quantgate.judge.stats.tango import Floats, score_at_loss

ALPHA = 0.05
Generator = np.random.Generator


class Clustered(NamedTuple):
    """One cell of the simulation of clustered documents."""

    how: str
    clusters: int
    documents: int
    """Mean documents of a cluster."""
    sizes: str
    correlation: float
    flip_rate: float
    margin: float
    delta: float


SPREAD = {"uneven": 0.3, "unequal": 0.9}
"""Spread of log sizes: a coefficient of variation of 0.3, as of passages, and near 1.0, as of MMLU's subjects."""


def cluster_sizes(rng: Generator, cell: Clustered) -> NDArray[np.int64]:
    """Draw sizes: equal, or log-normal up to a largest one, which a hundredth of them have."""
    if cell.sizes == "equal":
        return np.full(cell.clusters, cell.documents)
    spread = SPREAD[cell.sizes]
    normal = np.minimum(rng.normal(0, 1, cell.clusters), float(norm.isf(0.01)))
    drawn = cell.documents * np.exp(spread * normal - spread**2 / 2)
    return np.asarray(np.maximum(1, np.rint(drawn)), dtype=np.int64)


class Flips(NamedTuple):
    """All, worse and better documents of every cluster, arrays of shape (clusters,)."""

    documents: NDArray[np.int64]
    worse: NDArray[np.int64]
    better: NDArray[np.int64]

    @property
    def totals(self) -> ClusterTotals:
        """Totals as the judge uses them."""
        return ClusterTotals(self.documents.astype(np.float64), (self.better - self.worse).astype(np.float64))


def clustered_flips(rng: Generator, cell: Clustered, sizes: NDArray[np.int64]) -> Flips:
    """Draw worse and better documents of clusters of the given sizes.

    ``mixed``: a cluster has its own probabilities of worse, better and same (Dirichlet), correlated as the cell says.
    ``flips``: a cluster has its own flip rate (beta), and which way a document flips is independent.
    ``broken``: a rare kind of cluster loses a share of its documents; elsewhere flips are independent and even.
    ``large``: the largest clusters, which hold 8 % of all documents, are the ones that break.
    """
    worse_rate, better_rate = (cell.flip_rate - cell.delta) / 2, (cell.flip_rate + cell.delta) / 2
    spread = (1 - cell.correlation) / cell.correlation if cell.correlation else math.inf
    if cell.how == "mixed":
        chances = np.tile([worse_rate, better_rate, 1 - cell.flip_rate], (sizes.size, 1))
        if cell.correlation:
            gamma = rng.gamma(chances * spread + 1e-300)
            chances = gamma / gamma.sum(axis=1, keepdims=True)
        worse, better, _ = rng.multinomial(sizes, chances).T
    elif cell.how == "flips":
        rates = (
            rng.beta(cell.flip_rate * spread, (1 - cell.flip_rate) * spread, sizes.size)
            if cell.correlation
            else np.full(sizes.size, cell.flip_rate)
        )
        flips = rng.binomial(sizes, rates)
        worse = rng.binomial(flips, worse_rate / cell.flip_rate)
        better = flips - worse
    else:
        share = broken_share(cell)
        broken = rng.random(sizes.size) < share if cell.how == "broken" else sizes > large(cell).size
        lost = rng.binomial(sizes, np.where(broken, -cell.delta / share, 0.0))
        flips = rng.binomial(sizes - lost, cell.flip_rate + cell.delta)
        worse_flips = rng.binomial(flips, 0.5)
        worse, better = lost + worse_flips, flips - worse_flips
    return Flips(sizes, worse, better)


LARGE = 0.08
"""Share of the documents that the largest clusters hold."""


class Large(NamedTuple):
    """Bound of the large clusters."""

    size: int
    """A cluster with more documents than this is large."""
    share: float
    """Share of all documents in large clusters: as near to ``LARGE`` as whole sizes allow."""


@lru_cache
def large(cell: Clustered) -> Large:
    """Return the bound of the large clusters of a population."""
    many = cluster_sizes(np.random.default_rng(0), cell._replace(clusters=1_000_000))
    documents = np.bincount(many) * np.arange(many.max() + 1)
    above = documents[::-1].cumsum()[::-1] / documents.sum()
    least = int(np.flatnonzero(above <= LARGE)[0])
    return Large(least - 1, float(above[least]))


def broken_share(cell: Clustered) -> float:
    """Return the share of broken clusters that gives the cell's correlation, or of documents in large clusters."""
    if cell.how == "large":
        return large(cell).share
    loss = min(1.0, (cell.correlation * cell.flip_rate + cell.delta**2) / -cell.delta)
    return -cell.delta / loss


class Rates(NamedTuple):
    """Shares of trials that validate, in the order of the tables' columns."""

    first: float
    second: float
    shipped: float


def clustered_rates(rng: Generator, cell: Clustered, trials: int) -> Rates:
    """Validate ``trials`` simulated tasks: by documents alone (Tango), cluster-robust, and as shipped."""
    counts = np.zeros(3, dtype=np.int64)
    for _ in range(trials):
        flips = clustered_flips(rng, cell, cluster_sizes(rng, cell))
        worse, better, n = (int(part.sum()) for part in (flips.worse, flips.better, flips.documents))
        counts[0] += score_at_loss(worse, better, n, cell.margin) >= norm.isf(ALPHA)
        # The shipped p-value is at least the robust one.
        if p_robust(flips.totals, -cell.margin) <= ALPHA:
            counts[1] += 1
            counts[2] += p_noninferior_clusters(flips.totals, cell.margin, ALPHA) <= ALPHA
    return Rates(*(counts / trials))


def partial_credit(rng: Generator, kind: str, n: int, delta: float) -> Floats:
    """Draw differences of ``n`` documents whose mean is ``delta``.

    ``f1``: a quarter of the documents differ, by a beta(1, 3) amount. ``repeats``: the mean of four sampled answers
    a side, each document with its own chance of a right one; a loss turns right answers wrong. ``thirds``: a tenth
    of the documents differ by one or two thirds.
    """
    if kind == "repeats":
        right = rng.beta(0.8, 0.4, n)
        kept = right * (1 + delta / (0.8 / 1.2))
        return np.asarray((rng.binomial(4, kept) - rng.binomial(4, right)) / 4)
    share, amounts, mean = {
        "f1": (0.25, rng.beta(1, 3, n), 0.25),
        "thirds": (0.1, rng.integers(1, 3, n) / 3, 0.5),
    }[kind]
    drawn = rng.random(n)
    return np.where(drawn < (share - delta / mean) / 2, -amounts, np.where(drawn < share, amounts, 0.0))


def betting_rates(rng: Generator, kind: str, n: int, margin: float, delta: float, trials: int) -> Rates:
    """Return the shares validated by the normal approximation, by rounding to -1, 0, 1, and as shipped."""
    counts = np.zeros(3, dtype=np.int64)
    for _ in range(trials):
        d = partial_credit(rng, kind, n, delta)
        error = float(d.std(ddof=1)) / math.sqrt(n)
        counts[0] += float(d.mean()) + margin >= float(norm.isf(ALPHA)) * error
        rounded = np.where(rng.random(n) < np.abs(d), np.sign(d), 0)
        counts[1] += p_noninferior(int((rounded < 0).sum()), int((rounded > 0).sum()), n, margin) <= ALPHA
        counts[2] += p_noninferior_betting(d, margin, ALPHA) <= ALPHA
    return Rates(*(counts / trials))


def false_validation_cells(how: str) -> list[Clustered]:
    """Return the declared grid: clusters 20 to 400, equal and unequal, correlation 0 to 0.3, flips 1 to 20 %."""
    points = [(0.01, 0.01), (0.05, 0.01), (0.02, 0.02), (0.05, 0.05), (0.2, 0.05)]
    if how in ("broken", "large"):
        # Flips beyond the margin are even.
        points = [(0.02, 0.01), (0.1, 0.02), (0.2, 0.05)]
    correlations = {"mixed": (0.0, 0.1, 0.3), "flips": (0.1, 0.3), "broken": (0.1, 0.3), "large": (0.0,)}[how]
    shapes = ((15, "equal"), (30, "uneven"), (60, "unequal"))[how == "large" :]
    grid = itertools.product((20, 100, 400), shapes, correlations, points)
    return [
        Clustered(how, clusters, documents, sizes, correlation, flips, margin, -margin)
        for clusters, (documents, sizes), correlation, (flips, margin) in grid
    ]


_HEAD = (
    "| clusters | documents | correlation | flips | margin | documents alone | cluster-robust | as shipped |\n"
    "|---|---|---|---|---|---|---|---|"
)


def _row(cell: Clustered, rates: Rates, trials: int) -> str:
    return (
        f"| {cell.clusters} | {cell.documents}, {cell.sizes} | {cell.correlation:g} | {cell.flip_rate:.0%} "
        f"| {cell.margin:.0%} | " + " | ".join(shown(rate, trials) for rate in rates) + " |"
    )


def report_false_validation(rng: Generator, trials: int, say: Callable[[str], None]) -> None:
    """Report the worst cells of each way of clustering and the number beyond alpha."""
    for how in ("mixed", "flips", "broken", "large"):
        cells = [(clustered_rates(rng, cell, trials), cell) for cell in false_validation_cells(how)]
        limit = float(binom.ppf(1 - 0.05 / len(cells), trials, ALPHA)) / trials
        beyond = [sum(rates[k] > limit for rates, _ in cells) for k in range(3)]
        say(
            f"\n**{how}**: {len(cells)} cells of {trials} trials; beyond alpha by more than chance (over {limit:.3f},"
            f" 5 % for all cells together): documents alone {beyond[0]}, cluster-robust {beyond[1]},"
            f" as shipped {beyond[2]}.\n"
        )
        say(_HEAD)
        for rates, cell in sorted(cells, key=lambda pair: (-pair[0].shipped, -pair[0].second))[:6]:
            say(_row(cell, rates, trials))


def report_power(rng: Generator, trials: int, say: Callable[[str], None]) -> None:
    """Report the power of clustered tasks at a true delta of 0, and the least number of clusters."""
    say("\n| margin | clusters below which none without a flip is validated |\n|---|---|")
    for margin in (0.01, 0.02, 0.03, 0.05, 0.1):
        say(f"| {margin:.0%} | {clusters_needed(margin, ALPHA)} |")
    say(f"\n{_HEAD}")
    shapes = [
        (57, 246, "unequal", 0.05, 0.01),
        (400, 16, "equal", 0.02, 0.01),
        (800, 16, "uneven", 0.02, 0.01),
        (40, 50, "equal", 0.05, 0.02),
        (200, 25, "equal", 0.05, 0.02),
        (400, 5, "equal", 0.05, 0.02),
        (400, 16, "uneven", 0.05, 0.02),
        (100, 15, "equal", 0.05, 0.05),
        (200, 60, "uneven", 0.05, 0.05),
    ]
    for (clusters, documents, sizes, flips, margin), correlation in itertools.product(
        shapes, (0.0, 0.05, 0.1)
    ):
        cell = Clustered("mixed", clusters, documents, sizes, correlation, flips, margin, 0.0)
        say(_row(cell, clustered_rates(rng, cell, trials), trials))


def report_partial_credit(rng: Generator, trials: int, say: Callable[[str], None]) -> None:
    """Report false validation and power of partial credit, at the documents that the normal limit needs for 0.8."""
    say("\n| scores | documents | margin | true delta | normal limit | rounded, exact | as shipped |")
    say("|---|---|---|---|---|---|---|")
    for kind, margin in itertools.product(("f1", "repeats", "thirds"), (0.01, 0.02, 0.05)):
        variance = float(partial_credit(rng, kind, 200_000, 0.0).var())
        enough = math.ceil(variance * float(norm.isf(ALPHA) + norm.isf(0.2)) ** 2 / margin**2)
        for n, delta in ((enough, -margin), (enough, 0.0), (math.ceil(1.25 * enough), 0.0)):
            rates = betting_rates(rng, kind, n, margin, delta, trials)
            say(
                f"| {kind} | {n:,} | {margin:.0%} | {delta:+.0%} | "
                + " | ".join(shown(rate, trials) for rate in rates)
                + " |"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=500, help="of each cell")
    parser.add_argument(
        "--part", choices=("false", "power", "strata", "partial"), action="append", help="all if not named"
    )
    options = parser.parse_args(argv)

    def say(line: str) -> None:
        print(line, flush=True)

    parts = {
        "false": report_false_validation,
        "power": report_power,
        "strata": report_strata,
        "partial": report_partial_credit,
    }
    for name, part in parts.items():
        if options.part is None or name in options.part:
            begun = time.monotonic()
            # Each part has a seed of its own, so that one alone gives the same figures.
            part(np.random.default_rng([options.seed, *name.encode()]), options.trials, say)
            print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
