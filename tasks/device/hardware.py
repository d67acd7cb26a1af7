"""Detect the hardware a run is measured on: GPUs as NVML reports them, else the CPU."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pynvml

from quantgate.model.config.gpus import GpuFile
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.records import Hardware
from quantgate.model.words import counted
from quantgate.model.yaml_file import load_yaml

CPUINFO = Path("/proc/cpuinfo")

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

X86_LEVELS = (
    ("amx", {"avx512f", "amx_tile", "amx_bf16", "amx_int8"}),
    ("avx512", {"avx512f", "avx512bw", "avx512dq", "avx512vl"}),
    ("avx2", {"avx2", "fma"}),
)
"""Instruction sets that the CPU engine's kernels are chosen by, best first, with the flags that make them."""

NO_GPU = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
"""NVML's answers where there is no NVIDIA GPU; any other failure is a fault."""

UNANSWERED = (
    pynvml.NVMLError_NotSupported,
    pynvml.NVMLError_NoPermission,
    pynvml.NVMLError_FunctionNotFound,
)
"""NVML's errors for a question that a board, a driver or a guest does not answer."""

HIDE_ALL = {"", "-1", "NoDevFiles"}
"""Values of CUDA_VISIBLE_DEVICES that mean: no GPU."""


def host_memory_bytes() -> int:
    """Return the main memory that a process of this host may use: the machine's, or its control group's limit.

    Limits of the groups around the own one count too, in either version of control groups.
    """
    limits = [psutil.virtual_memory().total]
    try:
        groups = [line.split(":", 2) for line in OWN_CGROUPS.read_text().splitlines()]
    except OSError:
        return limits[0]
    for _, controllers, group in groups:
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (CGROUPS / "memory", "memory.limit_in_bytes") if controllers else (CGROUPS, "memory.max")
        folder = root / group.lstrip("/")
        for parent in (folder, *folder.parents):
            if parent.is_relative_to(root):
                with suppress(OSError, ValueError):  # "max", or a group that this container does not show
                    limits.append(int((parent / name).read_text()))
    return min(limit for limit in limits if limit > 0)


def detect(*, gpu_count: int = 1, gpus: GpuFile | None = None) -> Hardware:
    """Detect what a run started now would be measured on.

    GPUs are taken in NVML's order from those that CUDA_VISIBLE_DEVICES leaves visible.

    Args:
        gpu_count: how many GPUs the run uses; on a CPU it must be 1.
        gpus: configs/gpus.yaml, read where it isn't given.

    Returns:
        The hardware; ``memory_bytes`` is one GPU's (NVML's total), on a CPU the machine's. Clocks and the power
        limit are the first GPU's, of a MIG slice the whole board's. A GPU that gpus.yaml doesn't list goes by
        the name NVML gives it.

    Raises:
        ConfigError: fewer GPUs than asked for, different ones together, a GPU that is there and can't be
            used as things are set, or a driver that doesn't answer.
    """
    with driver() as present:
        handles = _visible(_devices()) if present else []
        if handles:
            return _describe_gpus(handles, gpu_count, gpus)
    if gpu_count > 1:
        raise ConfigError(
            f"{gpu_count} GPUs asked for, none found", hint="Lower the number, or use a GPU host."
        )
    name, architecture = cpu_identity()
    return Hardware(
        gpu="cpu",
        device_name=name,
        sm_arch=architecture,
        memory_bytes=psutil.virtual_memory().total,
        cpu_cores=len(os.sched_getaffinity(0)),
    )


def cpu_identity(cpuinfo: str | None = None, machine: str | None = None) -> tuple[str, str]:
    """Return the CPU's name and its instruction set, e.g. ``x86_64-avx512``.

    Args:
        cpuinfo: the text of /proc/cpuinfo, read where it isn't given.
        machine: the machine's architecture as ``uname -m`` says it, asked where it isn't given.
    """
    fields = _cpu_fields(cpuinfo)
    machine = (machine or platform.machine()).lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    flags = set(fields.get("flags", "").split())
    level = next((f"-{level}" for level, needed in X86_LEVELS if needed <= flags), "")
    return fields.get("model name") or platform.processor() or machine, machine + level


