"""Runs on the stub engine (tests/stub_engine) in this process: the flow's own steps, without Prefect around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantgate.bundles.manifest import Manifest
from quantgate.model.home import ROOT
from tests.stub_engine.make import make
from tests.support.flow_runs import measured

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
        self.lines: list[str] = []

    def baseline(self, *, fresh: bool = False, **parameters: Any) -> Manifest:
        """Measure what a validation measures first; its manifest."""
        given = {"baseline": BF16, "candidates": [NVFP4], "tasks": ARITHMETIC, "policy": "demo"}
        given |= {"workload": "demo", "concurrency": [2]}
        (manifest,), failures = measured(given | parameters, self.lines, fresh=fresh, checkpoints=1)
        assert failures == []
        return manifest


@pytest.fixture
def stub_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubRuns:
    """Validations on the stub engine."""
    return StubRuns(tmp_path, monkeypatch)
