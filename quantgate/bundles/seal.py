"""A run as an immutable bundle: Parquet files and a manifest that appear whole, by rename."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from quantgate.bundles import batches
from quantgate.bundles.identity import run_fingerprint
from quantgate.bundles.manifest import MANIFEST, FileEntry, Manifest, TaskResult
from quantgate.bundles.schema import BUNDLE_FILES, FIDELITY, FIDELITY_FILE
from quantgate.bundles.staging import Staging
from quantgate.bundles.store import open_bundles, reached
from quantgate.model.disk import writing_to
from quantgate.model.records import RunPlan


class LoadRows(NamedTuple):
    """Rows of ``load_points.parquet`` and ``requests.parquet``."""

    points: Sequence[dict[str, Any]]
    requests: Sequence[dict[str, Any]]
    reused: Mapping[str, str] = {}
    """The run that measured a level, by the level's name, where an earlier one did."""


NO_LOAD = LoadRows((), ())

_RECORDED_VERSIONS = ("quantgate", "prefect", "lm-eval", "transformers", "duckdb", "pyarrow")


def write_table(path: Path, table: pa.Table) -> FileEntry:
    """Write one file of a bundle; return its entry in the manifest."""
    with writing_to(path):
        pq.write_table(table, path, compression="zstd")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(sha256=sha256, size_bytes=path.stat().st_size, rows=table.num_rows)


def _quality_tables(staging: Staging, tasks: list[TaskResult]) -> dict[str, pa.Table]:
    """Read the samples of every task, a baseline's second answers (A/A), and each prompt's text once."""
    answered = [staging.task_dir(t.task) for t in tasks]
    again = [staging.controls.task_dir(t.task) for t in tasks]
    tables = {
        "samples.parquet": _parts(answered, "samples.parquet"),
        "control_samples.parquet": _parts(again, "samples.parquet"),
    }
    prompts = _parts([*answered, *again], "prompts.parquet")
    hashes = prompts.column("prompt_hash").to_pylist()
    first = {prompt_hash: row for row, prompt_hash in reversed(list(enumerate(hashes)))}
    tables["prompts.parquet"] = prompts.take(pa.array(sorted(first.values()), pa.int64()))
    return tables


def _parts(folders: list[Path], name: str) -> pa.Table:
    """Read the finished ones of these parts into one table; a folder appears whole."""
    schema = BUNDLE_FILES[name]
    parts = [pq.read_table(folder / name, schema=schema) for folder in folders if folder.is_dir()]
    return pa.concat_tables(parts) if parts else schema.empty_table()


def _fidelity_table(staging: Staging) -> pa.Table:
    """Read the distributions on the fixed text and, of a baseline, those of another engine start (A/A)."""
    parts = []
    for part in (staging, staging.controls):
        result = part.fidelity_result()
        if result and not result.skipped:
            parts.append(pq.read_table(part.fidelity_dir / FIDELITY_FILE, schema=FIDELITY))
    return pa.concat_tables(parts) if parts else FIDELITY.empty_table()


def seal(staging: Staging, bundles_url: str, plan: RunPlan, load: LoadRows = NO_LOAD) -> Manifest:
    """Make the bundle of finished parts; it appears in the store whole or not at all.

    Args:
        staging: the finished parts.
        bundles_url: folder or fsspec URL of the bundles.
        plan: what was declared.
        load: rows of the finished load levels.

    Raises:
        RunError: the store can't be written; the parts stay.
    """
    results = [staging.task_result(task.task) for task in plan.suite.tasks] if plan.suite else []
    tasks = [result for result in results if result is not None]
    rows = {
        "load_points.parquet": load.points,
        "requests.parquet": load.requests,
        "telemetry.parquet": staging.telemetry(),
    }
    tables = _quality_tables(staging, tasks) | {FIDELITY_FILE: _fidelity_table(staging)}
    tables |= {name: pa.Table.from_pylist(part, BUNDLE_FILES[name]) for name, part in rows.items()}
    building = staging.path / "bundle"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    files = {name: write_table(building / name, tables[name]) for name in BUNDLE_FILES}
    manifest = Manifest(
        run_id=staging.run_id,
        fingerprint=run_fingerprint(plan.inputs),
        engine_starts=tuple(staging.starts()),
        tasks=tuple(tasks),
        fidelity=staging.fidelity_result(),
        versions={name: version(name) for name in _RECORDED_VERSIONS},
        started_at=staging.started_at,
        declared_order=staging.declared_order,
        measured_at=datetime.now(UTC),
        continues=batches.continues(staging),
        reused=_reused(staging, load),
        files=files,
        **{name: value for name, value in plan if name != "contents"},
    )
    with writing_to(building / MANIFEST):
        (building / MANIFEST).write_text(json.dumps(manifest.model_dump(mode="json"), indent=1))
    with reached(bundles_url, "written"):
        _publish(building, bundles_url, staging.run_id)
    staging.discard()
    return manifest


def _reused(staging: Staging, load: LoadRows) -> dict[str, str]:
    """Name the parts that earlier runs measured, and those runs."""
    fidelity = staging.fidelity_reused()
    parts = {"fidelity": fidelity} if fidelity else {}
    return parts | {f"load {point}": run_id for point, run_id in load.reused.items()}


def _publish(building: Path, bundles_url: str, run_id: str) -> None:
    """Move a finished folder to the bundles store."""
    filesystem, root = open_bundles(bundles_url)
    if "file" in filesystem.protocol:
        Path(root).mkdir(parents=True, exist_ok=True)
        # Beside its final folder first, since a home and its bundles may lie on different file systems.
        temporary = Path(root) / f".{run_id}"
        shutil.rmtree(temporary, ignore_errors=True)  # what a kill left
        shutil.copytree(building, temporary)
        for file in temporary.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        temporary.rename(Path(root) / run_id)
        return
    # An object store has no rename: the manifest goes last, and a folder without one is not a bundle.
    for name in (*BUNDLE_FILES, MANIFEST):
        filesystem.put_file(str(building / name), f"{root}/{run_id}/{name}")
