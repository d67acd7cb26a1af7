"""A run that goes on where an earlier one of the same question ended: its documents are not asked again.

A verdict is not drawn again until it passes: the first declared run decides, and one that
ended INCONCLUSIVE goes on with new documents, within the alpha that its looks have left.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from quantgate.bundles import batches
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.schema import CONTROL_SAMPLES_FILE, PROMPTS_FILE, SAMPLES_FILE
from quantgate.bundles.staging import Staging
from quantgate.bundles.store import BundleStore
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.records import BaselineRef, RunInputs, RunPlan, question_of
from tasks.progress import Reporter
from tasks.resume import chains, shared_parts
from tasks.resume.chains import DECIDED, Chain
from tasks.resume.interim_looks import baseline_of
from warehouse.rows import deciding, question, verdict_key

_TABLES = (SAMPLES_FILE, PROMPTS_FILE, CONTROL_SAMPLES_FILE)
_OWN_QUESTION = ("engine", "engine_version", "serving")
"""Of a run's inputs, what makes it another question, told where the rest is the same."""


Scores = dict[str, set[tuple[object, ...]]]
"""Scores of a baseline, by task, each with the document that it belongs to."""


class Pursuit(NamedTuple):
    """What the runs of its question have left to a candidate's run."""

    chain: Chain
    is_open: bool
    """Whether documents are left to ask that could decide a use; else a load is left to measure, or nothing."""
    answered: Manifest | None = None
    """The run to hand back where there is nothing to measure."""
    told: str = ""
    """What has come of the question, where no documents are left to ask."""
    why: str = ""
    """Why nothing is to be measured there."""
    elsewhere: str = ""
    """In what the chain's setting differs from the run's, which therefore can't go on from there."""


def take_up(
    plan: RunPlan, staging: Staging, place: str, report: Reporter, without: Collection[str] = ()
) -> Manifest | None:
    """Begin a run with the answers of the one that it continues, if there is one.

    Args:
        plan: the run; no bundle has its fingerprint, or none that decides.
        staging: the run's.
        place: folder or fsspec URL of the bundles.
        report: told of what is continued, or why it isn't.
        without: bundles of a baseline that are not to be taken from (``tasks.resume.preflight``).

    Returns:
        The run that has answered already what this one would ask; None where there is something to measure.

    Raises:
        ConfigError: the question is on its way elsewhere (``refuse_elsewhere``).
    """
    if plan.suite is None or batches.begun(staging):
        return None
    every = [one for one in BundleStore(place).manifests() if one.run_id not in without]
    try:
        if plan.baseline is None:
            return _baseline(plan, every, staging, place, report)
        if plan.policy.looks:
            return _candidate(plan, plan.baseline, every, staging, place, report)
    except RunError as error:
        report.line(f"{plan.checkpoint.name}: an earlier run is not continued: {error}")
        return None
    fewer = (one for one in every if _same_setting(plan, one) and chains.unanswered(plan, one.tasks))
    if one := next(fewer, None):
        told = "asked too few documents to decide anything: this is a run of its own"
        if question(one) == question(plan):
            told = "has spent its alpha and can't go on: this is a check, which decides nothing"
        judges = f"policy {plan.policy_name} judges once, at the end"
        report.line(f"{plan.checkpoint.name}: {judges}, and run {one.run_id} with its limit {told}")
    return None


def _same_setting(plan: RunPlan, other: Manifest) -> bool:
    """Whether a run asks the same in the same setting: all but how many documents, and under which load."""
    change: dict[str, Any] = {"suite": question_of(other.inputs.suite), "workload": plan.inputs.workload}
    if deciding(other.policy) == deciding(plan.policy):
        change["policy_fingerprint"] = plan.inputs.policy_fingerprint
    ours = plan.inputs.model_copy(update={"suite": question_of(plan.inputs.suite)})
    return _in_order(other) and ours == other.inputs.model_copy(update=change)


def _in_order(manifest: Manifest) -> bool:
    """Whether a run's documents are the first of the order: earlier ones knew none."""
    return bool(manifest.tasks) and all(task.documents_available is not None for task in manifest.tasks)


