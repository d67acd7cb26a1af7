"""Decide what earlier runs leave a run to do: once per run, before anything is measured.

``decide_all`` looks at the plans of a validation and at the runs that the bundles store holds, and says of each plan
whether a bundle is reused, a run continued, only a load added, everything measured, or the run refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from quantgate.bundles.identity import (
    Purpose,
    asked_of,
    compared,
    comparison_id,
    in_order,
    is_reusable_baseline,
    is_served_alike,
    may_continue,
    reusable_result,
    run_fingerprint,
    same_kernels,
    setting_differences,
    verdict_key,
)
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.order import counts_as_fresh, declared_order
from quantgate.model.config.suites import SuiteTask
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.records import RunInputs, RunPlan
from tasks.resume.chains import (
    DECIDED,
    Chain,
    Evidence,
    Scores,
    deciding_chains,
    documents_of,
    scores,
    unanswered,
    wanted,
)
from tasks.resume.parts import Parts, measured_parts
from tasks.resume.second_try import Unfinished, second_try

_OTHER_QUESTION = ("engine", "engine_version", "serving")
"""Inputs that make a run another question, reported where the rest is the same."""


class Reuse(NamedTuple):
    """A run holds all that is asked: it is handed back, nothing is measured."""

    run: Manifest
    lines: tuple[str, ...] = ()
    """Reported when the run's turn comes."""


class Continue(NamedTuple):
    """The run begins with the answers of an earlier one, and asks the documents that are new."""

    run: Manifest
    against: Scores | None = None
    """The baseline's scores that a candidate was judged against; None of a baseline."""
    lines: tuple[str, ...] = ()
    parts: Parts = Parts()
    """Fidelity and load levels that earlier runs measured."""


class AddLoad(NamedTuple):
    """The run begins with the answers of an earlier one; another load is measured, and no document is asked."""

    run: Manifest
    against: Scores
    lines: tuple[str, ...] = ()
    parts: Parts = Parts()


class Measure(NamedTuple):
    """The run is measured; a baseline's may begin some tasks with the answers of other bundles."""

    inherit: Mapping[str, tuple[SuiteTask, ...]] = {}
    """Tasks by the id of the run whose answers they begin with."""
    lines: tuple[str, ...] = ()
    parts: Parts = Parts()


class Refuse(NamedTuple):
    """The run could decide nothing, or would be a second try."""

    error: ConfigError


Decision = Reuse | Continue | AddLoad | Measure | Refuse


def decide_all(
    plans: Sequence[RunPlan],
    evidence: Evidence,
    unfinished: Sequence[Unfinished] = (),
    *,
    fresh_after: int | None = None,
) -> dict[str, Decision]:
    """Decide what every run of a validation has to do.

    Args:
        plans: the baseline's first; the candidates need not name the baseline's run yet.
        evidence: the runs that the bundles store holds.
        unfinished: runs in progress on this host.
        fresh_after: everything is measured anew, and runs that were declared after this number were; None reuses
            whatever is there.

    Returns:
        The decision of each plan by its fingerprint.

    Raises:
        ConfigError: every candidate is refused; says why the first one is.
    """
    baseline, *candidates = {run_fingerprint(plan.inputs): plan for plan in plans}.items()
    decisions = {
        fingerprint: decide_candidate(plan, evidence, unfinished, fresh_after=fresh_after)
        for fingerprint, plan in candidates
    }
    decided, conflicts = decide_baseline(
        baseline[1],
        [(plan, decisions[fingerprint]) for fingerprint, plan in candidates],
        evidence,
        begun=_begun(baseline[0], unfinished),
        fresh_after=fresh_after,
    )
    decisions |= conflicts
    refused = [decision.error for decision in decisions.values() if isinstance(decision, Refuse)]
    if candidates and len(refused) == len(candidates):
        raise refused[0]
    decisions = {baseline[0]: decided} | decisions
    if fresh_after is None:
        by_fingerprint = {baseline[0]: baseline[1]} | dict(candidates)
        decisions = {
            fingerprint: _with_parts(by_fingerprint[fingerprint], decision, evidence)
            for fingerprint, decision in decisions.items()
        }
    return decisions


