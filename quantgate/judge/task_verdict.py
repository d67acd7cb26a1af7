"""One task of a candidate: its figures, its p-values, its outcome and what it would still take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr
from scipy.stats import norm

from quantgate.bundles.manifest import TaskResult
from quantgate.judge.cluster_figures import (
    clusters_wanting,
    documents_wanting,
    too_few_clusters,
    with_clusters,
)
from quantgate.judge.document_order import look_sizes
from quantgate.judge.interim import Between, Look, look_of
from quantgate.judge.pairing import Counts, DeclaredTask, Pairs, counts_of
from quantgate.judge.stats.betting import (
    bounded_interval,
    documents_needed_bounded,
    p_inferior_bounded,
    p_noninferior_bounded,
)
from quantgate.judge.stats.boundaries import boundaries, inflation
from quantgate.judge.stats.exact import (
    documents_needed,
    flip_rate_upper,
    p_degraded,
    p_inferior,
    p_noninferior,
)
from quantgate.judge.stats.group_sequential import p_inferior_at, p_noninferior_at, sequential_interval
from quantgate.judge.stats.tango import Floats, Interval, tango_interval
from quantgate.model.config.policy import Policy
from quantgate.model.enums import Outcome, TestKind
from quantgate.model.records import TaskVerdict

_CLUSTERS_WAIT = (
    "undecided until all {everything} documents are answered, since they share subjects or passages"
)


class Figures(NamedTuple):
    """What a test says of one task."""

    test: TestKind
    interval: Interval
    p_noninferior: float
    p_inferior: float
    p_degraded: float
    held: str = ""
    """Why nothing may be decided on these documents; empty where it may."""


def figures_of(task: DeclaredTask, evidence: Pairs | Counts, policy: Policy) -> TaskVerdict:
    """The figures of one task, before anything is decided on them.

    ``reason`` is set where nothing may be decided, whatever the figures.

    Args:
        task: as it was declared, or as it ended.
        evidence: its pairs; or their counts, which say all there is to say of right/wrong scores.
        policy: margins, error rate and looks.
    """
    margin = policy.families[task.family].margin
    counts = evidence if isinstance(evidence, Counts) else counts_of(evidence)
    clusters = evidence.clusters if isinstance(evidence, Pairs) else None
    n = evidence.pairs if isinstance(evidence, Counts) else evidence.baseline.size
    look = look_of(task, n, policy)
    everything = look.design.looks[-1]
    tested: Look | Between = look
    if clusters is not None and n == everything:
        # Nothing is decided on its way, so no look before has spent any of alpha.
        tested = Look(look.design._replace(looks=(n,)), 0)
    if counts is not None:
        _, worse, better, baseline_right, candidate_right = counts
        baseline_score, candidate_score, delta = baseline_right / n, candidate_right / n, (better - worse) / n
        found = _right_wrong(worse, better, tested)
    else:
        assert isinstance(evidence, Pairs)
        differences = evidence.candidate - evidence.baseline
        delta = float(differences.mean())
        worse, better = int(np.count_nonzero(differences < 0)), int(np.count_nonzero(differences > 0))
        baseline_score, candidate_score = float(evidence.baseline.mean()), float(evidence.candidate.mean())
        found = _partial(differences, tested)
    figures = TaskVerdict(
        task=task.task,
        family=task.family,
        margin=margin,
        pairs=n,
        baseline_score=baseline_score,
        candidate_score=candidate_score,
        quality_delta=delta,
        ci_low=found.interval.low,
        ci_high=found.interval.high,
        worse=worse,
        better=better,
        flip_rate=(worse + better) / n,
        p_noninferior=found.p_noninferior,
        p_inferior=found.p_inferior,
        p_inferior_holm=found.p_inferior,
        p_degraded=found.p_degraded,
        degraded=found.p_degraded <= policy.alpha,
        outcome=Outcome.UNDECIDED,
        test=found.test,
        documents_available=task.documents_available if isinstance(task, TaskResult) else None,
        looks=look.number,
        reason=found.held,
    )
    if isinstance(evidence, Counts) or evidence.clusters is None:
        return figures
    figures = with_clusters(figures, evidence.candidate - evidence.baseline, evidence.clusters, policy)
    # The clusters' test knows of no looks.
    return figures if n == everything else hold(figures, _CLUSTERS_WAIT.format(everything=everything))


def _right_wrong(worse: int, better: int, look: Look | Between) -> Figures:
    """The exact test of scores that are right or wrong, with every look before this one counted."""
    design, any_loss = look.design, p_degraded(worse, better)
    if isinstance(look, Between):
        bounds = boundaries(design.looks, design.alpha)
        level = float(ndtr(-bounds[0])) if bounds else design.alpha
        interval = tango_interval(worse, better, look.documents, level)
        return Figures(TestKind.EXACT, interval, 1.0, 1.0, any_loss, look.reason)
    if len(design.looks) == 1:
        counts = worse, better, design.looks[0]
        interval = tango_interval(*counts, design.alpha)
        noninferior, inferior = (p(*counts, design.margin) for p in (p_noninferior, p_inferior))
        return Figures(TestKind.EXACT, interval, noninferior, inferior, any_loss)
    at_look = worse, better, look.at, design
    noninferior, inferior = (p(*at_look) for p in (p_noninferior_at, p_inferior_at))
    return Figures(TestKind.EXACT, sequential_interval(*at_look), noninferior, inferior, any_loss)


def _partial(differences: Floats, look: Look | Between) -> Figures:
    """The test of any scores from 0 to 1: its capital may be looked at after any document (Ville 1939)."""
    design = look.design
    bets = design.alpha, design.looks[-1]
    return Figures(
        TestKind.BETTING,
        bounded_interval(differences, *bets),
        p_noninferior_bounded(differences, design.margin, *bets),
        p_inferior_bounded(differences, design.margin, *bets),
        p_inferior_bounded(differences, 0.0, *bets),
    )


def hold(task: TaskVerdict, reason: str) -> TaskVerdict:
    """A task on which nothing may be decided, whatever its figures."""
    return task.model_copy(update={"reason": reason, "p_noninferior": 1.0, "p_inferior": 1.0})


def not_paired(task: TaskResult, policy: Policy, reason: str) -> TaskVerdict:
    """A task on its way whose documents can't be paired: nothing is known of it."""
    return TaskVerdict(
        task=task.task,
        family=task.family,
        margin=policy.families[task.family].margin,
        pairs=0,
        baseline_score=math.nan,
        candidate_score=math.nan,
        quality_delta=math.nan,
        ci_low=-1.0,
        ci_high=1.0,
        worse=0,
        better=0,
        flip_rate=math.nan,
        p_noninferior=1.0,
        p_inferior=1.0,
        p_inferior_holm=1.0,
        p_degraded=1.0,
        degraded=False,
        outcome=Outcome.UNDECIDED,
        documents_available=task.documents_available,
        reason=reason,
    )


