"""Decide one task of a candidate: its figures, p-values and outcome, and the documents it still needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from quantgate.bundles.manifest import TaskResult
from quantgate.judge.interim import BetweenLooks, Look, available_of, look_of
from quantgate.judge.pairing import Counts, DeclaredTask, Pairs, counts_of
from quantgate.judge.power import FIXED_SUBJECTS_HINT, least_documents, more_documents_needed
from quantgate.judge.stats.baseline_score import BaselineScore, score_of_counts, score_of_documents
from quantgate.judge.stats.betting import betting_interval, p_inferior_betting, p_noninferior_betting
from quantgate.judge.stats.boundaries import boundaries
from quantgate.judge.stats.clustered import (
    ClusterTotals,
    cluster_interval,
    cluster_totals,
    p_degraded_clusters,
    p_inferior_clusters,
    p_noninferior_clusters,
)
from quantgate.judge.stats.exact import p_degraded, p_inferior, p_noninferior
from quantgate.judge.stats.group_sequential import (
    Design,
    p_inferior_at,
    p_noninferior_at,
    sequential_interval,
)
from quantgate.judge.stats.stopped_estimate import corrected_estimate
from quantgate.judge.stats.tango import Floats, Interval, tango_interval
from quantgate.model.config.policy import Policy
from quantgate.model.enums import Outcome, TestKind
from quantgate.model.records import TaskVerdict
from quantgate.model.words import counted

_CLUSTERS_WAIT = (
    "undecided until all {everything} documents are answered, because they share subjects or passages"
)


class _Seen(NamedTuple):
    """Observed figures of a task's pairs; scores and delta are fractions."""

    pairs: int
    worse: int
    better: int
    baseline_score: float
    candidate_score: float
    quality_delta: float

    @classmethod
    def of(cls, evidence: Pairs | Counts) -> _Seen:
        """Derive it from pairs of any scores, or from the counts of right/wrong ones."""
        if isinstance(evidence, Counts):
            n, worse, better, baseline_right, candidate_right, _ = evidence
            return cls(n, worse, better, baseline_right / n, candidate_right / n, (better - worse) / n)
        return cls(
            evidence.baseline.size,
            int(np.count_nonzero(evidence.differences < 0)),
            int(np.count_nonzero(evidence.differences > 0)),
            float(evidence.baseline.mean()),
            float(evidence.candidate.mean()),
            float(evidence.differences.mean()),
        )


class Figures(NamedTuple):
    """Result of a test of one task."""

    test: TestKind
    interval: Interval
    p_noninferior: float
    p_inferior: float
    p_degraded: float
    withheld: str = ""
    """Why nothing may be decided on these documents; empty where it may."""


def figures_of(task: DeclaredTask, evidence: Pairs | Counts, policy: Policy) -> TaskVerdict:
    """Return the figures of one task, before anything is decided on them.

    ``reason`` is set where nothing may be decided, whatever the figures.

    Args:
        task: as it was declared, or as it ended.
        evidence: its pairs; or their counts, which say all there is to say of right/wrong scores.
        policy: margins, error rate and looks.
    """
    scores = (counts_of(evidence) or evidence) if isinstance(evidence, Pairs) else evidence
    seen = _Seen.of(scores)
    look = look_of(task, seen.pairs, policy)
    everything = look.design.looks[-1]
    totals, tested = None, look
    if isinstance(evidence, Pairs) and evidence.clusters is not None:
        totals = cluster_totals(evidence.differences, evidence.clusters)
        if seen.pairs == everything:
            # No earlier look could decide anything, so none has spent any of alpha.
            tested = Look(look.design._replace(looks=(everything,)), 0)
    if isinstance(scores, Counts):
        figures = _right_wrong(seen.worse, seen.better, tested)
    else:
        figures = _partial(scores.differences, tested)
    if totals is not None:
        figures = _clustered(totals, figures.p_degraded, look.design)
        if seen.pairs != everything:
            # The test of clusters has no interim looks.
            figures = figures._replace(
                p_noninferior=1.0, p_inferior=1.0, withheld=_CLUSTERS_WAIT.format(everything=everything)
            )
    whole = _whole_score(evidence)
    return TaskVerdict(
        task=task.task,
        family=task.family,
        margin=look.design.margin,
        **seen._asdict(),
        quality_delta_corrected=_corrected(seen, look, figures.test),
        ci_low=figures.interval.low,
        ci_high=figures.interval.high,
        flip_rate=(seen.worse + seen.better) / seen.pairs,
        p_noninferior=figures.p_noninferior,
        p_inferior=figures.p_inferior,
        p_inferior_holm=figures.p_inferior,
        p_degraded=figures.p_degraded,
        degraded=figures.p_degraded <= policy.alpha,
        outcome=Outcome.UNDECIDED,
        test=figures.test,
        documents_available=available_of(task),
        looks=look.number,
        clusters=None if totals is None else totals.documents.size,
        largest_cluster=None if totals is None else int(totals.documents.max()),
        reason=figures.withheld,
        insensitive=_insensitive(whole, task, look.design.margin),
        baseline_documents=whole.documents,
    )


