"""Check that the GPUs of a run are idle: whatever else is on one would be measured with it.

The lock of :mod:`tasks.device.lock` keeps our own runs apart; this finds everybody else, and what a run of ours
left behind. On a CPU there is nothing to ask.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pynvml

from quantgate.model.errors import RunError
from quantgate.model.records import Hardware
from tasks.device import hardware
from tasks.progress import Reporter

IDLE_MIB = 1024
"""Memory in use that is nobody's: what a driver keeps of an idle GPU is under 1 GiB; weights are not."""
IDLE_TIMEOUT_S = 120.0
RELEASE_TIMEOUT_S = 30.0
"""The driver needs a moment to give a dead process's memory back."""
POLL_S = 1.0


def occupants(uuids: tuple[str, ...]) -> list[str]:
    """Describe what is on these GPUs or MIG slices: compute processes, else memory that no process is named for.

    Args:
        uuids: as NVML gives them.

    Raises:
        ConfigError: the driver doesn't answer.
    """
    descriptions = []
    with hardware.driver() as present:
        for uuid in uuids if present else ():
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            processes = _processes(handle)
            used_mib = _used_mib(handle)
            descriptions += processes
            if not processes and used_mib > IDLE_MIB:
                descriptions.append(f"{used_mib:,} MiB in use by no process that the driver names")
    return descriptions


@contextmanager
def idle_devices(
    devices: Hardware,
    report: Reporter,
    *,
    idle_timeout_s: float = IDLE_TIMEOUT_S,
    release_timeout_s: float = RELEASE_TIMEOUT_S,
    poll_s: float = POLL_S,
) -> Iterator[None]:
    """Delay a measurement until its GPUs are idle, and report at its end what is still on them.

    Args:
        devices: the run's.
        report: progress.
        idle_timeout_s: how long to wait for the GPUs before, in seconds.
        release_timeout_s: how long to wait for them after, in seconds.
        poll_s: seconds between checks.

    Raises:
        RunError: they did not become idle; names who is on them.
    """
    where = f"{devices.device_name} ({', '.join(devices.uuids)})"
    waiting = f"waiting for {devices.device_name}"
    occupied_by = _await_idle(devices, f"{waiting} to be idle", report, idle_timeout_s, poll_s)
    if occupied_by:
        raise RunError(
            f"not idle after {idle_timeout_s:.0f} s: {'; '.join(occupied_by)}",
            where=where,
            hint="Stop it, or choose another GPU with CUDA_VISIBLE_DEVICES.",
        )
    try:
        yield
    finally:
        left = _await_idle(devices, f"{waiting} to be released", report, release_timeout_s, poll_s)
        if left:
            report.line(f"{where}: still on it after the run: {'; '.join(left)}")


def _await_idle(
    devices: Hardware, title: str, report: Reporter, timeout_s: float, poll_s: float
) -> list[str]:
    """Wait for idle GPUs until time is up; return what is still on them."""
    occupied_by = occupants(devices.uuids)
    if not occupied_by:
        return []
    end = time.monotonic() + timeout_s
    with report.step(f"{title}: {'; '.join(occupied_by)}") as step:
        while occupied_by and time.monotonic() < end:
            time.sleep(poll_s)
            occupied_by = occupants(devices.uuids)
            step.update()
    return occupied_by


def _processes(handle: Any) -> list[str]:
    """Describe the compute processes on a device; none if the driver does not say."""
    try:
        running = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except hardware.UNANSWERED:
        return []
    return [
        f"process {process.pid} ({_name(process.pid)}, {_mib(process.usedGpuMemory)})" for process in running
    ]


def _name(pid: int) -> str:
    """Return a process's name; in a container the processes of others have none."""
    try:
        return str(pynvml.nvmlSystemGetProcessName(pid))
    except (pynvml.NVMLError_NotFound, *hardware.UNANSWERED):
        return "name unknown"


def _mib(used_bytes: int | None) -> str:
    return "memory unknown" if used_bytes is None else f"{used_bytes // 2**20:,} MiB"


def _used_mib(handle: Any) -> int:
    """Return memory in use, MiB, without the driver's reserve if known; 0 if the driver does not say."""
    for version in (pynvml.nvmlMemory_v2, None):
        try:
            return int(pynvml.nvmlDeviceGetMemoryInfo(handle, version).used // 2**20)
        except hardware.UNANSWERED:
            continue
    return 0
