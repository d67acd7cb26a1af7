"""Plan how many documents a test needs, and what a number of documents can resolve; for planning only."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from scipy.stats import norm

from quantgate.judge.interim import look_sizes
from quantgate.judge.stats.boundaries import inflation
from quantgate.judge.stats.clustered import clusters_needed
from quantgate.judge.stats.exact import flip_rate_upper, p_noninferior
from quantgate.judge.stats.group_sequential import Design, p_noninferior_at
from quantgate.model.config.policy import Policy
from quantgate.model.enums import TestKind
from quantgate.model.records import TaskVerdict
from quantgate.model.words import counted

ASSUMED_FLIP_RATE = 0.10
"""Share of answers that change between precisions, where it is unknown: what is usual for a generation task."""

BETTING_OVERHEAD = 1.25
"""Documents that the betting test takes for each one of the normal limit (docs/benchmarks-clusters.md)."""

FIXED_SUBJECTS_HINT = (
    "; a suite's `fixed_subjects: true`, declared before the next run, asks about these very subjects"
)
"""Hint for a task with few subjects, appended to a reason."""


@lru_cache(maxsize=65536)
def documents_needed(
    variance: float, margin: float, alpha: float, power: float, delta: float = 0.0, overhead: float = 1.0
) -> int:
    """Return how many paired documents show non-inferiority: rho (z_alpha + z_beta)^2 / (margin + delta)^2.

    A normal approximation, for planning only.

    Args:
        variance: of a document's difference; of right/wrong scores the flip rate rho, a fraction, bounds it.
        margin: the non-inferiority margin, a fraction.
        alpha: one-sided error rate.
        power: planned probability of showing it.
        delta: the true delta planned for, a fraction above -margin.
        overhead: documents that the test takes for each one of the normal limit.
    """
    z = float(norm.isf(alpha) + norm.ppf(power))
    return math.ceil(overhead * variance * z**2 / (margin + delta) ** 2)


def more_documents_needed(task: TaskVerdict, policy: Policy) -> tuple[int | None, str]:
    """Return how many paired documents, in all, would show non-inferiority, and the true delta that this supposes.

    The plan supposes delta 0. Where the task has that many documents already, the observed delta is the obstacle, and
    the plan supposes that one; it is None where that delta lies beyond the margin or nearly there.
    """
    overhead, looks = BETTING_OVERHEAD, 1.0
    if task.test is TestKind.EXACT:
        overhead, looks = 1.0, _inflation(task, policy)
    planned = _variance(task, policy), task.margin, policy.alpha, policy.planned_power
    needed = math.ceil(looks * documents_needed(*planned, overhead=overhead))
    if needed > task.pairs:
        return needed, "if its true delta is 0"
    if task.quality_delta <= -0.99 * task.margin:
        return None, ""
    delta = min(task.quality_delta, 0.0)
    needed = math.ceil(looks * documents_needed(*planned, delta, overhead))
    return max(needed, task.pairs + 1), "if its true delta is the one seen"


def _inflation(task: TaskVerdict, policy: Policy) -> float:
    """Return how many times the documents of a single look a design with interim looks takes."""
    available = max(task.documents_available or 0, task.pairs)
    if not policy.looks or (task.looks == 1 and task.pairs == available):
        return 1.0
    looks = look_sizes(available, policy.looks, policy.families[task.family].min_documents)
    return inflation(looks, policy.alpha, policy.planned_power)


def _variance(task: TaskVerdict, policy: Policy) -> float:
    """Return an upper bound of the variance of a document's difference (with clusters: of its share of its cluster's).

    For right/wrong scores it is the flip rate's. Otherwise it is derived from the interval, which contains it already.
    """
    flip_rate = flip_rate_upper(task.worse + task.better, task.pairs, policy.alpha)
    if task.test is TestKind.EXACT:
        return flip_rate
    seen = task.pairs * ((task.ci_high - task.ci_low) / (2 * float(norm.isf(policy.alpha)))) ** 2
    # Documents of a cluster that are wholly alike count as one.
    return min(seen, flip_rate * (task.largest_cluster or 1))


def least_clusters(margin: float, policy: Policy) -> int:
    """Return the number of equal clusters below which a policy passes no task unless it gains.

    Args:
        margin: the loss that would matter, a fraction.
        policy: its error rate and its least number of clusters.
    """
    return max(policy.min_clusters, clusters_needed(margin, policy.alpha))


def least_documents(task: TaskVerdict, policy: Policy) -> int:
    """Return the documents below which no task of such clusters passes unless it gains; 0 without shared clusters."""
    return (task.largest_cluster or 0) * least_clusters(task.margin, policy)


def resolvable_points(n: int, flip_rate: float, alpha: float, power: float) -> float:
    """Return the least margin, in points of 100, that n paired documents decide with the planned power at delta 0.

    100 (z_alpha + z_beta) sqrt(rho / n), a normal approximation, and never below what the exact test shows
    without any flip: 100 (1 - alpha^(1/n)).

    Args:
        n: documents.
        flip_rate: rho, a fraction.
        alpha: one-sided error rate.
        power: planned probability of showing it.
    """
    z = float(norm.isf(alpha) + norm.ppf(power))
    without_flips = 1 - math.exp(math.log(alpha) / n)
    return 100 * max(z * math.sqrt(flip_rate / n), without_flips)


def least_without_flips(margin: float, policy: Policy, least: int = 1) -> int:
    """Return the fewest paired documents on which the exact test passes a candidate that changes no answer.

    Args:
        margin: the loss that would matter, a fraction.
        policy: its error rate and looks.
        least: documents that the policy asks for.
    """
    return _least_without_flips(margin, policy.alpha, policy.looks, least)


@lru_cache(maxsize=4096)
def _least_without_flips(margin: float, alpha: float, shares: tuple[float, ...], least: int) -> int:
    n = max(least, math.floor(math.log(alpha) / math.log1p(-margin)))
    while not _passes_without_flips(Design(look_sizes(n, shares, least), margin, alpha)):
        n += 1
    return n


def _passes_without_flips(design: Design) -> bool:
    if len(design.looks) == 1:
        return p_noninferior(0, 0, design.looks[0], design.margin) <= design.alpha
    return any(p_noninferior_at(0, 0, look, design) <= design.alpha for look in range(len(design.looks)))


class SeenFlips(NamedTuple):
    """Share of answers that earlier runs changed."""

    rate: float
    """A fraction."""
    precision: str
    """Of the candidates."""
    what: str
    """Whose answers: a task's own, or those of its family."""


