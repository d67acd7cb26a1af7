"""Ctrl-C, and a real vLLM or its launcher killed from outside: told, nothing left, and the same command completes."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.kills import state
from tests.kills.run import Command, faults_of
from tests.support.command import quantgate

CASES = [
    ("engine start", "engine", "SIGKILL"),
    ("quality", "lm-eval worker", "SIGKILL"),
    ("quality", "engine", "SIGTERM"),
    ("load", "command", "SIGINT"),
]


@pytest.mark.e2e
@pytest.mark.kills
@pytest.mark.timeout(1800)
def test_a_real_engine_is_killed(home: Path, tmp_path: Path) -> None:
    for number, (stage, victim, sent) in enumerate(CASES):
        command = Command(["demo", "--quick"], home, dict(os.environ), tmp_path / f"{number}.log")
        assert command.wait_until(2.0 if stage == "engine start" else 0.5, stage), command.told()
        kill = command.kill(random.Random(number), victim, sent)
        print(f"{sent} to the {victim} in {stage}: status {kill.status}: {kill.last_line}", flush=True)
        assert faults_of(kill, command.told(), home) == []
        assert state.damaged(home) == []
    done = quantgate("demo", "--quick")
    assert done.status == 0, done.err
    assert state.leftovers(home) == []
    assert state.counts(home)["runs"] == 2