def _with_parts(plan: RunPlan, decision: Decision, evidence: Evidence) -> Decision:
    """Add the fidelity and the load levels that earlier runs hold to a run that is to be measured."""
    if isinstance(decision, Reuse | Refuse):
        return decision
    decision = decision._replace(parts=measured_parts(plan, evidence.history.runs))
    asked_before = next(
        (run for run in reversed(evidence.history.runs) if run.tasks and is_served_alike(plan, run)), None
    )
    if plan.baseline is None or not isinstance(decision, Measure) or decision.lines or asked_before is None:
        return decision
    if compared(plan, Purpose.COMPARISON) == compared(asked_before, Purpose.COMPARISON):
        return decision
    line = (
        f"{plan.checkpoint.name}: its documents are asked again: run {asked_before.run_id} answered for another "
        "policy, suite or baseline, and a verdict does not rest on answers that were there before it was declared "
        "(`quantgate judge` judges them, post hoc)"
    )
    return decision._replace(lines=(line,))


def _begun(fingerprint: str, unfinished: Sequence[Unfinished]) -> bool:
    """Return True if a run in progress has asked a document, or inherited one."""
    return any(run.fingerprint == fingerprint and run.begun for run in unfinished)


def decide_candidate(
    plan: RunPlan,
    evidence: Evidence,
    unfinished: Sequence[Unfinished] = (),
    *,
    fresh_after: int | None = None,
) -> Decision:
    """Decide what a candidate's run has to do. Arguments are those of `decide_all`."""
    fingerprint = run_fingerprint(plan.inputs)
    measured = _latest(plan, evidence, fresh_after=fresh_after)
    if not plan.policy.looks:
        spent = () if _begun(fingerprint, unfinished) else _spent_alpha(plan, evidence)
        return measured or Measure(lines=spent if fresh_after is None else ())
    if error := second_try(plan, unfinished, evidence.history, fresh_after=fresh_after):
        return Refuse(error)
    if fresh_after is not None or (measured and not _is_check(measured.run, evidence)):
        return measured or Measure()
    try:
        question = _chain_of_question(plan, evidence)
        if measured and not (question and _goes_on_beside(measured.run, question, plan, evidence)):
            return measured
        return _candidate(plan, question, evidence, begun=_begun(fingerprint, unfinished))
    except RunError as error:
        line = f"{plan.checkpoint.name}: an earlier run is not continued: {error}"
        return measured or Measure(lines=(line,))


def _latest(plan: RunPlan, evidence: Evidence, *, fresh_after: int | None) -> Reuse | None:
    """Return the last bundle of the plan's fingerprint, of those that count."""
    runs = evidence.history.of(run_fingerprint(plan.inputs))
    if not runs or not counts_as_fresh(runs[-1].declared_order, fresh_after):
        return None
    return unchanged(plan, runs[-1])


def unchanged(plan: RunPlan, run: Manifest) -> Reuse:
    """Reuse a bundle that has the plan's fingerprint."""
    moment = f"{run.measured_at:%Y-%m-%d %H:%M} UTC"
    line = f"{plan.checkpoint.name}: measured on {moment} and unchanged, nothing to do"
    return Reuse(run, (line,))


def _is_check(run: Manifest, evidence: Evidence) -> bool:
    """Return True if a run continues none, though there were earlier ones of its question: it decides nothing."""
    key = verdict_key(run)
    return run.continues is None and any(
        declared_order(other) < declared_order(run) and verdict_key(other) == key
        for other in evidence.history.asking(comparison_id(run))
    )


class _Question(NamedTuple):
    """The chain of a candidate's question that its run has to do with."""

    chain: Chain
    is_open: bool
    """True if documents are left to ask that could decide a use."""
    chains: tuple[Chain, ...]
    """All that have decided something, where this one stands."""
    runs: tuple[Manifest, ...]
    """Those of the question in this run's setting."""


def _chain_of_question(plan: RunPlan, evidence: Evidence) -> _Question | None:
    """Find the chain that is open, else the one that has decided; None where no run of the question decides anything.

    Raises:
        RunError: a bundle is damaged or gone.
    """
    alike = [run for run in evidence.history.asking(comparison_id(plan)) if in_order(run)]
    joining = [run for run in evidence.history if may_continue(plan, run)]
    if joining:  # the last one shows which kernels are chosen on this host now, and those make the question
        key = verdict_key(joining[-1])
        alike, joining = ([run for run in runs if verdict_key(run) == key] for runs in (alike, joining))
    anywhere = tuple(deciding_chains(alike, evidence))
    joinable = tuple(deciding_chains(joining, evidence))
    for chain in (*anywhere, *joinable):
        if chain.is_open(plan):
            return _Question(chain, True, (), tuple(joining))
    for chains in (joinable, anywhere):
        if answering := [chain for chain in chains if "all" in chain.standing]:
            return _Question(answering[0], False, chains, tuple(joining))
    return None


