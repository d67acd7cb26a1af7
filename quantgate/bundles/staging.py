"""Keep the finished parts of a run in progress: a kill leaves them, and the same command continues with them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quantgate.bundles.identity import run_fingerprint, same_engine
from quantgate.bundles.manifest import EngineStart, FidelityResult, TaskResult
from quantgate.model.bounded import parse_json, read_text
from quantgate.model.disk import writing_to
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.home import Home
from quantgate.model.records import RunInputs
from quantgate.model.yaml_file import fingerprint_of, load_json, read_object

PARTS = ("quality", "control", "fidelity", "control_fidelity", "load", "starts", "telemetry")
"""Folders of finished parts."""
RESULT = "result.json"
"""Of a finished task, or of the fixed text: written last, a part without one is not finished."""
REUSED = "reused.json"
"""Of a part that an earlier run measured: names the run."""
REMOVE = "Put back a copy of it, or remove the folder that it lies in: that part is measured anew."
RUN_ID_DIGITS = 12
"""A run's id ends with so many digits of its fingerprint."""


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file so that it is there whole or not at all.

    Raises:
        RunError: the disk is full, or takes nothing more for another reason.
    """
    partial = path.with_name(path.name + ".partial")
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(json.dumps(value, indent=1, default=str))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def named_run(file: Path) -> str | None:
    """Return the run that a mark names (`REUSED` and the like); None where there is no mark."""
    if not file.exists():
        return None
    run_id = read_object(file, REMOVE).get("run_id")
    if not isinstance(run_id, str):
        raise ConfigError("names no run", where=str(file), hint=REMOVE)
    return run_id


@dataclass(frozen=True)
class Staging:
    """One run in progress, in ``staging/<fingerprint>/``."""

    path: Path
    run_id: str
    started_at: datetime
    quality: str = "quality"
    """Folder of its quality tasks."""
    fidelity: str = "fidelity"
    """Folder of its engine's distributions on the fixed text."""
    declared_order: int = 0
    """The run's number among those of the bundles store (quantgate.bundles.order)."""

    @property
    def controls(self) -> Staging:
        """Return the same run's second answers (A/A), in folders of their own."""
        return replace(self, quality="control", fidelity="control_fidelity")

    @property
    def quality_dir(self) -> Path:
        """Return the folder of the quality tasks."""
        return self.path / self.quality

    def task_dir(self, task: str) -> Path:
        """Return the folder of a finished quality task."""
        return self.quality_dir / task

    def task_result(self, task: str) -> TaskResult | None:
        """Read the finished task's result; None where it is not finished."""
        file = self.task_dir(task) / RESULT
        return load_json(file, TaskResult, REMOVE) if file.exists() else None

    @property
    def fidelity_dir(self) -> Path:
        """Return the folder of the distributions on the fixed text."""
        return self.path / self.fidelity

    def fidelity_result(self) -> FidelityResult | None:
        """Read the result on the fixed text; None where it is not finished."""
        file = self.fidelity_dir / RESULT
        return load_json(file, FidelityResult, REMOVE) if file.exists() else None

    def mark_fidelity_reused(self, run_id: str) -> None:
        """Record that an earlier run measured the distributions; measuring them anew removes the mark."""
        write_json(self.fidelity_dir / REUSED, {"run_id": run_id})

    def fidelity_reused(self) -> str | None:
        """Return the run that measured the distributions; None where it is this one."""
        file = self.fidelity_dir / REUSED
        return named_run(file)

    @property
    def load_dir(self) -> Path:
        """Return the folder of the finished load levels."""
        return self.path / "load"

    def starts(self) -> list[EngineStart]:
        """Read every engine start that left a finished part."""
        files = sorted((self.path / "starts").glob("*.json"))
        return [load_json(file, EngineStart, REMOVE) for file in files]

    def joins(self, start: EngineStart) -> bool:
        """Return True if a start has the engine version and the kernels of those that gave the finished parts."""
        return all(same_engine(earlier, start) for earlier in self.starts())

    def add_start(self, start: EngineStart) -> None:
        """Record an engine start; parts of an engine that differs are discarded, they would not join."""
        if not self.joins(start):
            for name in PARTS:
                shutil.rmtree(self.path / name, ignore_errors=True)
        write_json(self.path / "starts" / f"{start.engine_start_id}.json", start.model_dump(mode="json"))

    def add_telemetry(self, rows: list[dict[str, Any]]) -> None:
        """Keep what was sampled; a line a row."""
        if rows:
            rows_file = self.path / "telemetry" / "rows.jsonl"
            rows_file.parent.mkdir(parents=True, exist_ok=True)
            with writing_to(rows_file), rows_file.open("a") as file:
                file.writelines(json.dumps(row, default=str) + "\n" for row in rows)

    def telemetry(self) -> list[dict[str, Any]]:
        """Read what was sampled; a last line that a kill cut short is left out."""
        file = self.path / "telemetry" / "rows.jsonl"
        rows = []
        for line in read_text(file).splitlines() if file.exists() else []:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                row = parse_json(line)
                rows.append({**row, "at": datetime.fromisoformat(row["at"])})
        return rows

    def fail(self, message: str, log: Path | None) -> None:
        """Remember why the run stopped, for ``status``; a disk that is full keeps nothing, and may be why."""
        failure = {"at": datetime.now(UTC), "message": message, "log": str(log) if log else None}
        with contextlib.suppress(RunError):
            write_json(self.path / "failure.json", failure)

    def failure(self) -> dict[str, Any]:
        """Read why the run stopped; empty where it did not."""
        file = self.path / "failure.json"
        return read_object(file, REMOVE) if file.exists() else {}

    def clear_failure(self) -> None:
        """Forget why an earlier attempt stopped."""
        (self.path / "failure.json").unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove it: the bundle holds everything, or all is to be measured again."""
        # Renamed first, so that a kill half-way leaves nothing that looks like finished parts.
        gone = self.path.with_name(f".gone-{self.path.name}-{os.getpid()}")
        if self.path.exists():
            self.path.replace(gone)
        for leftover in self.path.parent.glob(".gone-*"):
            shutil.rmtree(leftover, ignore_errors=True)


def fresh_after(home: Home, what: dict[str, Any], latest_order: int) -> int:
    """Return the number after which runs count as measured anew: today's, or that of before a kill.

    Args:
        home: whose staging.
        what: the parameters that are measured anew.
        latest_order: the highest number that a run was declared with so far.
    """
    file = _fresh_file(home, what)
    if not file.exists():
        write_json(file, {"after": latest_order})
    after = read_object(file, REMOVE).get("after")
    if type(after) is not int:
        raise ConfigError("holds no number 'after'", where=str(file), hint=REMOVE)
    return after


def end_fresh(home: Home, what: dict[str, Any]) -> None:
    """Forget that something is measured anew; the next time begins from nothing."""
    _fresh_file(home, what).unlink(missing_ok=True)


def _fresh_file(home: Home, what: dict[str, Any]) -> Path:
    return home.staging / ".fresh-after" / f"{fingerprint_of(what)}.json"


def unfinished(home: Home) -> Iterator[tuple[Staging, dict[str, Any]]]:
    """Yield every run in progress with the content of its ``state.json``; one that ends meanwhile is left out."""
    for file in sorted(home.staging.glob("[!.]*/state.json")):
        with contextlib.suppress(FileNotFoundError):
            yield _read_state(file)


def staged(home: Home, fingerprint: str) -> Staging | None:
    """Return the staging that a run in progress left; None where there is none."""
    file = home.staging / fingerprint / "state.json"
    return _read_state(file)[0] if file.exists() else None


def open_staging(
    home: Home, inputs: RunInputs, what: dict[str, Any], declare: Callable[[str], int] = lambda _run_id: 0
) -> Staging:
    """Return the run's staging, as it was left or new.

    Args:
        home: whose staging.
        inputs: what the fingerprint is made of.
        what: what runs, for ``status`` and `unfinished`: checkpoint, precision, …
        declare: declares a new run by its id and returns its number (``BundleStore.declare``).
    """
    fingerprint = run_fingerprint(inputs)
    state_file = home.staging / fingerprint / "state.json"
    for folder in (home.staging, home.logs):
        home.private(folder)
    if not state_file.exists():
        started_at = datetime.now(UTC)
        moment = f"{started_at:%Y%m%dT%H%M%S}{started_at.microsecond // 1000:03d}Z"
        run_id = f"{moment}-{fingerprint[:RUN_ID_DIGITS]}"
        state = {"run_id": run_id, "started_at": started_at, "declared_order": declare(run_id)}
        write_json(state_file, state | what)
    return _read_state(state_file)[0]


def _read_state(file: Path) -> tuple[Staging, dict[str, Any]]:
    state = read_object(file, REMOVE)
    try:
        run_id, started_at = str(state["run_id"]), datetime.fromisoformat(state["started_at"])
        order = int(state.get("declared_order", 0))  # a run that an earlier version began has none
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ConfigError("is no state of a run", where=str(file), hint=REMOVE) from None
    return Staging(file.parent, run_id, started_at, declared_order=order), state