def _baseline(
    plan: RunPlan, every: Sequence[Manifest], staging: Staging, place: str, report: Reporter
) -> Manifest | None:
    """A baseline is asked each document once; who has answered more than is asked serves under a policy with looks.

    Where other bundles of it hold more of a task than the run of this question, each task is left to be taken from the
    one that holds most (``tasks.resume.baseline_reuse``).
    """
    earlier = [
        one for one in every if _same_setting(plan, one) and one.inputs.workload == plan.inputs.workload
    ]
    for one in reversed(earlier):
        if plan.policy.looks and not chains.unanswered(plan, one.tasks):
            report.line(
                f"{plan.checkpoint.name}: run {one.run_id} has answered these documents, nothing to do"
            )
            return one
    fewer = [one for one in earlier if _within(plan, one)]
    run = max(fewer, key=documents_of, default=None)
    usable = [one for one in every if shared_parts.is_of_the_same(plan, one)]
    if run and not any(_held_more(plan, run, other) for other in usable):
        _go_on(run, plan, staging, BundleStore(place), report)
    return None


def _within(plan: RunPlan, run: Manifest) -> bool:
    """Whether a run has answered no more documents than this one may."""
    return all(task.documents <= chains.wanted(plan, task) for task in run.tasks)


def _held_more(plan: RunPlan, run: Manifest, other: Manifest) -> bool:
    """Whether another bundle holds more of a task's documents than a run does, of those that are wanted."""
    assert plan.suite is not None
    answered = {task.task: task.documents for task in run.tasks}
    results = [shared_parts.held(plan, task, other) for task in plan.suite.tasks]
    return any(
        min(result.documents, chains.wanted(plan, result)) > answered.get(result.task, 0)
        for result in results
        if result
    )


def _candidate(
    plan: RunPlan,
    baseline: BaselineRef,
    every: Sequence[Manifest],
    staging: Staging,
    place: str,
    report: Reporter,
) -> Manifest | None:
    """What the first run that could decide has left: nothing, documents to go on with, or another load."""
    store, name = BundleStore(place), plan.checkpoint.name
    found = pursue(plan, every, store)
    if found is None:
        _tell_other_question(plan, every, report)
        return None
    refuse_elsewhere(plan, found)
    tip = found.chain.tip
    if found.answered:
        report.line(f"{name}: {found.told}, nothing to do: {found.why}")
        return found.answered
    if found.elsewhere or not _within(plan, tip):
        report.line(f"{name}: {found.told}; this run is one of its own, which decides nothing")
        return None
    held = baseline_of(place, baseline.run_id).samples
    if judged_against(store, tip) != scores(tip, held):
        report.line(
            f"{name}: run {tip.run_id} was judged against other answers of the baseline and is not continued: this "
            "is a run of its own"
        )
        return None
    if not found.is_open:
        report.line(f"{name}: {found.told}; another load is measured, and no document is asked again")
    _go_on(tip, plan, staging, store, report)
    return None


def pursue(plan: RunPlan, every: Sequence[Manifest], store: BundleStore) -> Pursuit | None:
    """What the runs of a candidate's question have left to its run.

    Args:
        plan: the candidate's, under a policy with looks; which run of its baseline it names is of no account.
        every: manifests of the bundles, oldest first.
        store: where they lie.

    Returns:
        None where no run of the question in this setting decides anything.

    Raises:
        RunError: a bundle is damaged or gone.
    """
    asked, here = question(plan), [one for one in every if _same_setting(plan, one)]
    alike = [one for one in every if _in_order(one) and question(one) == asked]
    if here:  # the last one tells which kernels are chosen here now, and those make the question
        key = verdict_key(here[-1])
        alike, here = ([one for one in runs if verdict_key(one) == key] for runs in (alike, here))
    everywhere = list(chains.deciding(alike, store))
    found = list(chains.deciding(here, store))
    for one in (*everywhere, *found):
        if one.is_open(plan):
            return Pursuit(one, is_open=True, elsewhere=other_setting(plan, one.tip))
    for stood in (found, everywhere):
        if chain := next((one for one in stood if "all" in one.stands), None):
            told, why = _answer(stood)
            elsewhere = other_setting(plan, chain.tip)
            answered = None if elsewhere else _with_this_load(plan, chain, here)
            return Pursuit(chain, is_open=False, answered=answered, told=told, why=why, elsewhere=elsewhere)
    return None


def _with_this_load(plan: RunPlan, chain: Chain, here: Sequence[Manifest]) -> Manifest | None:
    """The last run that has measured the load of this one, the chain's before others."""
    runs = [*(one for one in here if one not in chain.runs), *chain.runs]
    measured = [one for one in runs if plan.workload is None or one.inputs.workload == plan.inputs.workload]
    return measured[-1] if measured else None