def _goes_on_beside(check: Manifest, question: _Question, plan: RunPlan, evidence: Evidence) -> bool:
    """Return True if the chain beside a check can go on here, so that the check is not reused.

    Raises:
        RunError: a bundle is damaged or gone.
    """
    tip = question.chain.tip
    if not question.is_open or setting_differences(plan, tip) or check in question.chain.runs:
        return False
    return verdict_key(check) == verdict_key(tip) and same_kernels(
        evidence.baseline_of(check), evidence.baseline_of(tip)
    )


def _candidate(plan: RunPlan, question: _Question | None, evidence: Evidence, *, begun: bool) -> Decision:
    """Decide by the chain of the question: nothing, documents to go on with, another load, or a run of its own.

    Raises:
        RunError: a bundle is damaged or gone.
    """
    name = plan.checkpoint.name
    if question is None:
        return Measure(lines=() if begun else _other_question(plan, evidence))
    tip, elsewhere = question.chain.tip, setting_differences(plan, question.chain.tip)
    if question.is_open and elsewhere:
        return Refuse(_begun_elsewhere(plan, tip, elsewhere))
    answer, why = _answer(question.chains) if not question.is_open else ("", "")
    if not begun and not question.is_open and not elsewhere and (run := _with_this_load(plan, question)):
        return Reuse(run, (f"{name}: {answer}, nothing to do: {why}",))
    if elsewhere or not _within(plan, tip):
        line = f"{name}: {answer}; this run is one of its own, which decides nothing"
        return Measure(lines=() if begun else (line,))
    against = evidence.judged_against(tip)
    if question.is_open:
        return Continue(tip, against)
    line = f"{name}: {answer}; another load is measured, and no document is asked again"
    return AddLoad(tip, against, (line,))


def _within(plan: RunPlan, run: Manifest) -> bool:
    """Return True if a run has answered no more documents than this one may."""
    return all(task.documents <= wanted(plan, task) for task in run.tasks)


def _with_this_load(plan: RunPlan, question: _Question) -> Manifest | None:
    """Return the last run that has measured the load of this one, the chain's before others."""
    runs = [*(run for run in question.runs if run not in question.chain.runs), *question.chain.runs]
    measured = [run for run in runs if run.inputs.workload == plan.inputs.workload]
    return measured[-1] if measured else None


def _answer(chains: Sequence[Chain]) -> tuple[str, str]:
    """Say what has come of a question, and why it is not asked further."""
    standing = {use: stand for chain in chains for use, stand in chain.standing.items()}
    uses = sorted(standing, key=lambda use: (use != "all", use))
    rest = [standing[use] for use in uses if standing[use].verdict.verdict not in DECIDED]
    if rest:
        run_id, verdict = rest[0]
        return f"run {run_id} has answered all that is asked", verdict.reason
    each = [f"{standing[use].verdict.verdict} by run {standing[use].run_id}" for use in uses]
    if len(set(each)) > 1:
        each = [f"{use} {answer}" for use, answer in zip(uses, each, strict=True)]
    why = "a verdict is not drawn again (--fresh measures anew, to see whether anything drifts)"
    return ", ".join(dict.fromkeys(each)), why


def _begun_elsewhere(plan: RunPlan, run: Manifest, differences: str) -> ConfigError:
    return ConfigError(
        f"run {run.run_id} has begun to answer this question and is INCONCLUSIVE; answers from here can't join it, "
        f"since its {differences} differs, and a run of its own would decide nothing",
        where=plan.checkpoint.name,
        hint="Let that one go on where it was begun, or measure here with --fresh, to see whether anything drifts.",
    )


def _spent_alpha(plan: RunPlan, evidence: Evidence) -> tuple[str, ...]:
    """Say why an earlier run with a limit is not continued, under a policy without interim looks."""
    for run in evidence.history:
        if may_continue(plan, run) and unanswered(plan, run.tasks):
            what = "asked too few documents to decide anything: this is a run of its own"
            if comparison_id(run) == comparison_id(plan):
                what = "has spent its alpha and can't go on: this is a check, which decides nothing"
            judges = f"policy {plan.policy_name} judges once, at the end"
            return (f"{plan.checkpoint.name}: {judges}, and run {run.run_id} with its limit {what}",)
    return ()


