"""Runs on the stub engine (tests/stub_engine) in this process: the flow's own steps, without Prefect around them."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flows import measure, validate
from flows.declaration import ValidateParameters, declare
from quantgate.model.config import ROOT
from quantgate.model.home import Home
from quantgate.model.records import Manifest
from tasks import engine_env
from tasks.pins import Pins, pins_file
from tasks.progress import Reporter
from tests.stub_engine.make import make

CHECKPOINTS = ROOT / "demo" / "checkpoints"
BF16, NVFP4 = (str(CHECKPOINTS / f"quantgate-demo-{precision}") for precision in ("BF16", "NVFP4"))
ARITHMETIC = str(ROOT / "demo" / "tasks" / "arithmetic.yaml")


class StubRuns:
    """Validations in the home of the test.

    Args:
        folder: where the stub's interpreter goes.
        patch: undone at the end of the test.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        patch.setenv("QUANTGATE_ENGINES_FILE", str(make(folder / "engine", STUB_START_S="0")))
        patch.setattr(measure, "evaluate", measure.evaluate.fn)
        patch.setattr(measure, "load", measure.load.fn)
        patch.setattr(measure, "compare_tokens", measure.compare_tokens.fn)
        patch.setattr(validate, "measure", measure.measure.fn)
        self.lines: list[str] = []

    def baseline(self, *, since: datetime | None = None, **parameters: Any) -> Manifest:
        """Measure what a validation measures first; its manifest."""
        given = {"baseline": BF16, "candidates": [NVFP4], "tasks": ARITHMETIC, "policy": "demo"}
        given |= {"workload": "demo", "concurrency": [2]}
        home, report = Home.current(), Reporter(self.lines.append)
        with report.used():
            declared = declare(ValidateParameters.model_validate(given | parameters), home)
            declared = dataclasses.replace(declared, checkpoints=declared.checkpoints[:1])
            pins = Pins(pins_file(home))
            checkpoints = validate._checkpoints(declared, pins, report)
            environment = engine_env.prepare(declared.engine_name, declared.engine, home, report)
            done, failures = validate._measure_all(
                checkpoints, environment, declared, home=home, report=report, since=since, pins=pins
            )
        assert failures == []
        ((manifest, _),) = done
        return manifest


@pytest.fixture
def stub_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubRuns:
    """Validations on the stub engine."""
    return StubRuns(tmp_path, monkeypatch)
