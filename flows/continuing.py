"""A run that goes on where an earlier one of the same question ended: its documents are not asked again.

A verdict is not drawn again until it passes: the first declared run decides, and one that
ended INCONCLUSIVE goes on with new documents, within the alpha that its looks have left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from flows.looks import baseline_of
from quantgate.model.enums import Validity, Verdict
from quantgate.model.errors import RunError
from quantgate.model.records import (
    BaselineRef,
    Manifest,
    RunInputs,
    RunPlan,
    TaskResult,
    UseVerdict,
    question_of,
)
from quantgate.model.tables import CONTROL_SAMPLES_FILE, PROMPTS_FILE, SAMPLES_FILE
from tasks import batches, bundle, shared_parts
from tasks.progress import Reporter
from tasks.staging import Staging
from warehouse.bundles import BundleStore
from warehouse.judge import judge_runs

_TABLES = (SAMPLES_FILE, PROMPTS_FILE, CONTROL_SAMPLES_FILE)
_DECIDED = {Verdict.VALIDATED, Verdict.REJECTED}
_OTHER_QUESTION = {
    "checkpoint_revision",
    "baseline_revision",
    "gpu",
    "mig_slice",
    "sm_arch",
    "suite",
    "policy_fingerprint",
}


def take_up(plan: RunPlan, staging: Staging, place: str, report: Reporter) -> Manifest | None:
    """Begin a run with the answers of the one that it continues, if there is one.

    Args:
        plan: the run; no bundle has its fingerprint.
        staging: the run's.
        place: folder or fsspec URL of the bundles.
        report: told of what is continued, or why it isn't.

    Returns:
        The run that has answered already what this one would ask; None where there is something to measure.
    """
    if plan.suite is None or batches.begun(staging):
        return None
    every = list(bundle.manifests(place))
    earlier = [one for one in every if _same_question(plan.inputs, one.inputs) and _in_order(one)]
    try:
        if plan.baseline is None:
            usable = [one for one in every if shared_parts.is_of_the_same(plan, one)]
            return _baseline(plan, earlier, usable, staging, place, report)
        if plan.policy.looks:
            if not earlier:
                _tell_unlike(plan, every, report)
            return _candidate(plan, plan.baseline, earlier, staging, place, report)
    except RunError as error:
        report.line(f"{plan.checkpoint.name}: an earlier run is not continued: {error}")
        return None
    if any(_open(plan, one.tasks) for one in earlier):
        report.line(
            f"{plan.checkpoint.name}: policy {plan.policy_name} judges once, at the end: the earlier run with a limit "
            "has spent its alpha and can't go on; this is a run of its own"
        )
    return None


def _same_question(one: RunInputs, other: RunInputs) -> bool:
    """Whether two runs differ in nothing but how many documents they ask."""
    return one.model_copy(update={"suite": question_of(one.suite)}) == other.model_copy(
        update={"suite": question_of(other.suite)}
    )


def _in_order(manifest: Manifest) -> bool:
    """Whether a run's documents are the first of the order: earlier ones knew none."""
    return bool(manifest.tasks) and all(task.documents_available is not None for task in manifest.tasks)


def _wanted(plan: RunPlan, task: TaskResult) -> int:
    """Documents of a task that a run may answer."""
    assert plan.suite is not None
    available = task.documents_available or task.documents
    return available if plan.suite.limit is None else min(available, plan.suite.limit)


def _open(plan: RunPlan, tasks: Sequence[TaskResult]) -> list[str]:
    """Tasks that could be asked more documents."""
    return [task.task for task in tasks if task.documents < _wanted(plan, task)]


def _baseline(
    plan: RunPlan,
    earlier: Sequence[Manifest],
    usable: Sequence[Manifest],
    staging: Staging,
    place: str,
    report: Reporter,
) -> Manifest | None:
    """A baseline is asked each document once; who has answered more than is asked serves under a policy with looks.

    Where other bundles of it hold more of a task than the run of this question, each task is left to be taken from the
    one that holds most (``flows.shared_baseline``).
    """
    for one in reversed(earlier):
        if plan.policy.looks and not _open(plan, one.tasks):
            report.line(
                f"{plan.checkpoint.name}: run {one.run_id} has answered these documents, nothing to do"
            )
            return one
    fewer = [one for one in earlier if all(task.documents <= _wanted(plan, task) for task in one.tasks)]
    run = max(fewer, key=_documents, default=None)
    if run and not any(_held_more(plan, run, other) for other in usable):
        _go_on(run, plan, staging, BundleStore(place), report)
    return None


def _held_more(plan: RunPlan, run: Manifest, other: Manifest) -> bool:
    """Whether another bundle holds more of a task's documents than a run does, of those that are wanted."""
    assert plan.suite is not None
    answered = {task.task: task.documents for task in run.tasks}
    results = [shared_parts.held(plan, task, other) for task in plan.suite.tasks]
    return any(
        min(result.documents, _wanted(plan, result)) > answered.get(result.task, 0)
        for result in results
        if result
    )


