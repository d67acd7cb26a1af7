"""One measurement a device at a time, whoever starts it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from quantgate.model.home import ROOT
from quantgate.model.records import Hardware
from tasks.device.lock import lock_files, locked_devices
from tasks.progress import Reporter

CPU = Hardware(gpu="cpu", device_name="a CPU", sm_arch="x86_64-avx2")
GPUS = Hardware(gpu="h100", device_name="H100", sm_arch="sm_90", gpu_count=2, uuids=("GPU-b", "GPU-a"))
HOLDER = """
import sys, time
from tests.tasks.device.test_lock import CPU, Reporter, locked_devices
with locked_devices(CPU, Reporter(lambda _: None)):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_waits_and_says_for_whom() -> None:
    lines: list[str] = []
    entered = threading.Event()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"

    def second() -> None:
        with locked_devices(CPU, Reporter(lines.append)):
            entered.set()

    waiting = threading.Thread(target=second)
    waiting.start()
    assert not entered.wait(1.0)
    assert lines == [f"waiting for a CPU, locked by process {holder.pid} …"]
    holder.kill()  # a killed holder's lock is free at once
    assert entered.wait(5)
    waiting.join()
    holder.wait()


def test_several_devices_are_locked_in_one_order() -> None:
    other_way = GPUS.model_copy(update={"uuids": ("GPU-a", "GPU-b")})
    assert lock_files(GPUS) == lock_files(other_way)
    assert len(set(lock_files(GPUS)) | set(lock_files(CPU))) == 3


def test_it_can_be_held_again_afterwards() -> None:
    for _ in range(2):
        with locked_devices(GPUS, Reporter(lambda _: None)):
            assert all(Path(file).read_text().startswith("process ") for file in lock_files(GPUS))
