"""A run as an immutable bundle: Parquet files and a manifest that appear whole, by rename."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from quantgate.bundles.manifest import MANIFEST, open_place, parse_manifest
from quantgate.bundles.schema import BUNDLE_FILES, FIDELITY
from quantgate.bundles.staging import RUN_ID_DIGITS, Staging
from quantgate.model.config import Workload
from quantgate.model.errors import RunError
from quantgate.model.records import (
    FileEntry,
    Manifest,
    RunPlan,
    TaskResult,
)
from tasks.fidelity import measure
from tasks.throughput import bench

_RECORDED_VERSIONS = ("quantgate", "prefect", "lm-eval", "transformers", "duckdb", "pyarrow")


def manifests(place: str, ending: str = "") -> Iterator[Manifest]:
    """Manifests of the bundles at a place, oldest first.

    Half-written folders are passed over, and so are manifests that can't be read: the loader tells of them.

    Args:
        place: folder or fsspec URL of the bundles.
        ending: what the runs' ids end with.

    Raises:
        ConfigError: no file system serves such a URL here.
        RunError: the place can't be read.
    """
    filesystem, root = open_place(place)
    with _reached(place, "read"):
        if not filesystem.exists(root):
            return
        for folder in sorted(filesystem.ls(root, detail=False)):
            name, file = Path(folder).name, f"{folder}/{MANIFEST}"
            if name.startswith(".") or not name.endswith(ending) or not filesystem.exists(file):
                continue
            with contextlib.suppress(RunError):
                yield parse_manifest(filesystem.cat_file(file), name)


@contextmanager
def _reached(place: str, what: str) -> Iterator[None]:
    """A store that refuses or is away is one line; what was measured stays in staging."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"bundles can't be {what} there ({error.strerror or error})",
            where=place,
            mend="Check QUANTGATE_BUNDLES and its credentials; what was measured is kept.",
        ) from None


def find(place: str, fingerprint: str, without: Collection[str] = ()) -> Manifest | None:
    """The last bundle of a fingerprint, or None: measured and unchanged is not measured again.

    Args:
        place: folder or fsspec URL of the bundles.
        fingerprint: of a run's inputs.
        without: ids of runs that don't count.
    """
    found = [m for m in manifests(place, fingerprint[:RUN_ID_DIGITS]) if m.fingerprint == fingerprint]
    return next((m for m in reversed(found) if m.run_id not in without), None)


def _entry(path: Path, rows: int) -> FileEntry:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return FileEntry(sha256=digest.hexdigest(), size_bytes=path.stat().st_size, rows=rows)


def _quality_tables(staging: Staging, tasks: list[TaskResult]) -> dict[str, pa.Table]:
    """Samples of every task, a baseline's second answers (A/A), and each prompt's text once."""
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
    """One table of the finished ones among these parts: a folder appears whole."""
    schema = BUNDLE_FILES[name]
    parts = [pq.read_table(folder / name, schema=schema) for folder in folders if folder.is_dir()]
    return pa.concat_tables(parts) if parts else schema.empty_table()


def _load_tables(staging: Staging, workload: Workload | None) -> dict[str, pa.Table]:
    points, requests = bench.rows(workload, staging.load_dir) if workload else ([], [])
    return {
        "load_points.parquet": pa.Table.from_pylist(points, BUNDLE_FILES["load_points.parquet"]),
        "requests.parquet": pa.Table.from_pylist(requests, BUNDLE_FILES["requests.parquet"]),
    }


def _fidelity_table(staging: Staging) -> pa.Table:
    """What the engine thinks of the fixed text and, of a baseline, what another start of it thinks (A/A)."""
    parts = []
    for folder in (staging.fidelity_dir, staging.controls.fidelity_dir):
        told = measure.found(folder)
        if told and not told.skipped:
            parts.append(pq.read_table(folder / measure.ROWS, schema=FIDELITY))
    return pa.concat_tables(parts) if parts else FIDELITY.empty_table()


def seal(staging: Staging, place: str, plan: RunPlan, *, continues: str | None = None) -> Manifest:
    """Make the bundle of finished parts; it appears at ``place`` whole or not at all.

    Args:
        staging: the finished parts.
        place: folder or fsspec URL of the bundles.
        plan: what was declared.
        continues: the run whose answers this one began with.

    Raises:
        RunError: the place can't be written; the parts stay.
    """
    results = [staging.task_result(task.task) for task in plan.suite.tasks] if plan.suite else []
    tasks = [result for result in results if result is not None]
    tables: dict[str, pa.Table] = _quality_tables(staging, tasks) | _load_tables(staging, plan.workload)
    told = measure.found(staging.fidelity_dir)
    tables["fidelity.parquet"] = _fidelity_table(staging)
    tables["telemetry.parquet"] = pa.Table.from_pylist(staging.telemetry(), BUNDLE_FILES["telemetry.parquet"])
    tables |= {name: BUNDLE_FILES[name].empty_table() for name in BUNDLE_FILES if name not in tables}
    building = staging.path / "bundle"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    files = {}
    for name in BUNDLE_FILES:
        pq.write_table(tables[name], building / name, compression="zstd")
        files[name] = _entry(building / name, tables[name].num_rows)
    manifest = Manifest(
        run_id=staging.run_id,
        fingerprint=plan.inputs.fingerprint(),
        engine_starts=tuple(staging.starts()),
        tasks=tuple(tasks),
        fidelity=told,
        versions={name: version(name) for name in _RECORDED_VERSIONS},
        started_at=staging.started_at,
        measured_at=datetime.now(UTC),
        continues=continues,
        files=files,
        **dict(plan),
    )
    (building / MANIFEST).write_text(json.dumps(manifest.model_dump(mode="json"), indent=1))
    with _reached(place, "written"):
        _publish(building, place, staging.run_id)
    staging.discard()
    return manifest


def _publish(building: Path, place: str, run_id: str) -> None:
    """Bring a finished folder to the bundles."""
    filesystem, root = open_place(place)
    if "file" in filesystem.protocol:
        Path(root).mkdir(parents=True, exist_ok=True)
        # Beside its place first, since a home and its bundles may lie on different file systems.
        temporary = Path(root) / f".{run_id}"
        shutil.rmtree(temporary, ignore_errors=True)  # what a kill left
        shutil.copytree(building, temporary)
        for file in temporary.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        temporary.rename(Path(root) / run_id)
        return
    # An object store has no rename: the manifest goes last, and a folder without one is not a bundle.
    names = [*BUNDLE_FILES, MANIFEST]
    for name in names:
        filesystem.put_file(str(building / name), f"{root}/{run_id}/{name}")
