"""``quantgate validate`` up to its first checkpoint."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from click.testing import CliRunner

from commands import runtime
from commands.main import cli
from flows.planning import request, runs
from quantgate.model.errors import ConfigError


def test_a_command_declares_once_what_its_flow_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved: list[request.Work] = []
    measured: list[request.Request] = []
    work_of = request.work_of

    def counted(*arguments: Any) -> request.Work:
        resolved.append(work_of(*arguments))
        return resolved[-1]

    def stop(declared: request.Request, *_: object) -> None:
        measured.append(declared)
        raise ConfigError("far enough")

    monkeypatch.setenv("HF_TOKEN", "of-no-use")
    monkeypatch.setattr(runtime, "in_process", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(request, "work_of", counted)
    monkeypatch.setattr(runs, "resolved_checkpoints", stop)
    done = CliRunner().invoke(cli, ["validate", "quantgate-demo", "--limit", "7"])
    assert str(done.exception) == "far enough"
    assert (len(resolved), len(measured)) == (1, 1)
    assert measured[0].suite.limit == 7
    assert runs.prepared_runs() is None