def _whole_score(evidence: Pairs | Counts) -> BaselineScore:
    """Return the baseline's score on all that it answered."""
    if evidence.whole is not None:
        return evidence.whole
    if isinstance(evidence, Counts):
        return score_of_counts(evidence.baseline_right, evidence.pairs)
    return score_of_documents(evidence.baseline, evidence.clusters)


def _insensitive(baseline: BaselineScore, task: DeclaredTask, margin: float) -> str:
    """Say why a task could show no loss of the margin; empty where it could.

    A candidate that ignores every question scores the floor. It loses the margin or less unless the baseline scores
    more than floor and margin together, so on such a task a destroyed model would pass.
    """
    floor = (task.floor if isinstance(task, TaskResult) else None) or 0.0
    if baseline.low - floor > margin:
        return ""
    score, low, least = (f"{100 * fraction:.3g} %" for fraction in (baseline.score, baseline.low, floor))
    return (
        f"{task.task}: insensitive: the baseline scores {score} of {counted(baseline.documents, 'document')}, at least "
        f"{low} (one-sided 95 %), which is not more than the margin of {_points(margin)} above {least}, the score of "
        "an answer that ignores the question: a destroyed model could pass"
    )


def _right_wrong(worse: int, better: int, look: Look | BetweenLooks) -> Figures:
    """Test right/wrong scores exactly, with every earlier look counted."""
    design, any_loss = look.design, p_degraded(worse, better)
    if isinstance(look, BetweenLooks):
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


def _corrected(seen: _Seen, look: Look | BetweenLooks, test: TestKind) -> float | None:
    """Return the delta corrected for the looks that could have stopped the task; None where nothing can be said.

    A test of clusters stops nothing early. Of the test by betting no ranking of results is at hand.
    """
    if test is TestKind.CLUSTER or len(look.design.looks) == 1:
        return seen.quality_delta
    if test is TestKind.BETTING:
        return None
    if isinstance(look, BetweenLooks):
        return None if look.number else seen.quality_delta
    return corrected_estimate(seen.worse, seen.better, look.at, look.design)


def _partial(differences: Floats, look: Look | BetweenLooks) -> Figures:
    """Test any scores from 0 to 1 by betting: its capital may be checked after any document (Ville 1939)."""
    design = look.design
    betting = design.alpha, design.looks[-1]
    return Figures(
        TestKind.BETTING,
        betting_interval(differences, *betting),
        p_noninferior_betting(differences, design.margin, *betting),
        p_inferior_betting(differences, design.margin, *betting),
        p_inferior_betting(differences, 0.0, *betting),
    )


def _clustered(totals: ClusterTotals, p_degraded_alone: float, design: Design) -> Figures:
    """Test clusters in place of documents, which a document-wise test can't vouch for; one decides nothing.

    Args:
        totals: what the clusters hold.
        p_degraded_alone: the p-value of any loss as of independent documents; the greater one counts.
        design: its margin and alpha.
    """
    if totals.documents.size < 2:
        return Figures(TestKind.CLUSTER, Interval(-1.0, 1.0), 1.0, 1.0, 1.0)
    tested = totals, design.margin, design.alpha
    return Figures(
        TestKind.CLUSTER,
        cluster_interval(totals, design.alpha),
        p_noninferior_clusters(*tested),
        p_inferior_clusters(*tested),
        max(p_degraded_alone, p_degraded_clusters(totals)),
    )


def withhold_decision(task: TaskVerdict, reason: str) -> TaskVerdict:
    """Return a task on which nothing may be decided, whatever its figures."""
    return task.model_copy(update={"reason": reason, "p_noninferior": 1.0, "p_inferior": 1.0})


def not_paired(task: TaskResult, policy: Policy, reason: str) -> TaskVerdict:
    """Return the verdict of an unfinished task whose documents can't be paired: nothing is known of it."""
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
    """Decide one of ``required`` tasks at an interim look: inferior only at alpha / required."""
    return _decide_task(
        task.model_copy(update={"p_inferior_holm": min(1.0, required * task.p_inferior)}), policy
    )


