"""A process worker and its flow run are killed: nothing stays behind, and the next run completes the rest.

docs/decisions/0008-what-a-kill-leaves.md tells what Prefect makes of each.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.kills import state
from tests.kills.worker import Place, place

CASES = [
    ("worker", signal.SIGKILL, {"CRASHED"}),
    ("flow run", signal.SIGKILL, {"CRASHED"}),
    ("flow run", signal.SIGTERM, {"CRASHED"}),
    ("worker", signal.SIGTERM, {"RUNNING", "CRASHED"}),
    ("worker and flow run", signal.SIGKILL, {"RUNNING"}),
]
PART_ENDS_WITHIN_S = 180.0
LEASE_ENDS_WITHIN_S = 600.0
"""The slot of a holder that could not give it back is free after 300 s; then the run takes its time."""


def _strike(found: Place, victim: str, sent: signal.Signals, chance: random.Random) -> str:
    """Kill once an engine has run for a while; the run's state once nothing of it is left."""
    worker = found.worker(f"worker-{time.monotonic_ns()}")
    run = found.submit()
    found.await_engine()
    time.sleep(chance.uniform(0, 6))
    processes = found.processes()
    for part in victim.split(" and "):
        for pid in [worker.pid] if part == "worker" else processes["flow run"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sent)
    assert found.nothing_left(PART_ENDS_WITHIN_S) == {}
    ended = found.await_final(run, 20)
    worker.terminate()
    worker.wait(timeout=60)
    return ended


@pytest.mark.kills
@pytest.mark.timeout(7200)
def test_a_worker_and_its_flow_run_are_killed(tmp_path: Path) -> None:
    chance = random.Random(5)
    with place(tmp_path) as found:
        for victim, sent, states in CASES:
            ended = _strike(found, victim, sent, chance)
            print(f"{sent.name} to the {victim}: its run is {ended}", flush=True)
            assert ended in states
            assert state.damaged(found.home) == []
            worker, submitted = found.worker("next"), time.monotonic()
            assert found.await_final(found.submit(), LEASE_ENDS_WITHIN_S) == "COMPLETED"
            print(f"the next run was complete after {time.monotonic() - submitted:.0f} s", flush=True)
            worker.terminate()
            worker.wait(timeout=60)
            assert found.nothing_left(15) == {}
            assert state.leftovers(found.home) == []
            assert state.counts(found.home)["runs"] == 2
            shutil.rmtree(found.home)
