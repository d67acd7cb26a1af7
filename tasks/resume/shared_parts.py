"""What a baseline has answered already, in an earlier bundle of the same checkpoint, engine, hardware and serving.

A baseline is held to the same documents by every policy, suite, workload and candidate: it answers them once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from quantgate.bundles import batches
from quantgate.bundles.manifest import Manifest, TaskResult
from quantgate.bundles.staging import Staging, same_engine
from quantgate.model.config.suites import SuiteTask
from quantgate.model.enums import Validity
from quantgate.model.records import RunInputs, RunPlan

SETTING = (
    *("checkpoint_revision", "baseline_revision", "engine", "engine_version", "serving"),
    *("gpu", "gpu_count", "mig_slice", "sm_arch", "device_name", "cpu_cores"),
)
"""Of a run's inputs, what its answers depend on beside the tasks."""

_OF_ANOTHER_RUN = frozenset({"tasks", "limit", "limit_of", "full", "fidelity"})
"""Of a suite's content, what says which documents and tasks are asked, and nothing of how."""

_SETTLES = frozenset({"family"})
"""Of a task's content, what a verdict takes from it and no answer depends on."""


class Source(NamedTuple):
    """An earlier bundle of the baseline, as far as it is read."""

    manifest: Manifest
    samples: pa.Table
    controls: pa.Table
    prompts: pa.Table


def is_of_the_same(plan: RunPlan, manifest: Manifest) -> bool:
    """Whether a bundle's answers are those that the plan's baseline would give.

    Args:
        plan: a baseline's.
        manifest: of an earlier bundle.
    """
    ours, theirs = plan.inputs, manifest.inputs
    return (
        plan.baseline is None
        and manifest.validity is Validity.VALID
        and all(getattr(ours, name) == getattr(theirs, name) for name in SETTING)
        and _asking(ours) == _asking(theirs)
    )


def _asking(inputs: RunInputs) -> dict[str, Any]:
    """How a suite asks, whatever it asks."""
    return {key: value for key, value in (inputs.suite or {}).items() if key not in _OF_ANOTHER_RUN}


def held(plan: RunPlan, task: SuiteTask, manifest: Manifest) -> TaskResult | None:
    """The result of a task in a bundle that `is_of_the_same`, if its content is the same there.

    None too where it was measured before the order of documents was recorded.
    """
    ours, theirs = (_content(inputs, task.task) for inputs in (plan.inputs, manifest.inputs))
    if ours is None or ours != theirs:
        return None
    found = next((result for result in manifest.tasks if result.task == task.task), None)
    return found if found and found.documents_available is not None else None


def _content(inputs: RunInputs, task: str) -> dict[str, Any] | None:
    for content in (inputs.suite or {}).get("tasks", []):
        if content["task"] == task:
            return {key: value for key, value in content.items() if key not in _SETTLES}
    return None


def take(staging: Staging, plan: RunPlan, task: SuiteTask, source: Source) -> int:
    """Take a task's first documents into a run that has none of them yet, as the batch that it begins with.

    Args:
        staging: the baseline's run on its way.
        plan: its plan.
        task: of its suite; the source holds it.
        source: the earlier bundle.

    Returns:
        How many documents were taken: as many as the plan's limit asks for, or fewer where there are fewer; 0 where
        the positions of the answers weren't recorded, or the engine that gave them chose other kernels than
        the one that gave what the run has already.
    """
    assert plan.suite is not None
    result = held(plan, task, source.manifest)
    assert result is not None
    rows = _first(source.samples, task, plan.suite.limit)
    if not _has_score(rows) or not _add_starts(staging, rows, source):
        return 0
    _write(staging, task, rows, result, source)
    wanted = batches.again_wanted(plan, result)
    again = _first(source.controls, task, wanted)
    if _has_score(again) and _add_starts(staging, again, source):
        _write(staging.controls, task, again, result, source)
        if again.num_rows == wanted:
            batches.join(staging.controls, task.task, judged=False)
    return int(rows.num_rows)


def _has_score(rows: pa.Table) -> bool:
    """Whether any score is a number."""
    return not all(map(math.isnan, rows["score"].to_pylist()))


def _first(samples: pa.Table, task: SuiteTask, limit: int | None) -> pa.Table:
    """A task's rows from position 0 on, without a gap, up to the limit; none where positions weren't recorded."""
    rows = samples.filter(pc.equal(samples["task"], task.task)).sort_by("position")
    if limit is not None:
        rows = rows.slice(0, limit)
    whole = rows["position"].to_pylist() == list(range(rows.num_rows))
    return rows if whole else rows.slice(0, 0)


def _add_starts(staging: Staging, rows: pa.Table, source: Source) -> bool:
    """Record the engine starts that gave some answers; False where they don't join what is there."""
    named = set(rows["engine_start_id"].to_pylist())
    starts = [start for start in source.manifest.engine_starts if start.engine_start_id in named]
    there = [*staging.starts(), *starts]
    if not all(same_engine(there[0], start) for start in there):
        return False
    for start in starts:
        staging.add_start(start)
    return True


def _write(staging: Staging, task: SuiteTask, rows: pa.Table, result: TaskResult, source: Source) -> None:
    """A batch that appears whole."""
    families = pa.array([task.family.value] * rows.num_rows, pa.string())
    rows = rows.set_column(rows.schema.get_field_index("family"), rows.schema.field("family"), families)
    taken = result.model_copy(
        update={
            "family": task.family,
            "documents": rows.num_rows,
            "mean_score": batches.mean_score(rows["score"].to_pylist()),
            "engine_start_id": rows["engine_start_id"][-1].as_py(),
        }
    )
    prompts = source.prompts.filter(
        pc.is_in(source.prompts["prompt_hash"], value_set=rows["prompt_hash"].combine_chunks().unique())
    )
    batches.write_part(batches.batch_dir(staging, task.task, 0), taken, rows, prompts)