def _other_question(plan: RunPlan, evidence: Evidence) -> tuple[str, ...]:
    """Say of an earlier run with a limit what makes this one another question, which it decides by itself."""
    same = set(RunInputs.model_fields) - {"suite", "workload", *_OTHER_QUESTION}
    probe = plan.inputs.model_dump(include=same)
    for run in reversed(evidence.history.runs):
        differ = [name for name in _OTHER_QUESTION if getattr(plan.inputs, name) != getattr(run.inputs, name)]
        if differ and probe == run.inputs.model_dump(include=same) and _asks_more(plan, run):
            named = ", ".join(name.replace("_", " ") for name in differ)
            why = f"its {named} differs, which makes this another question: this run decides it by itself"
            return (f"{plan.checkpoint.name}: run {run.run_id} is not continued, {why}",)
    return ()


def _asks_more(plan: RunPlan, run: Manifest) -> bool:
    """Return True if a plan asks what a run asked, and more of its documents."""
    return asked_of(plan.inputs.suite) == asked_of(run.inputs.suite) and bool(unanswered(plan, run.tasks))


def decide_baseline(
    plan: RunPlan,
    candidates: Sequence[tuple[RunPlan, Decision]],
    evidence: Evidence,
    *,
    begun: bool = False,
    fresh_after: int | None = None,
) -> tuple[Decision, dict[str, Decision]]:
    """Decide what the baseline's run has to do for its candidates.

    Args:
        plan: the baseline's.
        candidates: their plans, each with what is decided of it.
        evidence: the runs that the bundles store holds.
        begun: whether an unfinished run of this plan has asked documents.
        fresh_after: as for `decide_all`.

    Returns:
        The decision; and refusals by fingerprint of candidates whose chains can't go on with this baseline.
    """
    if fresh_after is not None:
        return _latest(plan, evidence, fresh_after=fresh_after) or Measure(), {}
    excluded, conflicts = _excluded(plan, candidates, evidence) if plan.policy.looks else (frozenset(), {})
    decisions = [conflicts.get(run_fingerprint(p.inputs), decision) for p, decision in candidates]
    measured = evidence.history.of(run_fingerprint(plan.inputs))
    usable = [run for run in evidence.history if run.run_id not in excluded]
    kept = [run for run in measured if run.run_id not in excluded]
    idle = [decision.run for decision in decisions if isinstance(decision, Reuse)]
    nothing_asked = all(isinstance(decision, Reuse | Refuse) for decision in decisions)
    if not measured and plan.policy.looks and nothing_asked and (run := _enough(plan, idle, evidence)):
        why = f"its candidates ask for no more than run {run.run_id} has answered"
        return Reuse(run, (f"{plan.checkpoint.name}: nothing to do: {why}",)), conflicts
    if kept:
        return unchanged(plan, kept[-1]), conflicts
    if not begun and (decision := _goes_on(plan, usable)):
        return decision, conflicts
    return Measure(inherit=_inherited(plan, usable)), conflicts


def _enough(plan: RunPlan, candidates: Sequence[Manifest], evidence: Evidence) -> Manifest | None:
    """Return the largest run of the baseline that candidates were judged against and that has measured its load."""
    ids = {candidate.baseline.run_id for candidate in candidates if candidate.baseline}
    alike = [run for run in evidence.history if run.run_id in ids and is_reusable_baseline(plan, run)]
    with_load = [run for run in alike if run.inputs.workload == plan.inputs.workload]
    return max(with_load, key=documents_of, default=None)


def _goes_on(plan: RunPlan, usable: Sequence[Manifest]) -> Reuse | Continue | None:
    """Reuse a baseline's run, or continue one: it is asked each document once.

    Under a policy with interim looks a run with more documents than are asked will do. Where other bundles hold more
    of a task than the run of this question, each task inherits from the one that holds most.
    """
    same = [run for run in usable if may_continue(plan, run) and run.inputs.workload == plan.inputs.workload]
    for run in reversed(same):
        if plan.policy.looks and not unanswered(plan, run.tasks):
            line = f"{plan.checkpoint.name}: run {run.run_id} has answered these documents, nothing to do"
            return Reuse(run, (line,))
    largest = max((run for run in same if _within(plan, run)), key=documents_of, default=None)
    others = [run for run in usable if is_reusable_baseline(plan, run)]
    if largest is None or any(_holds_more(plan, largest, other) for other in others):
        return None
    return Continue(largest)


def _holds_more(plan: RunPlan, run: Manifest, other: Manifest) -> bool:
    """Return True if another bundle holds more of a task's documents than a run does, of those that are wanted."""
    answered = {task.task: task.documents for task in run.tasks}
    return any(_reusable(plan, task, other) > answered.get(task.task, 0) for task in plan.suite.tasks)


