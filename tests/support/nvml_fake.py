"""NVML played by a fake with the real module's names and errors, from lists of devices (fault injection)."""

# ruff: noqa: N802 - the names are NVML's
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pynvml
import yaml

ANSWERS = sorted((Path(__file__).parents[1] / "fixtures" / "nvml").glob("*.yaml"))


@dataclass
class Device:
    name: str
    uuid: str
    capability: tuple[int, int] = (9, 0)
    memory_bytes: int | None = 85_520_809_984
    mig: bool | None = False
    sm_clock_max_mhz: int | None = 1980
    memory_clock_max_mhz: int | None = 2619
    power_limit_mw: int | None = 700_000
    slices: dict[int, Device] = field(default_factory=dict)
    used_bytes: int = 0
    processes_untold: bool = False
    processes: list[Process] = field(default_factory=list)
    parent: Device | None = None


@dataclass
class Memory:
    total: int
    used: int


@dataclass
class Process:
    """One of NVML's compute processes, with NVML's field names; memory is in bytes, or None where not reported."""

    pid: int
    usedGpuMemory: int | None  # noqa: N815
    name: str | None = None


def error(code: int) -> pynvml.NVMLError:
    return pynvml.NVMLError(code)


class FakeNvml:
    """The part of pynvml that tasks.device.hardware uses, answered from a list of devices."""

    def __init__(
        self,
        devices: list[Device],
        fails: int | None = None,
        driver: str = "580.95.05",
        cuda: int | None = 13_000,
        memory_v2: bool = True,
    ) -> None:
        self.devices, self.fails, self.open = devices, fails, 0
        self.driver, self.cuda, self.memory_v2, self.asked = driver, cuda, memory_v2, 0

    def __getattr__(self, name: str) -> Any:
        assert name.startswith("NVML") or name == "nvmlMemory_v2", f"pynvml.{name} is not faked"
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:
        if self.fails is not None:
            raise error(self.fails)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:
        return self.devices[index]

    def nvmlDeviceGetName(self, handle: Device) -> str:
        return handle.name

    def nvmlDeviceGetUUID(self, handle: Device) -> str:
        return handle.uuid

    def nvmlDeviceGetMemoryInfo(self, handle: Device, version: int | None = None) -> Memory:
        if handle.memory_bytes is None:
            raise error(pynvml.NVML_ERROR_NOT_SUPPORTED)
        if version and not self.memory_v2:
            raise error(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return Memory(handle.memory_bytes, handle.used_bytes)

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Device:
        for device in self.devices:
            for one in (device, *device.slices.values()):
                if one.uuid == uuid:
                    return one
        raise error(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Device) -> list[Process]:
        self.asked += 1
        if handle.processes_untold:
            raise error(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return list(handle.processes)

    def nvmlSystemGetProcessName(self, pid: int) -> str:
        for device in self.devices:
            for one in device.processes:
                if one.pid == pid and one.name is not None:
                    return one.name
        raise error(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetCudaComputeCapability(self, handle: Device) -> list[int]:
        assert handle.parent is None
        return list(handle.capability)

    def nvmlDeviceGetMigMode(self, device: Device) -> list[int]:
        if device.mig is None:
            raise error(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(device.mig), int(device.mig)]

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Device) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Device, index: int) -> Device:
        if index not in device.slices:
            raise error(pynvml.NVML_ERROR_NOT_FOUND)
        return device.slices[index]

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, migDevice: Device) -> Device:  # noqa: N803
        assert migDevice.parent is not None
        return migDevice.parent

    def nvmlSystemGetDriverVersion(self) -> str:
        return self.driver

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return known_or_error(self.cuda, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)

    def nvmlDeviceGetMaxClockInfo(self, handle: Device, clock: int) -> int:
        assert handle.parent is None
        clocks = {
            pynvml.NVML_CLOCK_SM: handle.sm_clock_max_mhz,
            pynvml.NVML_CLOCK_MEM: handle.memory_clock_max_mhz,
        }
        return known_or_error(clocks[clock], pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Device) -> int:
        assert handle.parent is None
        return known_or_error(handle.power_limit_mw, pynvml.NVML_ERROR_NO_PERMISSION)


def known_or_error(answer: int | None, otherwise: int) -> int:
    if answer is None:
        raise error(otherwise)
    return answer


def played(file: Path) -> tuple[dict[str, Any], Device, dict[str, Any]]:
    """Read an answers file: all of it, the device, and what else the fake needs."""
    answers = yaml.safe_load(file.read_text())
    told_of = answers["device"]
    listed = [
        Process(one["pid"], None if one["memory_mib"] is None else one["memory_mib"] * 2**20, one["name"])
        for one in told_of.pop("processes", [])
    ]
    device = Device(
        processes=listed,
        used_bytes=told_of.pop("used_mib", 0) * 2**20,
        memory_bytes=told_of.pop("memory_mib") * 2**20,
        capability=tuple(told_of.pop("capability")),
        **told_of,
    )
    return answers, device, {"driver": answers["driver"], "cuda": answers["cuda_driver_version"]}


def h100(number: int, **more: Any) -> Device:
    return Device("NVIDIA H100 80GB HBM3", f"GPU-{number}", **more)


def cut(**slices: str) -> Device:
    whole = h100(0, mig=True)
    for index, (uuid, size) in enumerate(slices.items()):
        name = f"{whole.name} MIG {size}"
        whole.slices[index * 2] = Device(name, f"MIG-{uuid}", memory_bytes=10_000_000_000, parent=whole)
    return whole