def decide_interim(task: TaskVerdict, policy: Policy, required: int) -> TaskVerdict:
    """Settle the outcome of one of ``required`` tasks on its way: inferior at alpha / required only."""
    return _decide_task(
        task.model_copy(update={"p_inferior_holm": min(1.0, required * task.p_inferior)}), policy
    )


def decide_tasks(tested: Sequence[TaskVerdict], policy: Policy) -> list[TaskVerdict]:
    """Correct the p-values of inferiority for their number and settle each task's outcome."""
    if not tested:
        return []
    adjusted = holm_adjusted(np.array([task.p_inferior for task in tested]))
    return [
        _decide_task(task.model_copy(update={"p_inferior_holm": float(p)}), policy)
        for task, p in zip(tested, adjusted, strict=True)
    ]


def holm_adjusted(p_values: Floats) -> Floats:
    """Holm's step-down adjustment (Scandinavian Journal of Statistics 6 (1979) 65-70).

    Written out: statsmodels' takes a second to import and collects garbage at every call.
    """
    order = np.argsort(p_values)
    stepped = np.maximum.accumulate(p_values[order] * np.arange(p_values.size, 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _decide_task(task: TaskVerdict, policy: Policy) -> TaskVerdict:
    """Settle one task's outcome, with its reason and the documents it still needs."""
    least = policy.families[task.family].min_documents
    seen = f"{task.task}: delta {_points(task.quality_delta)} with a margin of {_points(task.margin)}"
    few = too_few_clusters(task, policy)
    if few is not None:
        return task.model_copy(update={"reason": f"{seen}: {few}"})
    if not task.reason and task.p_inferior_holm <= policy.alpha:
        reason = f"{seen}: worse than the margin allows (Holm's p {task.p_inferior_holm:.2g})"
        return task.model_copy(update={"outcome": Outcome.FAIL, "reason": reason})
    shown = not task.reason and task.p_noninferior <= policy.alpha
    if shown and task.pairs >= least:
        return task.model_copy(
            update={"outcome": Outcome.PASS, "reason": f"{seen}: p {task.p_noninferior:.2g}"}
        )
    if shown:
        reason = f"{seen}: {task.pairs} documents, and the policy asks for at least {least}"
        return task.model_copy(update={"documents_needed": least, "reason": reason})
    needed, supposed = _needed(task, policy)
    if needed is None:
        rest = "more documents would rather reject it"
    else:
        needed = max(needed, least, documents_wanting(task, policy))
        if task.reason and task.clusters is not None:
            needed = max(needed, task.documents_available or 0)
        rest = f"has {task.pairs} documents and needs about {needed} {supposed}"
        if task.documents_available is not None and needed > task.documents_available:
            rest += f", more than the {task.documents_available} that this task has"
    rest += clusters_wanting(task, policy)
    state = task.reason or f"undecided (p {task.p_noninferior:.2g}{_at_look(task)})"
    return task.model_copy(update={"documents_needed": needed, "reason": f"{seen}: {state}; {rest}"})


def _at_look(task: TaskVerdict) -> str:
    """Where on its way a task was judged, if it goes on from there."""
    if task.documents_available is None or task.pairs >= task.documents_available:
        return ""
    return f" at look {task.looks}, with {task.documents_available - task.pairs} documents to go on with"


def _needed(task: TaskVerdict, policy: Policy) -> tuple[int | None, str]:
    """Paired documents, in all, that would show non-inferiority, and the true delta that this supposes.

    It is planned at delta 0. Where that many are there already, the delta seen is the obstacle and is planned
    for instead; None where it lies beyond the margin or all but there.
    """
    plan, times = documents_needed_bounded, 1.0
    if task.test is TestKind.EXACT:
        plan, times = documents_needed, _inflation(task, policy)
    flip_rate = _variance(task, policy)
    needed = math.ceil(times * plan(flip_rate, task.margin, policy.alpha, policy.planned_power))
    if needed > task.pairs:
        return needed, "if its true delta is 0"
    if task.quality_delta <= -0.99 * task.margin:
        return None, ""
    delta = min(task.quality_delta, 0.0)
    needed = math.ceil(times * plan(flip_rate, task.margin, policy.alpha, policy.planned_power, delta))
    return max(needed, task.pairs + 1), "if its true delta is the one seen"


def _inflation(task: TaskVerdict, policy: Policy) -> float:
    """How many times the documents of one look the looks of its design take."""
    available = max(task.documents_available or 0, task.pairs)
    if not policy.looks or (task.looks == 1 and task.pairs == available):
        return 1.0
    looks = look_sizes(available, policy.looks, policy.families[task.family].min_documents)
    return inflation(looks, policy.alpha, policy.planned_power)


def _variance(task: TaskVerdict, policy: Policy) -> float:
    """An upper bound of the variance of a document's difference, of its share of its cluster's where it has one.

    For right/wrong scores it is the flip rate's. Otherwise it is read off the interval, which holds it already.
    """
    flip_rate = flip_rate_upper(task.worse + task.better, task.pairs, policy.alpha)
    if task.test is TestKind.EXACT:
        return flip_rate
    seen = task.pairs * ((task.ci_high - task.ci_low) / (2 * float(norm.isf(policy.alpha)))) ** 2
    # Documents of a cluster that are wholly alike count as one.
    return min(seen, flip_rate * (task.largest_cluster or 1))


def _points(fraction: float) -> str:
    """A fraction of a score as percentage points."""
    shown = f"{100 * fraction:.4g}"
    return f"{shown} point{'' if shown in {'1', '-1'} else 's'}"
