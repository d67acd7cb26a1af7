"""Begin a run as it was decided: with the answers of an earlier one, with those of several bundles, or with none."""

from __future__ import annotations

from collections.abc import Sequence

from quantgate.bundles import batches
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.staging import Staging
from quantgate.bundles.store import BundleStore
from quantgate.model.config.suites import SuiteTask
from quantgate.model.errors import RunError
from quantgate.model.records import RunPlan
from quantgate.model.words import counted
from tasks.progress import Reporter
from tasks.resume.baseline_reuse import inherit_task
from tasks.resume.chains import Scores, documents_of, scores
from tasks.resume.decision import AddLoad, Continue, Measure
from tasks.resume.interim_looks import baseline_of
from tasks.resume.parts import begin_parts


def begin(
    plan: RunPlan,
    decision: Continue | AddLoad | Measure,
    staging: Staging,
    store: BundleStore,
    report: Reporter,
) -> None:
    """Put the answers and other parts of earlier runs into a run's staging; what the run has begun itself stays.

    Args:
        plan: the run; a candidate's names its baseline's run.
        decision: what was decided of it.
        staging: the run's.
        store: where the bundles lie.
        report: gets a line about what is inherited from where, or why it isn't.
    """
    if isinstance(decision, Measure):
        _report(decision.lines, report)
        for run_id, tasks in decision.inherit.items():
            _inherit(plan, tasks, run_id, staging, store, report)
    elif not batches.begun(staging):
        try:
            _continue(plan, decision, staging, store, report)
        except RunError as error:
            report.line(f"{plan.checkpoint.name}: an earlier run is not continued: {error}")
    begin_parts(plan, decision.parts, staging, store, report)


def _report(lines: Sequence[str], report: Reporter) -> None:
    for line in lines:
        report.line(line)


def _continue(
    plan: RunPlan, decision: Continue | AddLoad, staging: Staging, store: BundleStore, report: Reporter
) -> None:
    """Begin with all answers of one run, unless answers of this one would not join them.

    Raises:
        RunError: a bundle is damaged or gone.
    """
    run, name = decision.run, plan.checkpoint.name
    if decision.against is not None and not _same_baseline(plan, run, decision.against, store):
        report.line(
            f"{name}: run {run.run_id} was judged against other answers of the baseline and is not continued: this "
            "is a run of its own"
        )
        return
    _report(decision.lines, report)
    if not all(map(staging.joins, run.engine_starts)):
        report.line(
            f"{name}: run {run.run_id} had other kernels and is not continued: this is a run of its own"
        )
        return
    batches.inherit_run(staging, plan, store.read_answers(run))
    report.line(
        f"{name}: goes on from run {run.run_id} and asks none of its documents again: {documents_of(run):,}"
    )


def _same_baseline(plan: RunPlan, run: Manifest, against: Scores, store: BundleStore) -> bool:
    """Return True if the baseline's run of this validation gave the answers that a run was judged against."""
    assert plan.baseline is not None
    return against == scores(run, baseline_of(store.url, plan.baseline.run_id).samples)


def _inherit(
    plan: RunPlan,
    tasks: Sequence[SuiteTask],
    run_id: str,
    staging: Staging,
    store: BundleStore,
    report: Reporter,
) -> None:
    """Begin some tasks of a baseline with the answers of one bundle, which is checked as the loader checks it."""
    tasks = [task for task in tasks if not _begun(staging, task)]
    if not tasks:
        return
    name = plan.checkpoint.name
    try:
        source = store.read_answers(store.read_manifest(run_id))
    except RunError as error:
        report.line(f"{name}: nothing is inherited from run {run_id}: {error}")
        return
    counts = {task.task: inherit_task(staging, plan, task, source) for task in tasks}
    inherited = ", ".join(
        f"{task} ({counted(documents, 'document', ',')})" for task, documents in counts.items() if documents
    )
    if inherited:
        report.line(
            f"{name}: answered before, in run {run_id} of {source.manifest.measured_at:%Y-%m-%d %H:%M} UTC, and "
            f"reused: {inherited}; --fresh asks again"
        )


def _begun(staging: Staging, task: SuiteTask) -> bool:
    return staging.task_result(task.task) is not None or bool(batches.finished(staging, task.task))
