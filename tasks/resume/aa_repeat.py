"""Repeat a baseline's answers (A/A): which documents it answers once more, and by which start of its engine.

How often its own answers change over a restart of the engine is the noise floor of every comparison with it.
"""

from __future__ import annotations

import pyarrow.parquet as pq

from quantgate.bundles.manifest import EngineStart
from quantgate.bundles.schema import SAMPLES_FILE
from quantgate.bundles.staging import Staging
from quantgate.model.config.suites import SuiteTask
from quantgate.model.records import RunPlan


def once_more(plan: RunPlan) -> RunPlan:
    """Return the plan of the second answers: the same tasks, the first documents of each, a name that tells them apart.

    Args:
        plan: a baseline's, whose policy asks for A/A documents.
    """
    wanted = plan.policy.aa_documents
    limit = wanted if plan.suite.limit is None else min(wanted, plan.suite.limit)
    name = f"{plan.checkpoint.name} once more (A/A)"
    return plan.model_copy(
        update={
            "suite": plan.suite.model_copy(update={"limit": limit}),
            "checkpoint": plan.checkpoint.model_copy(update={"name": name}),
        }
    )


def missing(plan: RunPlan, staging: Staging) -> list[SuiteTask]:
    """Return the tasks that the baseline has answered and not yet once more.

    A candidate has none, and neither has a policy without A/A documents. A task with fewer documents than the
    policy asks for validates nothing, so its noise is not measured either.
    """
    if plan.baseline is not None or plan.policy.aa_documents == 0:
        return []
    tasks = []
    for task in plan.suite.tasks:
        result = staging.task_result(task.task)
        enough = result is not None and result.documents >= plan.policy.families[task.family].min_documents
        if enough and staging.controls.task_result(task.task) is None:
            tasks.append(task)
    return tasks


def over_a_restart(plan: RunPlan, staging: Staging, task: SuiteTask, start: EngineStart) -> bool:
    """Return True if none of the answers that A/A compares with came from this start of the engine."""
    file = staging.task_dir(task.task) / SAMPLES_FILE
    samples = pq.read_table(file, columns=["position", "engine_start_id"]).sort_by("position")
    first = samples.slice(0, plan.policy.aa_documents)
    return start.engine_start_id not in first["engine_start_id"].to_pylist()


def text_missing(staging: Staging, start: EngineStart) -> bool:
    """Return True if another start of the engine was asked about the fixed text, and none once more."""
    result = staging.fidelity_result()
    asked = result is not None and not result.skipped and result.engine_start_id != start.engine_start_id
    return asked and staging.controls.fidelity_result() is None