def _reusable(plan: RunPlan, task: SuiteTask, run: Manifest) -> int:
    """Return how many of the wanted documents of a task a bundle of the baseline holds."""
    result = reusable_result(plan, task, run)
    return min(result.documents, wanted(plan, result)) if result else 0


def _inherited(plan: RunPlan, usable: Sequence[Manifest]) -> dict[str, tuple[SuiteTask, ...]]:
    """Name for each task the run that holds most of the documents that are wanted, the last of several."""
    reusable = [run for run in usable if is_reusable_baseline(plan, run)]
    inherited: dict[str, tuple[SuiteTask, ...]] = {}
    for task in plan.suite.tasks:
        source, most = None, 0
        for run in reusable:
            documents = _reusable(plan, task, run)
            if documents and documents >= most:
                source, most = run.run_id, documents
        if source:
            inherited[source] = (*inherited.get(source, ()), task)
    return inherited


class _Need(NamedTuple):
    """The answers of a baseline that a candidate's run needs to go on from an earlier one."""

    plan: RunPlan
    tip: Manifest
    is_open: bool
    baseline: Manifest
    """The baseline's run that the earlier one was judged against."""
    scores: Scores


def _excluded(
    plan: RunPlan, candidates: Sequence[tuple[RunPlan, Decision]], evidence: Evidence
) -> tuple[frozenset[str], dict[str, Decision]]:
    """Find the bundles that the baseline must not answer from, and the candidates whose chains then can't go on.

    A chain goes on against the answers that it was judged against, or not at all.
    """
    needs = [
        _Need(p, decision.run, isinstance(decision, Continue), evidence.baseline_of(decision.run), against)
        for p, decision in candidates
        if isinstance(decision, Continue | AddLoad) and (against := decision.against) is not None
    ]
    if not needs:
        return frozenset(), {}
    conflicts: dict[str, Decision] = {}
    samples = _readable(plan, evidence)
    bundles = [run for run in evidence.history if run.run_id in samples]
    kept = bundles
    for need in sorted(needs, key=lambda need: not need.is_open):
        if bundles and not same_kernels(bundles[-1], need.baseline):
            continue  # the engine chooses other kernels by now, and its answers would not join those
        agreeing = [run for run in kept if _agrees(plan, need, run, samples[run.run_id])]
        tasks = [_tasks(plan, need, run) for run in agreeing]
        if set().union(*tasks) >= need.scores.keys():
            kept = agreeing
        elif need.is_open:
            conflicts[run_fingerprint(need.plan.inputs)] = Refuse(_other_answers(plan, need))
    return frozenset(run.run_id for run in bundles) - {run.run_id for run in kept}, conflicts


def _tasks(plan: RunPlan, need: _Need, run: Manifest) -> set[str]:
    """Return the tasks of a chain that a bundle of the baseline holds too."""
    reusable = {task.task for task in plan.suite.tasks if reusable_result(plan, task, run)}
    return reusable.intersection(need.scores)


def _agrees(plan: RunPlan, need: _Need, run: Manifest, samples: pa.Table) -> bool:
    """Return True if a bundle of the baseline holds, of its tasks, the answers that a chain was judged against."""
    answers = scores(need.tip, samples)
    return all(answers[task] == need.scores[task] for task in _tasks(plan, need, run))


def _readable(plan: RunPlan, evidence: Evidence) -> dict[str, pa.Table]:
    """Read the samples of each bundle that a baseline may reuse, by run id; a damaged one is reported later."""
    samples = {}
    for run in evidence.history:
        if is_reusable_baseline(plan, run):
            with contextlib.suppress(RunError):
                samples[run.run_id] = evidence.samples(run)
    return samples


def _other_answers(plan: RunPlan, need: _Need) -> ConfigError:
    """Say why a chain can't go on with the baseline of this validation."""
    run_id, name = need.tip.run_id, need.plan.checkpoint.name
    if not is_reusable_baseline(plan, need.baseline):
        return ConfigError(
            f"run {run_id} is INCONCLUSIVE and was judged against the baseline of run {need.baseline.run_id}; answers "
            f"from here can't join its, since their {setting_differences(plan, need.baseline)} differs, and a run of "
            "its own would decide nothing",
            where=name,
            hint="Measure the baseline as it was then, or this with --fresh, to see whether anything drifts.",
        )
    return ConfigError(
        f"run {run_id}, which it would go on from, was judged against other answers of the baseline than another "
        "candidate's",
        where=name,
        hint="Validate them one by one.",
    )