def cpu_unsuitable(cpuinfo: str | None = None, machine: str | None = None) -> str | None:
    """Say why the CPU engine can't run here; None if it can (AVX2 on x86-64, or aarch64).

    Args:
        cpuinfo: the text of /proc/cpuinfo, read where it isn't given.
        machine: the machine's architecture as ``uname -m`` says it, asked where it isn't given.
    """
    name, architecture = cpu_identity(cpuinfo, machine)
    family, _, level = architecture.partition("-")
    if family == "aarch64" or (family == "x86_64" and level):
        return None
    if family == "x86_64":
        return f"{name} lacks AVX2 and FMA, which the CPU engine needs"
    return f"the CPU engine has no build for {family} (x86_64 with AVX2, or aarch64)"


def _cpu_fields(cpuinfo: str | None) -> dict[str, str]:
    """Return the first processor's fields of /proc/cpuinfo."""
    if cpuinfo is None:
        cpuinfo = CPUINFO.read_text(encoding="utf-8", errors="replace") if CPUINFO.is_file() else ""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return fields


@contextmanager
def driver() -> Iterator[bool]:
    """Load NVML for a while; yield False if there is no NVIDIA driver.

    Raises:
        ConfigError: there is one, and it doesn't answer.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value in NO_GPU:
            yield False
            return
        raise _driver_fault(error) from None
    try:
        yield True
    except pynvml.NVMLError as error:
        raise _driver_fault(error) from None
    finally:
        pynvml.nvmlShutdown()


def _driver_fault(error: Exception) -> ConfigError:
    """Return the error for a driver that does not answer; measuring on the CPU instead would hide it."""
    hint = "See nvidia-smi; reload the driver or restart, or set CUDA_VISIBLE_DEVICES= to use the CPU."
    return ConfigError(f"the NVIDIA driver doesn't answer ({error})", hint=hint)


def _devices() -> list[Any]:
    """Return handles of all GPUs; a GPU cut into MIG slices is replaced by its slices."""
    devices = []
    count = pynvml.nvmlDeviceGetCount()
    for index in range(count):
        whole = pynvml.nvmlDeviceGetHandleByIndex(index)
        is_cut = _mig_mode(whole) == pynvml.NVML_DEVICE_MIG_ENABLE
        devices.extend(_slices(whole) if is_cut else [whole])
    if count and not devices:
        raise ConfigError(
            "MIG is on, but no slice is made", hint="Make one (nvidia-smi mig -cgi …) or turn it off."
        )
    return devices


def _mig_mode(device: Any) -> int | None:
    """Return NVML's MIG mode of a GPU; None for a board that can't be cut into slices."""
    try:
        return int(pynvml.nvmlDeviceGetMigMode(device)[0])
    except pynvml.NVMLError_NotSupported:
        return None


def _slices(device: Any) -> list[Any]:
    """Return handles of a GPU's MIG slices."""
    slices = []
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(device)):
        try:
            slices.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(device, index))
        except pynvml.NVMLError_NotFound:
            continue
    return slices


