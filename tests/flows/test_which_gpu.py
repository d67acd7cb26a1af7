"""Workers of one host, each with GPUs of its own, ask for the same run."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.parameters import ValidateParameters
from flows.planning.request import declare
from flows.planning.runs import plan_of, served_with
from quantgate.bundles.identity import run_fingerprint
from quantgate.model.home import Home
from quantgate.model.records import RunInputs
from tasks.checkpoint.resolve import resolve
from tasks.engine import environment as engine_env
from tasks.progress import Reporter
from tests.support.fake_engine import make

SILENT = Reporter(lambda _: None)


def test_another_gpu_of_the_host_is_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is a stand-in that is never started."""
    monkeypatch.setenv("QUANTGATE_ENGINES_FILE", str(make(tmp_path, "dies")))
    home = Home.current()
    declared = declare(ValidateParameters(model="quantgate-demo"), home)
    environment = engine_env.prepare(declared.engine_name, declared.engine, home, SILENT)
    checkpoints = [resolve(one.source) for one in declared.checkpoints]
    served = served_with(checkpoints, declared, environment, home, SILENT)

    def inputs() -> RunInputs:
        return plan_of(checkpoints[0], declared.checkpoints[0], served[0], None, environment, declared).inputs

    found = []
    for index in ("0", "1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", index)
        found.append(inputs())
    assert run_fingerprint(found[0]) == run_fingerprint(found[1])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run_fingerprint(inputs()) != run_fingerprint(found[0])