def resolution_line(
    task: str, n: int, margin: float, policy: Policy, least: int = 1, seen: SeenFlips | None = None
) -> str:
    """Say in one sentence, before a task is run, whether its documents are enough.

    Only where no flip rate would make them enough, the task cannot decide.

    Args:
        task: its name.
        n: documents.
        margin: the non-inferiority margin, a fraction.
        policy: its error rate, looks and planned power.
        least: documents that the policy asks for.
        seen: what earlier runs show; None supposes `ASSUMED_FLIP_RATE`.
    """
    wanted, documents = f"{100 * margin:g} point{'' if margin == 0.01 else 's'}", counted(n, "document", ",")
    without_flips = least_without_flips(margin, policy, least)
    if n < without_flips:
        why = "the policy asks for" if without_flips == least else "even if no answer changes it takes"
        return f"{task}: cannot decide {wanted}: {documents}, and {why} {without_flips:,}"
    rate = seen.rate if seen else ASSUMED_FLIP_RATE
    best = resolvable_points(n, rate, policy.alpha, policy.planned_power)
    needed = max(without_flips, documents_needed(rate, margin, policy.alpha, policy.planned_power))
    enough = best <= 100 * margin
    if seen:
        fits = "can decide" if enough else "may be too few for"
        changed = f"earlier {seen.precision} runs changed {100 * rate:.2g} % of the answers of {seen.what}"
        return f"{task}: {fits} {wanted}: {documents}; {changed}: needs about {needed:,}"
    if enough:
        shown = shown_points(best, margin)
        return f"{task}: can decide {wanted}: {documents}, {shown} at {100 * rate:g} % flips"
    return (
        f"{task}: may be too few for {wanted}: {documents}; if {100 * rate:g} % of the answers change it takes "
        f"{needed:,}, with fewer changes {n:,} can do"
    )


class KnownScore(NamedTuple):
    """Score of a baseline on a task, published or of an earlier run."""

    task: str
    metric: str
    filter: str
    score: float
    """A fraction."""
    source: str


def insensitive_line(known: KnownScore, floor: float, margin: float) -> str | None:
    """Say before a task is run that its baseline scores too little for a loss to show; None where it may show.

    Args:
        known: what the baseline scored elsewhere, or the lower end of that.
        floor: score of an answer that ignores the question, a fraction.
        margin: the non-inferiority margin, a fraction.
    """
    if known.score - floor > margin:
        return None
    points = f"{100 * margin:g} point{'' if margin == 0.01 else 's'}"
    return (
        f"{known.task}: may validate nothing: the baseline scores {100 * known.score:.3g} % ({known.source}), not more "
        f"than {points} above the {100 * floor:.3g} % of an answer that ignores the question"
    )


def shown_points(points: float, margin: float) -> str:
    """Write points with two digits, or with a third where two would put them on the margin's other side."""
    two = f"{points:.2g}"
    return two if (float(two) <= 100 * margin) == (points <= 100 * margin) else f"{points:.3g}"


def clusters_line(task: str, clusters: int, margin: float, policy: Policy) -> str | None:
    """Say that a task has too few subjects or passages to validate without a gain; None where it has enough.

    Args:
        task: its name.
        clusters: subjects or passages that its documents have.
        margin: a fraction.
        policy: its error rate and its least number of clusters.
    """
    least = least_clusters(margin, policy)
    if clusters >= least:
        return None
    return (
        f"{task}: can validate gains only: {clusters} subjects or passages, and {least} are the least"
        f"{FIXED_SUBJECTS_HINT}"
    )
