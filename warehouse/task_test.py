"""One task of a candidate: its figures, its p-values, its outcome and what it would still take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quantgate.model.config import Policy
from quantgate.model.records import TaskVerdict
from warehouse.bounded_test import (
    bounded_interval,
    documents_needed_bounded,
    p_inferior_bounded,
    p_noninferior_bounded,
)
from warehouse.exact_test import documents_needed, flip_rate_upper, p_degraded, p_inferior, p_noninferior
from warehouse.pairing import Counts, DeclaredTask, Pairs, counts_of
from warehouse.tango import Floats, tango_interval


def figures_of(task: DeclaredTask, evidence: Pairs | Counts, policy: Policy) -> TaskVerdict:
    """The figures of one task, before anything is decided on them.

    Args:
        task: the task.
        evidence: its pairs; or their counts, which say all there is to say of right/wrong scores.
        policy: holds the family's margin and the error rate.
    """
    margin = policy.families[task.family].margin
    counts = evidence if isinstance(evidence, Counts) else counts_of(evidence)
    if counts is not None:
        n, worse, better, baseline_right, candidate_right = counts
        test = "exact"
        baseline_score, candidate_score, delta = baseline_right / n, candidate_right / n, (better - worse) / n
        interval = tango_interval(worse, better, n, policy.alpha)
        noninferior, inferior = (p(worse, better, n, margin) for p in (p_noninferior, p_inferior))
        any_loss = p_degraded(worse, better)
    else:
        assert isinstance(evidence, Pairs)
        differences = evidence.candidate - evidence.baseline
        n, test = differences.size, "bounded"
        worse, better = int(np.count_nonzero(differences < 0)), int(np.count_nonzero(differences > 0))
        baseline_score, candidate_score = float(evidence.baseline.mean()), float(evidence.candidate.mean())
        delta = float(differences.mean())
        interval = bounded_interval(differences, policy.alpha)
        noninferior, inferior = (p(differences, margin) for p in (p_noninferior_bounded, p_inferior_bounded))
        any_loss = p_inferior_bounded(differences, 0.0)
    return TaskVerdict(
        task=task.task,
        family=task.family,
        margin=margin,
        pairs=n,
        baseline_score=baseline_score,
        candidate_score=candidate_score,
        quality_delta=delta,
        ci_low=interval.low,
        ci_high=interval.high,
        worse=worse,
        better=better,
        flip_rate=(worse + better) / n,
        p_noninferior=noninferior,
        p_inferior=inferior,
        p_inferior_holm=inferior,
        p_degraded=any_loss,
        degraded=any_loss <= policy.alpha,
        outcome="undecided",
        test=test,
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
    if task.p_inferior_holm <= policy.alpha:
        reason = f"{seen}: worse than the margin allows (Holm's p {task.p_inferior_holm:.2g})"
        return task.model_copy(update={"outcome": "fail", "reason": reason})
    shown = task.p_noninferior <= policy.alpha
    if shown and task.pairs >= least:
        return task.model_copy(update={"outcome": "pass", "reason": f"{seen}: p {task.p_noninferior:.2g}"})
    if shown:
        reason = f"{seen}: {task.pairs} documents, and the policy asks for at least {least}"
        return task.model_copy(update={"documents_needed": least, "reason": reason})
    needed, supposed = _needed(task, policy)
    if needed is None:
        rest = "more documents would rather reject it"
    else:
        needed = max(needed, least)
        rest = f"has {task.pairs} documents and needs about {needed} {supposed}"
    reason = f"{seen}: undecided (p {task.p_noninferior:.2g}); {rest}"
    return task.model_copy(update={"documents_needed": needed, "reason": reason})


def _needed(task: TaskVerdict, policy: Policy) -> tuple[int | None, str]:
    """Paired documents, in all, that would show non-inferiority, and the true delta that this supposes.

    It is planned at delta 0. Where that many are there already, the delta seen is the obstacle and is planned
    for instead; None where it lies beyond the margin or all but there.
    """
    plan = documents_needed if task.test == "exact" else documents_needed_bounded
    flip_rate = flip_rate_upper(task.worse + task.better, task.pairs, policy.alpha)
    needed = plan(flip_rate, task.margin, policy.alpha, policy.planned_power)
    if needed > task.pairs:
        return needed, "if its true delta is 0"
    if task.quality_delta <= -0.99 * task.margin:
        return None, ""
    delta = min(task.quality_delta, 0.0)
    needed = plan(flip_rate, task.margin, policy.alpha, policy.planned_power, delta)
    return max(needed, task.pairs + 1), "if its true delta is the one seen"


def _points(fraction: float) -> str:
    """A fraction of a score as percentage points."""
    return f"{100 * fraction:.4g} points"