def _answer(found: Sequence[Chain]) -> tuple[str, str]:
    """What has come of a question, and why it is not asked further."""
    stands = {use: stand for chain in found for use, stand in chain.stands.items()}
    uses = sorted(stands, key=lambda use: (use != "all", use))
    rest = [stands[use] for use in uses if stands[use].verdict.verdict not in DECIDED]
    if rest:
        run_id, verdict = rest[0]
        return f"run {run_id} has answered all that is asked", verdict.reason
    each = [f"{stands[use].verdict.verdict} by run {stands[use].run_id}" for use in uses]
    if len(set(each)) > 1:
        each = [f"{use} {told}" for use, told in zip(uses, each, strict=True)]
    why = "a verdict is not drawn again (--fresh measures anew, to see whether anything drifts)"
    return ", ".join(dict.fromkeys(each)), why


def refuse_elsewhere(plan: RunPlan, found: Pursuit) -> None:
    """Keep a run from being measured that could not decide, since its question is on its way in another setting.

    Raises:
        ConfigError: it is.
    """
    if found.is_open and found.elsewhere:
        tip = found.chain.tip
        raise ConfigError(
            f"run {tip.run_id} has begun to answer this question and is INCONCLUSIVE; answers from here can't join it, "
            f"since its {found.elsewhere} differs, and a run of its own would decide nothing",
            where=plan.checkpoint.name,
            hint="Let that one go on where it was begun, or measure here with --fresh, to see whether anything drifts.",
        )


def other_setting(plan: RunPlan, run: Manifest) -> str:
    """What differs of that which a run's answers depend on; empty where a run of the same question may join it."""
    if _same_setting(plan, run):
        return ""
    differ = [
        f"{name.replace('_', ' ')} ({there} there, {here} here)" if name != "serving" else "serving"
        for name in shared_parts.SETTING
        if (there := getattr(run.inputs, name)) != (here := getattr(plan.inputs, name))
    ]
    return ", ".join(differ) or "setting"


def judged_against(store: BundleStore, run: Manifest) -> Scores:
    """The baseline's scores that a run was judged against, by task.

    Raises:
        RunError: the baseline's bundle is damaged or gone.
    """
    assert run.baseline is not None
    return scores(run, store.read_table(store.read_manifest(run.baseline.run_id), SAMPLES_FILE))


def scores(run: Manifest, samples: pa.Table) -> Scores:
    """A baseline's scores of the documents that a run has answered, by task."""
    answered = {task.task: task.documents for task in run.tasks}
    found: Scores = {task: set() for task in answered}
    columns = ["task", "doc_id", "doc_repeat", "score", "position"]
    for row in samples.select(columns).to_pylist():
        if row["position"] is not None and row["position"] < answered.get(row["task"], 0):
            found[row["task"]].add(tuple(row.values()))
    return found


def documents_of(run: Manifest) -> int:
    """Documents that a run has answered, of all its tasks."""
    return sum(task.documents for task in run.tasks)


def _go_on(run: Manifest, plan: RunPlan, staging: Staging, store: BundleStore, report: Reporter) -> None:
    """Take its answers over, unless parts of this run are there from a start of the engine that wouldn't join."""
    name = plan.checkpoint.name
    if all(map(staging.joins, run.engine_starts)):
        batches.take_over(staging, plan, run, *(store.read_table(run, table) for table in _TABLES))
        report.line(
            f"{name}: goes on from run {run.run_id} and asks none of its documents again: {documents_of(run):,}"
        )
    else:
        report.line(
            f"{name}: run {run.run_id} had other kernels and is not continued: this is a run of its own"
        )


def _tell_other_question(plan: RunPlan, every: Sequence[Manifest], report: Reporter) -> None:
    """Say of an earlier run with a limit what makes this one another question, which it decides by itself."""
    same = set(RunInputs.model_fields) - {"suite", "workload", *_OWN_QUESTION}
    for one in reversed(every):
        asks = question_of(plan.inputs.suite) == question_of(one.inputs.suite)
        alike = asks and all(getattr(plan.inputs, name) == getattr(one.inputs, name) for name in same)
        differ = [name for name in _OWN_QUESTION if getattr(plan.inputs, name) != getattr(one.inputs, name)]
        if alike and differ and chains.unanswered(plan, one.tasks):
            named = ", ".join(name.replace("_", " ") for name in differ)
            report.line(
                f"{plan.checkpoint.name}: run {one.run_id} is not continued, its {named} differs, which makes this "
                "another question: this run decides it by itself"
            )
            return
