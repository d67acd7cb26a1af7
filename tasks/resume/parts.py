"""Reuse the fidelity and the load levels of earlier bundles: a change of policy or suite doesn't change them.

They depend on the checkpoint, the engine and the device alone, so that another run would measure the same once more.
Answers are not parts: `tasks.resume.decision` says whose answers a run begins with.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from quantgate.bundles.identity import is_served_alike
from quantgate.bundles.manifest import EngineStart, FidelityResult, Manifest
from quantgate.bundles.schema import FIDELITY_FILE
from quantgate.bundles.staging import RESULT, Staging, write_json
from quantgate.bundles.store import BundleStore
from quantgate.model.enums import Validity
from quantgate.model.errors import RunError
from quantgate.model.records import RunPlan
from quantgate.model.words import counted
from tasks.fidelity.text import read_text
from tasks.progress import Reporter
from tasks.throughput import bench


class Parts(NamedTuple):
    """The runs that hold parts of a planned one."""

    fidelity: str | None = None
    """The run with the engine's distributions on the fixed text."""
    load: Mapping[str, str] = {}
    """The run of each load level that was measured, by the level's name."""

    @property
    def runs(self) -> list[str]:
        """Return the ids of the runs, each once."""
        named = [*([self.fidelity] if self.fidelity else []), *self.load.values()]
        return list(dict.fromkeys(named))


def measured_parts(plan: RunPlan, runs: Sequence[Manifest]) -> Parts:
    """Find the last run that has measured each part of a planned one.

    Args:
        plan: the run.
        runs: those of the bundles store, the first declared first.
    """
    alike = [run for run in runs if is_served_alike(plan, run)]
    text_id = read_text(plan.suite).text_id
    texts = [
        run.run_id
        for run in alike
        if run.fidelity and not run.fidelity.skipped and run.fidelity.text_id == text_id
    ]
    load: dict[str, str] = {}
    wanted = [bench.load_of(plan.workload, level) for level in bench.levels(plan.workload, Path())]
    for run in alike:
        measured = (
            [bench.load_of(run.workload, level) for level in bench.levels(run.workload, Path())]
            if run.workload
            else []
        )
        load |= {level["operating_point"]: run.run_id for level in wanted if level in measured}
    return Parts(texts[-1] if texts else None, load)


def begin_parts(plan: RunPlan, parts: Parts, staging: Staging, store: BundleStore, report: Reporter) -> None:
    """Put the parts of earlier bundles into a run's staging; what the run has measured itself stays.

    A part that is older than the policy allows (``stale_after_days``), is quarantined, or came from an engine with
    other kernels is left out, and measured.

    Args:
        plan: the run.
        parts: which bundles hold what.
        staging: the run's.
        store: where the bundles lie.
        report: gets a line about what is reused from where, or why it isn't.
    """
    name = plan.checkpoint.name
    for run_id in parts.runs:
        try:
            source = store.read_manifest(run_id)
            reused = _fidelity(plan, staging, source, store) if parts.fidelity == run_id else []
            points = {point for point, run in parts.load.items() if run == run_id}
            levels = _levels(plan, points, staging, source, store)
        except RunError as error:
            report.line(f"{name}: nothing is reused from run {run_id}: {error}")
            continue
        if levels:
            reused.append(f"{counted(len(levels), 'load level')} ({', '.join(levels)})")
        if reused:
            report.line(
                f"{name}: measured before, in run {run_id} of {source.measured_at:%Y-%m-%d %H:%M} UTC, and reused: "
                f"{', '.join(reused)}; --fresh measures anew"
            )


def _is_new_enough(plan: RunPlan, measured_at: datetime) -> bool:
    return datetime.now(UTC) <= measured_at + timedelta(days=plan.policy.stale_after_days)


def _start_of(source: Manifest, start_id: str) -> EngineStart | None:
    return next((start for start in source.engine_starts if start.engine_start_id == start_id), None)


def _join_start(staging: Staging, source: Manifest, start_id: str) -> bool:
    """Record the engine start that measured a part; return False where it doesn't join what is there."""
    start = _start_of(source, start_id)
    if start is None or not staging.joins(start):
        return False
    staging.add_start(start)
    return True


def _fidelity(plan: RunPlan, staging: Staging, source: Manifest, store: BundleStore) -> list[str]:
    """Reuse the distributions on the fixed text, and a baseline's A/A repeat of them; name what was reused."""
    result, own = source.fidelity, staging.fidelity_result()
    if result is None or (own and own.text_id == result.text_id):
        return []
    start = _start_of(source, result.engine_start_id)
    if start is None or not _is_new_enough(plan, start.started_at):
        return []
    if not _join_start(staging, source, start.engine_start_id):
        return []
    rows = store.read_table(source, FIDELITY_FILE)
    _write_fidelity(staging, rows, result, source)
    for start_id in rows["engine_start_id"].unique().to_pylist():
        if start_id != result.engine_start_id and _join_start(staging, source, start_id):
            again = result.model_copy(update={"engine_start_id": start_id})
            _write_fidelity(staging.controls, rows, again, source)
    return ["fidelity"]


def _write_fidelity(staging: Staging, rows: pa.Table, result: FidelityResult, source: Manifest) -> None:
    """Write the rows of one engine start; the result is written last, and a part without one is not finished."""
    folder = staging.fidelity_dir
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pq.write_table(
        rows.filter(pc.equal(rows["engine_start_id"], result.engine_start_id)), folder / FIDELITY_FILE
    )
    staging.mark_fidelity_reused(source.reused.get("fidelity", source.run_id))
    write_json(folder / RESULT, result.model_dump(mode="json"))


def _levels(
    plan: RunPlan, names: set[str], staging: Staging, source: Manifest, store: BundleStore
) -> list[str]:
    """Reuse load levels; return the names of those that were."""
    todo = [
        level
        for level in bench.unfinished(plan.workload, staging.load_dir)
        if level["operating_point"] in names
    ]
    if not todo:
        return []
    points = {row["operating_point"]: row for row in store.read_table(source, bench.POINTS_FILE).to_pylist()}
    requests = store.read_table(source, bench.REQUESTS_FILE)
    reused = []
    for level in todo:
        name = level["operating_point"]
        point = points.get(name)
        if (
            point
            and _is_reusable(plan, level, point)
            and _join_start(staging, source, point["engine_start_id"])
        ):
            own: list[dict[str, Any]] = requests.filter(
                pc.equal(requests["operating_point"], name)
            ).to_pylist()
            bench.write_reused(level, point, own, source.reused.get(f"load {name}", source.run_id))
            reused.append(name)
    return reused


def _is_reusable(plan: RunPlan, level: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    """Return True if a measured point is of the same load as a level, is valid, and is new enough."""
    load = bench.load_of(plan.workload, level)
    return (
        point["validity"] == Validity.VALID
        and load == {name: point[name] for name in load}
        and _is_new_enough(plan, point["measured_at"])
    )
