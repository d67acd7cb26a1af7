"""Judge a candidate: from its samples and its baseline's to a verdict per use, as a pure function.

A task passes if any loss is shown to stay within its family's margin (non-inferiority at alpha) on at least
as many documents as the policy asks for, and its baseline scores enough for a loss to show: an insensitive task can't
pass. A use is VALIDATED if all of its tasks pass: an intersection-union
test, each task at alpha without correction (R. L. Berger, Technometrics 24 (1982) 295-300). It is REJECTED
if the loss is shown to exceed the margin on any task, at alpha after Holm's correction. Otherwise it is
INCONCLUSIVE, also where some of its families were not measured. It is UNVALIDATED where none was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from quantgate.bundles.identity import comparable
from quantgate.bundles.manifest import Manifest, TaskResult
from quantgate.judge.interim import answered_first, available_of, judged_by_another, stopped_early
from quantgate.judge.pairing import (
    Counts,
    DeclaredTask,
    Pairs,
    Unmeasured,
    Unpaired,
    is_graded,
    pair_task,
    shares_clusters,
    whole_score,
)
from quantgate.judge.stats.exact import MISS
from quantgate.judge.task_verdict import (
    decide_interim,
    decide_tasks,
    figures_of,
    not_paired,
    withhold_decision,
)
from quantgate.model.config.policy import Policy
from quantgate.model.enums import Family, Outcome, Verdict
from quantgate.model.errors import ConfigError
from quantgate.model.records import TaskVerdict, UseVerdict

Evidence = Mapping[str, Pairs | Counts | Unpaired | Unmeasured]
"""Pairs of each declared task, or why there are none."""

_NO_QUALITY = "no quality was measured"


def judge(
    baseline: pa.Table,
    candidate: pa.Table,
    policy_name: str,
    policy: Policy,
    declared: Sequence[DeclaredTask],
    *,
    own: Policy | None = None,
) -> tuple[UseVerdict, ...]:
    """Judge a candidate for every use of a policy.

    Args:
        baseline: samples of the baseline (``quantgate.bundles.schema.SAMPLES``).
        candidate: samples of the candidate.
        policy_name: the policy's name.
        policy: margins, error rate and uses, declared before the candidate was measured.
        declared: the tasks that the run declared, of its suite or of its results.
        own: the policy that the run declared, where it is judged under another: a task that stopped early under
            its own policy can't be decided under one that would have stopped it elsewhere.

    Returns:
        One verdict per use, in the policy's order.

    Raises:
        ConfigError: the policy can't judge these tasks (``check_policy``).
    """
    check_policy(policy_name, policy, declared)
    if not declared or candidate.num_rows == 0:
        return untested(Verdict.UNVALIDATED, policy_name, policy, _NO_QUALITY)
    evidence = {task.task: pairs_of(baseline, candidate, task, own or policy) for task in declared}
    return judge_evidence(evidence, policy_name, policy, declared, own=own)


def judge_evidence(
    evidence: Evidence,
    policy_name: str,
    policy: Policy,
    declared: Sequence[DeclaredTask],
    *,
    own: Policy | None = None,
) -> tuple[UseVerdict, ...]:
    """Judge a candidate for every use from the evidence on each task; each task is tested once.

    Args, returns and errors are those of ``judge``; ``declared`` has at least one task.
    """
    check_policy(policy_name, policy, declared)
    figures = _figures(evidence, policy, declared, _withheld(declared, own or policy, policy))
    return tuple(_judge_use(evidence, figures, policy_name, policy, use, declared) for use in policy.uses)


def judge_interim(
    baseline: pa.Table, candidate: pa.Table, result: TaskResult, policy: Policy, required: int
) -> TaskVerdict:
    """Judge one task at an interim look, on the documents that a candidate has answered so far.

    Args:
        baseline: samples of the baseline, of the whole task or more.
        candidate: samples of the candidate: the first documents of the task's order.
        result: its result so far; the last of its looks is this one.
        policy: with looks; declared before the candidate was measured.
        required: number of tasks of the run: a loss that stops the task must be shown at alpha divided by it, so
            that the verdict, with Holm's correction, shows the loss too.

    Returns:
        The task's verdict: pass or fail where it may stop. Where its documents can't be paired it is undecided with
        0 pairs and the reason, and the run's verdict will say NOT_COMPARABLE.
    """
    pairs = pairs_of(baseline, candidate, result, policy)
    if not isinstance(pairs, Pairs):
        reason = pairs.reason if isinstance(pairs, Unpaired) else f"task {pairs.task}: no sample"
        return not_paired(result, policy, reason)
    return decide_interim(figures_of(result, pairs, policy), policy, required)


def judge_runs(
    baseline: Manifest,
    baseline_samples: pa.Table,
    candidate: Manifest,
    candidate_samples: pa.Table,
    *,
    own: Policy | None = None,
) -> tuple[UseVerdict, ...]:
    """Judge a finished run against its baseline under the policy that the candidate declared.

    Args:
        baseline: the baseline's run.
        baseline_samples: its samples.
        candidate: the candidate's run.
        candidate_samples: its samples.
        own: the policy that it really declared, where its manifest was given another.

    Returns:
        One verdict per use: NOT_COMPARABLE for all of them where the runs can't be compared (``comparable``).

    Raises:
        ConfigError: as of ``judge``.
    """
    policy_name, policy = candidate.policy_name, candidate.policy.at_question(candidate.question)
    return incomparable(baseline, candidate) or judge(
        baseline_samples, candidate_samples, policy_name, policy, candidate.tasks, own=own
    )


def incomparable(baseline: Manifest, candidate: Manifest) -> tuple[UseVerdict, ...] | None:
    """Return NOT_COMPARABLE for every use where the manifests alone show it (``comparable``); else None."""
    reason = comparable(baseline, candidate) if candidate.tasks else None
    if reason is None:
        return None
    return untested(Verdict.NOT_COMPARABLE, candidate.policy_name, candidate.policy, reason)


def untested(verdict: Verdict, policy_name: str, policy: Policy, reason: str) -> tuple[UseVerdict, ...]:
    """Return the same verdict for every use, without a test: BASELINE, NOT_COMPARABLE or UNVALIDATED."""
    return tuple(_verdict(use, policy_name, verdict, reason) for use in policy.uses)


def check_policy(policy_name: str, policy: Policy, declared: Sequence[DeclaredTask]) -> None:
    """Check before anything is measured that a policy can judge these tasks.

    Raises:
        ConfigError: a declared family has no margin, or alpha is finer than the exact test's p-values.
    """
    where = f"policy {policy_name}"
    if policy.alpha <= MISS:
        raise ConfigError(
            f"alpha {policy.alpha:g} can never be met: the exact test's p-values start at {MISS:g}",
            where=where,
            hint="Set a greater alpha, such as 0.05.",
        )
    for task in declared:
        if task.family not in policy.families:
            raise ConfigError(
                f"no margin for family '{task.family}', which task {task.task} belongs to",
                where=where,
                hint=f"Add '{task.family}: {{margin: 0.01, min_documents: 100}}' under families.",
            )


def _families(policy: Policy, use: str, declared: Sequence[DeclaredTask]) -> tuple[Family, ...]:
    """Return the families that a use requires: those it lists, or else all that were declared."""
    return policy.uses[use] or tuple(dict.fromkeys(task.family for task in declared))


def pairs_of(
    baseline: pa.Table, candidate: pa.Table, task: DeclaredTask, policy: Policy
) -> Pairs | Unpaired | Unmeasured:
    """Return the pairs of one task; of a candidate that stopped early, those of the documents that it answered.

    Args:
        baseline: samples of the baseline (``quantgate.bundles.schema.SAMPLES``).
        candidate: samples of the candidate.
        task: as it was declared, or as it ended.
        policy: the one that the candidate declared; its looks say where it may stop.
    """
    if not stopped_early(task, policy):
        return pair_task(baseline, candidate, task)
    first = answered_first(baseline, candidate, task.task)
    if isinstance(first, Unpaired):
        return first
    pairs = pair_task(first, candidate, task)
    if not isinstance(pairs, Pairs):
        return pairs
    # Unanswered documents decide the kind of test from the first look on: two kinds would each spend alpha.
    if pairs.clusters is None and shares_clusters(baseline, task.task, available_of(task)):
        pairs = pairs._replace(clusters=np.arange(pairs.baseline.size))
    return pairs._replace(graded=is_graded(baseline, task.task), whole=whole_score(baseline, task))


def _withheld(declared: Sequence[DeclaredTask], own: Policy, policy: Policy) -> dict[str, str]:
    """Return the tasks on which nothing may be decided under this policy, with the reason."""
    reasons = {
        task.task: judged_by_another(task, own, policy) for task in declared if isinstance(task, TaskResult)
    }
    return {task: reason for task, reason in reasons.items() if reason is not None}


def _figures(
    evidence: Evidence, policy: Policy, declared: Sequence[DeclaredTask], withheld: Mapping[str, str]
) -> dict[str, TaskVerdict]:
    """Return the figures of every task that has pairs, which its uses share; withheld tasks can't be decided."""
    figures = {
        task.task: figures_of(task, pairs, policy)
        for task in declared
        if isinstance(pairs := evidence[task.task], Pairs | Counts)
    }
    for name in figures.keys() & withheld.keys():
        figures[name] = withhold_decision(figures[name], withheld[name])
    return figures


