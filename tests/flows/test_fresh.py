"""When measuring anew is over: with its table, so that a kill before it measures nothing once more."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from flows import validate as steps
from flows.declaration import ValidateParameters
from quantgate.model.errors import RunError
from quantgate.model.home import Home
from tasks.staging import fresh_since


def test_measuring_anew_is_over_when_its_table_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = ValidateParameters(baseline="b", candidates=["c"], fresh=True)
    since = fresh_since(Home.current(), parameters.model_dump(mode="json"))
    declared = SimpleNamespace(
        engine_name="e",
        engine=None,
        documents={},
        hardware=SimpleNamespace(device_name="d"),
        workload=SimpleNamespace(concurrency=(1,)),
    )
    environment = SimpleNamespace(name="e", version="1")
    monkeypatch.setattr(steps, "declare", lambda *_: declared)
    monkeypatch.setattr(steps, "_checkpoints", lambda *_: [])
    monkeypatch.setattr(steps.engine_env, "prepare", lambda *_: environment)
    monkeypatch.setattr(steps, "_measure_all", lambda *_: ([], []))

    def killed() -> None:
        raise RunError("killed while it loads")

    monkeypatch.setattr(steps, "load", killed)
    with pytest.raises(RunError, match="killed while it loads"):
        steps.validate.fn(parameters)
    assert fresh_since(Home.current(), parameters.model_dump(mode="json")) == since

    monkeypatch.setattr(steps, "load", lambda: SimpleNamespace(problems=()))
    monkeypatch.setattr(steps, "publish", lambda: tmp_path)
    steps.validate.fn(parameters)
    assert fresh_since(Home.current(), parameters.model_dump(mode="json")) > since