def _visible(devices: list[Any]) -> list[Any]:
    """Return the devices in CUDA_VISIBLE_DEVICES, in its order: indices or (beginnings of) UUIDs.

    As CUDA does, the list ends at the first entry that names no device.
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None or listed.strip() in HIDE_ALL:
        return devices if listed is None else []
    chosen: list[Any] = []
    for entry in (part.strip() for part in listed.split(",")):
        if entry.isdecimal():
            named = devices[int(entry) : int(entry) + 1]
        else:
            named = [d for d in devices if entry and pynvml.nvmlDeviceGetUUID(d).startswith(entry)]
        if len(named) != 1:
            break
        if named[0] in chosen:  # CUDA then shows no GPU at all
            twice = f"CUDA_VISIBLE_DEVICES='{listed}' names {pynvml.nvmlDeviceGetUUID(named[0])} twice"
            raise ConfigError(twice, hint="Name each device once.")
        chosen.extend(named)
    if devices and not chosen:
        _refuse_mig(listed, devices)
        what = f"CUDA_VISIBLE_DEVICES='{listed}' names none of the {len(devices)} devices"
        raise ConfigError(what, hint="Correct it or unset it; an empty value means the CPU.")
    return chosen


def _refuse_mig(listed: str, devices: list[Any]) -> None:
    """Refuse a request for a MIG slice if no GPU here is cut into slices."""
    whole = [device for device in devices if pynvml.nvmlDeviceGetUUID(device).startswith("GPU-")]
    if not listed.strip().startswith("MIG-") or len(whole) < len(devices):
        return
    name = pynvml.nvmlDeviceGetName(whole[0])
    what = f"CUDA_VISIBLE_DEVICES asks for a MIG slice ({listed}), and {name} has none"
    if any(_mig_mode(device) is not None for device in whole):
        raise ConfigError(what, hint="Turn MIG on and make one (nvidia-smi -mig 1, nvidia-smi mig -cgi …).")
    raise ConfigError(what, hint="It can't be cut: name the GPU itself, or unset it.")


def _describe_gpus(handles: list[Any], gpu_count: int, gpus: GpuFile | None) -> Hardware:
    """Describe the first ``gpu_count`` devices, which must be alike."""
    if len(handles) < gpu_count:
        what = f"{counted(gpu_count, 'GPU')} asked for, {len(handles)} visible"
        raise ConfigError(what, hint="Lower the number, or widen CUDA_VISIBLE_DEVICES.")
    used = handles[:gpu_count]
    names = {pynvml.nvmlDeviceGetName(handle) for handle in used}
    if len(names) > 1:
        what = f"different GPUs together: {', '.join(sorted(names))}"
        raise ConfigError(what, hint="Choose like ones with CUDA_VISIBLE_DEVICES.")
    device_name, _, mig_slice = names.pop().partition(" MIG ")
    if mig_slice and gpu_count > 1:
        raise ConfigError("an engine runs on one MIG slice only", hint="Ask for one, or turn MIG off.")
    whole = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(used[0]) if mig_slice else used[0]
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(whole)
    cuda = _asked(pynvml.nvmlSystemGetCudaDriverVersion_v2)
    power_limit_mw = _asked(pynvml.nvmlDeviceGetEnforcedPowerLimit, whole)
    return Hardware(
        gpu=_short_name(device_name, gpus),
        device_name=device_name,
        gpu_count=gpu_count,
        sm_arch=f"sm_{major}{minor}",
        mig_slice=mig_slice or None,
        driver=pynvml.nvmlSystemGetDriverVersion(),
        cuda_version=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        sm_clock_max_mhz=_asked(pynvml.nvmlDeviceGetMaxClockInfo, whole, pynvml.NVML_CLOCK_SM),
        memory_clock_max_mhz=_asked(pynvml.nvmlDeviceGetMaxClockInfo, whole, pynvml.NVML_CLOCK_MEM),
        power_limit_w=power_limit_mw / 1000 if power_limit_mw else None,
        uuids=tuple(pynvml.nvmlDeviceGetUUID(handle) for handle in used),
        memory_bytes=_memory_bytes(used[0]),
        cpu_cores=len(os.sched_getaffinity(0)),
    )


def _asked(question: Callable[..., Any], *arguments: Any) -> int | None:
    """Return NVML's answer to a question that not every board, driver or guest answers; else None."""
    try:
        return int(question(*arguments))
    except UNANSWERED:
        return None


def _memory_bytes(device: Any) -> int:
    """Return a device's memory; 0, unknown, if it shares the host's."""
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(device).total)
    except pynvml.NVMLError_NotSupported:
        return 0


def _short_name(device_name: str, gpus: GpuFile | None) -> str:
    """Return the key of gpus.yaml that lists the name, or the name itself."""
    table = gpus or load_yaml(ROOT / "configs" / "gpus.yaml", GpuFile)
    for match in (str, str.casefold):
        for short, gpu in table.gpus.items():
            if match(device_name) in {match(name) for name in gpu.nvml_names}:
                return short
    return device_name
