"""How often clustered and partial-credit tasks are validated: `python -m benchmarks.clusters --seed 0 --trials 500`.

Simulated documents go through the judge's own p-values (warehouse/cluster_test.py, warehouse/bounded_test.py,
warehouse/exact_test.py). At a true delta of minus the margin the rate is that of false validation and must be at most
alpha; at a true delta of 0 it is power. Tables in markdown, each rate with its Monte-Carlo standard error.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from warehouse.bounded_test import p_noninferior_bounded
from warehouse.cluster_test import ClusterTotals, p_overdispersed, p_robust
from warehouse.exact_test import p_noninferior
from warehouse.tango import Floats, score_at_loss

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


def cluster_sizes(rng: Generator, cell: Clustered) -> NDArray[np.int64]:
    """Equal, or log-normal with a coefficient of variation near 1.1, as MMLU's subjects."""
    if cell.sizes == "equal":
        return np.full(cell.clusters, cell.documents)
    drawn = cell.documents * np.exp(rng.normal(0, 0.9, cell.clusters) - 0.405)
    return np.asarray(np.maximum(1, np.rint(drawn)), dtype=np.int64)


def clustered_totals(rng: Generator, cell: Clustered, sizes: NDArray[np.int64]) -> ClusterTotals:
    """Worse and better documents of every cluster, of the sizes given.

    ``mixed``: a cluster has its own chances of worse, better and same (Dirichlet), correlated as the cell says.
    ``flips``: a cluster has its own flip rate (beta), and which way a document flips is independent.
    ``broken``: a rare kind of cluster loses a share of its documents; elsewhere flips are independent and even.
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
        lost = rng.binomial(sizes, np.where(rng.random(sizes.size) < share, -cell.delta / share, 0.0))
        flips = rng.binomial(sizes - lost, cell.flip_rate + cell.delta)
        also = rng.binomial(flips, 0.5)
        worse, better = lost + also, flips - also
    return ClusterTotals(sizes.astype(np.float64), worse.astype(np.float64), better.astype(np.float64))


def broken_share(cell: Clustered) -> float:
    """The share of broken clusters whose losses are correlated as the cell says."""
    loss = min(1.0, (cell.correlation * cell.flip_rate + cell.delta**2) / -cell.delta)
    return -cell.delta / loss


class Rates(NamedTuple):
    """Shares of trials that validate: by documents alone, with the robust tests too, as shipped with all of them."""

    documents: float
    robust: float
    shipped: float


def clustered_rates(rng: Generator, cell: Clustered, trials: int) -> Rates:
    """Validate ``trials`` simulated tasks."""
    counts = np.zeros(3, dtype=np.int64)
    sizes = cluster_sizes(rng, cell)
    n = int(sizes.sum())
    for _ in range(trials):
        totals = clustered_totals(rng, cell, sizes)
        worse, better = int(totals.worse.sum()), int(totals.better.sum())
        # Tango's statistic stands for the documents' test, and the exact one, which takes longest, comes last.
        if score_at_loss(worse, better, n, cell.margin) < norm.isf(ALPHA):
            continue
        counts[0] += 1
        if p_robust(totals, -cell.margin) > ALPHA:
            continue
        counts[1] += 1
        if p_overdispersed(totals, cell.margin, inferior=False) <= ALPHA:
            counts[2] += p_noninferior(worse, better, n, cell.margin) <= ALPHA
    return Rates(*(counts / trials))


def partial_credit(rng: Generator, kind: str, n: int, delta: float) -> Floats:
    """Differences of ``n`` documents whose mean is ``delta``.

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


def bounded_rates(rng: Generator, kind: str, n: int, margin: float, delta: float, trials: int) -> Rates:
    """Shares validated by the normal approximation, by rounding to -1, 0, 1 and the exact test, and as shipped."""
    counts = np.zeros(3, dtype=np.int64)
    for _ in range(trials):
        d = partial_credit(rng, kind, n, delta)
        error = float(d.std(ddof=1)) / math.sqrt(n)
        counts[0] += float(d.mean()) + margin >= float(norm.isf(ALPHA)) * error
        rounded = np.where(rng.random(n) < np.abs(d), np.sign(d), 0)
        counts[1] += p_noninferior(int((rounded < 0).sum()), int((rounded > 0).sum()), n, margin) <= ALPHA
        counts[2] += p_noninferior_bounded(d, margin, ALPHA) <= ALPHA
    return Rates(*(counts / trials))


def shown(rate: float, trials: int) -> str:
    """A rate with its standard error."""
    return f"{rate:.3f} ± {math.sqrt(max(rate * (1 - rate), 1 / trials) / trials):.3f}"