def _candidate(
    plan: RunPlan,
    baseline: BaselineRef,
    earlier: Sequence[Manifest],
    staging: Staging,
    place: str,
    report: Reporter,
) -> Manifest | None:
    """What the first run that could decide has left: nothing, or documents to go on with."""
    store, name = BundleStore(place), plan.checkpoint.name
    for tip in _tips(earlier):
        verdict = _verdict(store, tip)
        if verdict is None:
            continue
        if verdict.verdict in _DECIDED:
            report.line(
                f"{name}: {verdict.verdict} by run {tip.run_id}, nothing to do: a verdict is not drawn again "
                "(--fresh measures anew, to see whether anything drifts)"
            )
            return tip
        undecided = {task.task for task in verdict.tasks if task.outcome == "undecided"}
        if not undecided.intersection(_open(plan, tip.tasks)):
            report.line(
                f"{name}: run {tip.run_id} has answered all that is asked, nothing to do: {verdict.reason}"
            )
            return tip
        if not _same_answers(store, tip, baseline_of(place, baseline.run_id).samples):
            report.line(
                f"{name}: run {tip.run_id} was judged against other answers of the baseline and is not continued: this "
                "is a run of its own"
            )
            return None
        _go_on(tip, plan, staging, store, report)
        return None
    return None


def _tips(runs: Sequence[Manifest]) -> Iterator[Manifest]:
    """The last run of each chain, the chain that began first before the others."""
    ids = {one.run_id for one in runs}
    for root in sorted(runs, key=lambda one: (one.started_at, one.run_id)):
        if root.continues in ids:
            continue
        tip = root
        while following := [one for one in runs if one.continues == tip.run_id]:
            tip = max(following, key=lambda one: (one.started_at, one.run_id))
        yield tip


def _verdict(store: BundleStore, run: Manifest) -> UseVerdict | None:
    """The verdict of a run for every family that it declared; None where it decides nothing."""
    if run.baseline is None or run.validity is not Validity.VALID or not store.is_bundle(run.baseline.run_id):
        return None
    baseline = store.read_manifest(run.baseline.run_id)
    samples = [store.read_table(one, SAMPLES_FILE) for one in (baseline, run)]
    verdict = next(one for one in judge_runs(baseline, samples[0], run, samples[1]) if one.use == "all")
    return verdict if verdict.verdict in {*_DECIDED, Verdict.INCONCLUSIVE} else None


def _same_answers(store: BundleStore, run: Manifest, samples: pa.Table) -> bool:
    """Whether a baseline's samples hold the scores that a run was judged against on its way."""
    assert run.baseline is not None
    before = store.read_table(store.read_manifest(run.baseline.run_id), SAMPLES_FILE)
    answered = {task.task: task.documents for task in run.tasks}
    columns = ["task", "doc_id", "doc_repeat", "score", "position"]
    held, holds = (
        {
            tuple(row.values())
            for row in table.select(columns).to_pylist()
            if row["position"] is not None and row["position"] < answered.get(row["task"], 0)
        }
        for table in (before, samples)
    )
    return held == holds


def _documents(run: Manifest) -> int:
    return sum(task.documents for task in run.tasks)


def _go_on(run: Manifest, plan: RunPlan, staging: Staging, store: BundleStore, report: Reporter) -> None:
    """Take its answers over, unless parts of this run are there from a start of the engine that wouldn't join."""
    name = plan.checkpoint.name
    if all(map(staging.joins, run.engine_starts)):
        batches.take_over(staging, plan, run, *(store.read_table(run, table) for table in _TABLES))
        documents = f"whose {_documents(run):,} documents are not asked again"
        report.line(f"{name}: goes on from run {run.run_id}, {documents}")
    else:
        report.line(
            f"{name}: run {run.run_id} had other kernels and is not continued: this is a run of its own"
        )


def _tell_unlike(plan: RunPlan, every: Sequence[Manifest], report: Reporter) -> None:
    """Say of an earlier run with a limit what keeps this one from going on with it."""
    for one in reversed(every):
        differ = [
            field
            for field in RunInputs.model_fields
            if field != "suite" and getattr(plan.inputs, field) != getattr(one.inputs, field)
        ]
        same_suite = question_of(plan.inputs.suite) == question_of(one.inputs.suite)
        if differ and same_suite and not _OTHER_QUESTION.intersection(differ) and _open(plan, one.tasks):
            named = ", ".join(field.replace("_", " ") for field in differ)
            told = f"run {one.run_id} is not continued, its {named} differs: this run is its own and does not decide"
            report.line(f"{plan.checkpoint.name}: {told}")
            return