def _judge_use(
    evidence: Evidence,
    figures: Mapping[str, TaskVerdict],
    policy_name: str,
    policy: Policy,
    use: str,
    declared: Sequence[DeclaredTask],
) -> UseVerdict:
    """Return the verdict for one use from the pairs of its tasks."""
    give = partial(_verdict, use, policy_name, alpha=policy.alpha)
    families = _families(policy, use, declared)
    required = {task.task: evidence[task.task] for task in declared if task.family in families}
    unpaired = [pairs.reason for pairs in required.values() if isinstance(pairs, Unpaired)]
    if unpaired:
        return give(Verdict.NOT_COMPARABLE, "; ".join(unpaired))
    tasks = decide_tasks([figures[task] for task in required if task in figures], policy)
    missing = [f"family {family}" for family in families if all(t.family != family for t in declared)]
    missing += [f"task {pairs.task}" for pairs in required.values() if isinstance(pairs, Unmeasured)]
    if missing:
        reason = f"not measured: {', '.join(missing)}"
        return give(Verdict.INCONCLUSIVE if tasks else Verdict.UNVALIDATED, reason, tasks)
    failed = [task.reason for task in tasks if task.outcome is Outcome.FAIL]
    if failed:
        return give(Verdict.REJECTED, "; ".join(failed), tasks)
    undecided = [task for task in tasks if task.outcome is Outcome.UNDECIDED]
    insensitive = [task.reason for task in tasks if task.outcome is Outcome.INSENSITIVE]
    if insensitive:
        others = f" (and {len(undecided)} undecided)" if undecided else ""
        return give(Verdict.INCONCLUSIVE, f"{'; '.join(insensitive)}{others}", tasks)
    if undecided:
        hardest = max(undecided, key=lambda task: (task.p_noninferior, task.documents_needed or 0))
        others = f" (and {len(undecided) - 1} more undecided)" if len(undecided) > 1 else ""
        reason = f"{hardest.reason}{others}"
        return give(Verdict.INCONCLUSIVE, reason, tasks, hardest.documents_needed)
    reason = f"shown within the margin on {', '.join(task.task for task in tasks)}"
    return give(Verdict.VALIDATED, reason, tasks)


def _verdict(
    use: str,
    policy_name: str,
    verdict: Verdict,
    reason: str,
    tasks: Sequence[TaskVerdict] = (),
    needed: int | None = None,
    *,
    alpha: float = 0.0,
) -> UseVerdict:
    """Return a verdict with the figures of its worst task: the one with the least interval end plus margin.

    The candidate is `degraded` where some task shows a loss at ``alpha`` for all of them together (Bonferroni, Holm's
    first step).
    """
    worst = min(tasks, key=lambda task: task.ci_low + task.margin, default=None)
    return UseVerdict(
        use=use,
        policy=policy_name,
        verdict=verdict,
        worst_task=worst.task if worst else None,
        quality_delta=worst.quality_delta if worst else None,
        ci_low=worst.ci_low if worst else None,
        ci_high=worst.ci_high if worst else None,
        flip_rate=worst.flip_rate if worst else None,
        degraded=any(len(tasks) * task.p_degraded <= alpha for task in tasks) if tasks else None,
        documents_needed=needed,
        reason=reason,
        tasks=tuple(tasks),
    )
