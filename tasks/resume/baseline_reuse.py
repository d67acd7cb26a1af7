"""Begin a baseline's task with the answers of an earlier bundle of the same checkpoint, engine, hardware and serving.

Every policy, suite, workload and candidate asks a baseline the same documents: it answers them once.
"""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.compute as pc

from quantgate.bundles import batches
from quantgate.bundles.identity import reusable_result, same_engine
from quantgate.bundles.manifest import TaskResult
from quantgate.bundles.staging import Staging
from quantgate.bundles.store import Answers
from quantgate.model.config.suites import SuiteTask
from quantgate.model.records import RunPlan


def inherit_task(staging: Staging, plan: RunPlan, task: SuiteTask, source: Answers) -> int:
    """Begin a task with its first documents of an earlier bundle, as the first batch of a run that has none yet.

    Args:
        staging: of the baseline's run in progress.
        plan: its plan.
        task: of its suite; the source holds it.
        source: the answers in the earlier bundle.

    Returns:
        How many documents were inherited: as many as the plan's limit asks for, or fewer where there are fewer; 0 where
        the positions of the answers weren't recorded, or the engine that gave them chose other kernels than
        the one that gave what the run has already.
    """
    result = reusable_result(plan, task, source.manifest)
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
    """Return True if any score is a number."""
    return not all(map(math.isnan, rows["score"].to_pylist()))


def _first(samples: pa.Table, task: SuiteTask, limit: int | None) -> pa.Table:
    """Return a task's rows from position 0 on, without a gap, up to the limit; none without positions."""
    rows = samples.filter(pc.equal(samples["task"], task.task)).sort_by("position")
    if limit is not None:
        rows = rows.slice(0, limit)
    whole = rows["position"].to_pylist() == list(range(rows.num_rows))
    return rows if whole else rows.slice(0, 0)


def _add_starts(staging: Staging, rows: pa.Table, source: Answers) -> bool:
    """Record the engine starts that gave some answers; return False where they don't join what is there."""
    named = set(rows["engine_start_id"].to_pylist())
    starts = [start for start in source.manifest.engine_starts if start.engine_start_id in named]
    joined = [*staging.starts(), *starts]
    if not all(same_engine(joined[0], start) for start in joined):
        return False
    for start in starts:
        staging.add_start(start)
    return True


def _write(staging: Staging, task: SuiteTask, rows: pa.Table, result: TaskResult, source: Answers) -> None:
    """Write a batch that appears whole."""
    families = pa.array([task.family.value] * rows.num_rows, pa.string())
    rows = rows.set_column(rows.schema.get_field_index("family"), rows.schema.field("family"), families)
    inherited = result.model_copy(
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
    batches.write_part(batches.batch_dir(staging, task.task, 0), inherited, rows, prompts)