def decide_tasks(tested: Sequence[TaskVerdict], policy: Policy) -> list[TaskVerdict]:
    """Correct the p-values of inferiority for their number and decide each task."""
    if not tested:
        return []
    adjusted = holm_adjusted(np.array([task.p_inferior for task in tested]))
    return [
        _decide_task(task.model_copy(update={"p_inferior_holm": float(p)}), policy)
        for task, p in zip(tested, adjusted, strict=True)
    ]


def holm_adjusted(p_values: Floats) -> Floats:
    """Adjust p-values by Holm's step-down method (Scandinavian Journal of Statistics 6 (1979) 65-70).

    Written out, because statsmodels takes a second to import and collects garbage at every call.
    """
    order = np.argsort(p_values)
    stepped = np.maximum.accumulate(p_values[order] * np.arange(p_values.size, 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _decide_task(task: TaskVerdict, policy: Policy) -> TaskVerdict:
    """Decide one task's outcome, with its reason and the documents it still needs."""
    least = policy.families[task.family].min_documents
    seen = f"{task.task}: delta {_points(task.quality_delta)} with a margin of {_points(task.margin)}"
    few = _too_few_clusters(task, policy)
    if few is not None:
        return task.model_copy(update={"reason": f"{seen}: {few}"})
    if not task.reason and task.p_inferior_holm <= policy.alpha:
        reason = f"{seen}: worse than the margin allows (Holm's p {task.p_inferior_holm:.2g})"
        return task.model_copy(update={"outcome": Outcome.FAIL, "reason": reason})
    if task.insensitive:
        return task.model_copy(update={"outcome": Outcome.INSENSITIVE, "reason": task.insensitive})
    shown = not task.reason and task.p_noninferior <= policy.alpha
    if shown and task.pairs >= least:
        return task.model_copy(
            update={"outcome": Outcome.PASS, "reason": f"{seen}: p {task.p_noninferior:.2g}"}
        )
    if shown:
        reason = f"{seen}: {counted(task.pairs, 'document')}, and the policy asks for at least {least}"
        return task.model_copy(update={"documents_needed": least, "reason": reason})
    needed, supposed = more_documents_needed(task, policy)
    if needed is None:
        rest = "more documents would more likely reject it"
    else:
        needed = max(needed, least, least_documents(task, policy))
        if task.reason and task.clusters is not None:
            needed = max(needed, task.documents_available or 0)
        rest = f"has {counted(task.pairs, 'document')} and needs about {needed} {supposed}"
        if task.documents_available is not None and needed > task.documents_available:
            rest += f", more than the {task.documents_available} that this task has"
    rest += _clusters_wanting(task, policy)
    state = task.reason or f"undecided (p {task.p_noninferior:.2g}{_at_look(task)})"
    return task.model_copy(update={"documents_needed": needed, "reason": f"{seen}: {state}; {rest}"})


def _at_look(task: TaskVerdict) -> str:
    """Say at which look a task was judged, if it goes on."""
    if task.documents_available is None or task.pairs >= task.documents_available:
        return ""
    left = counted(task.documents_available - task.pairs, "document")
    return f" at interim look {task.looks}, with {left} to go on with"


def _too_few_clusters(task: TaskVerdict, policy: Policy) -> str | None:
    """Say why a task with fewer clusters than the policy asks for decides nothing, and what to do; None if it may."""
    if task.clusters is None or task.clusters >= policy.min_clusters:
        return None
    return (
        f"its {task.pairs} documents fall into {task.clusters} subjects or passages, and the policy asks for at"
        f" least {policy.min_clusters} (min_clusters) before it says anything of new ones{FIXED_SUBJECTS_HINT}"
    )


def _clusters_wanting(task: TaskVerdict, policy: Policy) -> str:
    """Say that a task of such clusters can't pass without a gain, what it takes and what to do; empty if it can."""
    if task.largest_cluster is None or task.pairs >= (least := least_documents(task, policy)):
        return ""
    largest = counted(task.largest_cluster, "document")
    return (
        f"; with {task.clusters} subjects or passages (the largest has {largest}) it can't be"
        f" validated unless the candidate gains; it needs at least {least} documents in subjects or passages of this"
        f" size{FIXED_SUBJECTS_HINT}"
    )


def _points(fraction: float) -> str:
    """Write a fraction of a score as percentage points."""
    shown = f"{100 * fraction:.4g}"
    return f"{shown} point{'' if shown in {'1', '-1'} else 's'}"
