"""A process worker and its flow run are killed: nothing stays behind, and the next run completes the rest."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.kills import state
from tests.kills.worker import Place, place

WORKER_DRAINS_S = 300.0
CASES = [
    ("worker", signal.SIGKILL),
    ("worker", signal.SIGTERM),
    ("flow run", signal.SIGKILL),
    ("flow run", signal.SIGTERM),
]


def _strike(found: Place, victim: str, sent: signal.Signals, chance: random.Random) -> tuple[str, str]:
    """Kill once an engine has run for a while; the run's state after that, and its id."""
    worker = found.worker(f"worker-{time.monotonic_ns()}")
    run = found.submit()
    found.await_engine()
    time.sleep(chance.uniform(0, 6))
    os.kill(worker.pid if victim == "worker" else found.processes()["flow run"][0], sent)
    ended = found.await_final(run, WORKER_DRAINS_S)
    if victim == "worker":
        worker.wait(timeout=60)
    else:
        worker.terminate()
        worker.wait(timeout=60)
    return ended, run


@pytest.mark.kills
@pytest.mark.timeout(3600)
def test_a_worker_and_its_flow_run_are_killed(tmp_path: Path) -> None:
    chance = random.Random(5)
    with place(tmp_path) as found:
        for victim, sent in CASES:
            ended, _ = _strike(found, victim, sent, chance)
            print(f"{sent.name} to the {victim}: the run ended {ended}", flush=True)
            # A worker that is told to stop lets its run finish.
            assert ended == ("COMPLETED" if (victim, sent) == ("worker", signal.SIGTERM) else "CRASHED")
            assert found.nothing_left(15) == {}
            assert state.damaged(found.home) == []
            worker = found.worker("next")
            assert found.await_final(found.submit(), 300) == "COMPLETED"
            worker.terminate()
            worker.wait(timeout=60)
            assert found.nothing_left(15) == {}
            assert state.leftovers(found.home) == []
            assert state.counts(found.home)["runs"] == 2
            shutil.rmtree(found.home)
