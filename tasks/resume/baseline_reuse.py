"""A baseline measured once and shared: what an earlier bundle of it holds is taken over, and the rest is asked."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from quantgate.bundles import batches
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.staging import Staging
from quantgate.bundles.store import BundleStore
from quantgate.model.config.suites import SuiteTask
from quantgate.model.errors import RunError
from quantgate.model.records import RunPlan
from tasks.progress import Reporter
from tasks.resume import shared_parts


def take_over(
    plan: RunPlan, staging: Staging, place: str, report: Reporter, without: Collection[str] = ()
) -> None:
    """Take over the answers of earlier bundles into a baseline's run, each task's from the one with most of them.

    Args:
        plan: any run's; a candidate's takes nothing.
        staging: the run on its way; tasks that it has begun itself stay.
        place: folder or fsspec URL of the bundles.
        report: told what is taken from where.
        without: bundles that nothing is to be taken from (``tasks.resume.preflight``).
    """
    if plan.baseline is not None or plan.suite is None:
        return
    wanted = [task for task in plan.suite.tasks if not _begun(staging, task)]
    if not wanted:
        return
    usable = [
        m
        for m in BundleStore(place).manifests()
        if m.run_id not in without and shared_parts.is_of_the_same(plan, m)
    ]
    by_run: dict[str, list[SuiteTask]] = {}
    for task in wanted:
        run_id = _longest(plan, task, usable)
        if run_id:
            by_run.setdefault(run_id, []).append(task)
    for manifest in usable:
        if manifest.run_id in by_run:
            _take(plan, staging, by_run[manifest.run_id], manifest, place, report)


def _longest(plan: RunPlan, task: SuiteTask, usable: Sequence[Manifest]) -> str | None:
    """The run that holds most of the documents that are wanted, the last of several."""
    assert plan.suite is not None
    found, most = None, 0
    for manifest in usable:
        result = shared_parts.held(plan, task, manifest)
        documents = min(result.documents, plan.suite.limit or result.documents) if result else 0
        if documents and documents >= most:
            found, most = manifest.run_id, documents
    return found


def _begun(staging: Staging, task: SuiteTask) -> bool:
    return staging.task_result(task.task) is not None or bool(batches.finished(staging, task.task))


def _take(
    plan: RunPlan,
    staging: Staging,
    tasks: list[SuiteTask],
    manifest: Manifest,
    place: str,
    report: Reporter,
) -> None:
    """Take some tasks from one bundle, which is checked as the loader checks it."""
    store = BundleStore(place)
    try:
        samples, controls, prompts = (
            store.read_table(manifest, f"{name}.parquet")
            for name in ("samples", "control_samples", "prompts")
        )
    except RunError as error:
        report.line(f"{plan.checkpoint.name}: nothing is taken over from there: {error}")
        return
    source = shared_parts.Source(manifest, samples, controls, prompts)
    taken = {task.task: shared_parts.take(staging, plan, task, source) for task in tasks}
    told = ", ".join(f"{task} ({documents:,} documents)" for task, documents in taken.items() if documents)
    if told:
        report.line(
            f"{plan.checkpoint.name}: answered before, in run {manifest.run_id} of "
            f"{manifest.measured_at:%Y-%m-%d %H:%M} UTC, and taken over: {told}; --fresh asks again"
        )
