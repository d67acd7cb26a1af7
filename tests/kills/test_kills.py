"""Kills at random moments: a part of the harness in each test run, all of it with ``make test-kills``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kills.harness import Harness

STAGES = ("engine start", "quality", "load", "sealing", "publish")


@pytest.mark.timeout(1200)
def test_a_run_that_is_killed_again_and_again_ends_as_an_undisturbed_one(
    tmp_path: Path, prefect_database: Path
) -> None:
    harness = Harness(13, tmp_path, database=prefect_database, tasks=("qg_demo_arithmetic",), concurrency="2")
    harness.undisturbed()
    for number in range(3):  # a kill that is survived ends its home
        if len(harness.kills) < 3:
            harness.home(number, STAGES, rebuilds=False)
    assert harness.faults == []
    assert len(harness.kills) >= 3


@pytest.mark.kills
@pytest.mark.timeout(7200)
def test_fifty_kills(tmp_path: Path) -> None:
    harness = Harness(1, tmp_path)
    harness.run(50)
    print(harness.figures())
    assert harness.faults == []
    assert len(harness.kills) >= 50