def false_validation_cells(how: str) -> list[Clustered]:
    """The declared grid: clusters 20 to 100, equal and unequal, correlation 0 to 0.3, flips 1 to 20 %."""
    points = [(0.01, 0.01), (0.05, 0.01), (0.02, 0.02), (0.05, 0.05), (0.2, 0.05)]
    if how == "broken":
        points = [(0.02, 0.01), (0.1, 0.02), (0.2, 0.05)]
    few = ((20, 100), (0.1, 0.3)) if how != "mixed" else ((20, 50, 100), (0.0, 0.1, 0.3))
    grid = itertools.product(few[0], ((15, "equal"), (60, "unequal")), few[1], points)
    return [
        Clustered(how, clusters, documents, sizes, correlation, flips, margin, -margin)
        for clusters, (documents, sizes), correlation, (flips, margin) in grid
    ]


def report_false_validation(rng: Generator, trials: int, say: Callable[[str], None]) -> None:
    """For each way of clustering, the worst cells and the number beyond alpha."""
    for how in ("mixed", "flips", "broken"):
        found = [(clustered_rates(rng, cell, trials), cell) for cell in false_validation_cells(how)]
        limit = float(binom.ppf(1 - 0.05 / len(found), trials, ALPHA)) / trials
        beyond = [sum(rates[k] > limit for rates, _ in found) for k in range(3)]
        say(
            f"\n**{how}**: {len(found)} cells of {trials} trials; beyond alpha by more than chance (over {limit:.3f},"
            f" 5 % for all cells together): documents alone {beyond[0]}, with the robust test {beyond[1]},"
            f" as shipped {beyond[2]}.\n"
        )
        say(
            "| clusters | documents | correlation | flips | margin | documents alone | with robust | as shipped |"
            + (" at most one broken |" if how == "broken" else "")
        )
        say("|---|---|---|---|---|---|---|---|" + ("---|" if how == "broken" else ""))
        for rates, cell in sorted(found, key=lambda pair: -pair[0].shipped)[: 24 if how == "broken" else 5]:
            line = (
                f"| {cell.clusters} | {cell.documents}, {cell.sizes} | {cell.correlation:g} | {cell.flip_rate:.0%} "
                f"| {cell.margin:.0%} | " + " | ".join(shown(rate, trials) for rate in rates) + " |"
            )
            say(
                line
                + (
                    f" {float(binom.cdf(1, cell.clusters, broken_share(cell))):.3f} |"
                    if how == "broken"
                    else ""
                )
            )


def report_power(rng: Generator, trials: int, say: Callable[[str], None]) -> None:
    """Power of clustered tasks at a true delta of 0."""
    say(
        "\n| clusters | documents | correlation | flips | margin | documents alone | with robust | as shipped |"
    )
    say("|---|---|---|---|---|---|---|---|")
    shapes = [(57, 246, "unequal", 0.05, 0.01), (40, 50, "equal", 0.05, 0.02), (25, 50, "equal", 0.03, 0.02)]
    shapes += [(400, 5, "equal", 0.05, 0.02)]
    for (clusters, documents, sizes, flips, margin), correlation in itertools.product(
        shapes, (0.0, 0.01, 0.05)
    ):
        cell = Clustered("mixed", clusters, documents, sizes, correlation, flips, margin, 0.0)
        rates = clustered_rates(rng, cell, trials)
        say(
            f"| {clusters} | {documents}, {sizes} | {correlation:g} | {flips:.0%} | {margin:.0%} | "
            + " | ".join(shown(rate, trials) for rate in rates)
            + " |"
        )


def report_partial_credit(rng: Generator, trials: int, say: Callable[[str], None]) -> None:
    """False validation and power of partial credit, at the documents that the normal limit needs for 0.8."""
    say("\n| scores | documents | margin | true delta | normal limit | rounded, exact | as shipped |")
    say("|---|---|---|---|---|---|---|")
    for kind, margin in itertools.product(("f1", "repeats", "thirds"), (0.01, 0.02, 0.05)):
        variance = float(partial_credit(rng, kind, 200_000, 0.0).var())
        enough = math.ceil(variance * float(norm.isf(ALPHA) + norm.isf(0.2)) ** 2 / margin**2)
        for n, delta in ((enough, -margin), (enough, 0.0), (math.ceil(1.25 * enough), 0.0)):
            rates = bounded_rates(rng, kind, n, margin, delta, trials)
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
        "--part", choices=("false", "power", "partial"), action="append", help="all if not named"
    )
    options = parser.parse_args(argv)

    def say(line: str) -> None:
        print(line, flush=True)

    parts = {"false": report_false_validation, "power": report_power, "partial": report_partial_credit}
    for name, part in parts.items():
        if options.part is None or name in options.part:
            begun = time.monotonic()
            # Each part has a seed of its own, so that one alone gives the same figures.
            part(np.random.default_rng([options.seed, *name.encode()]), options.trials, say)
            print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
