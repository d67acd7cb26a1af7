"""Who else is on a GPU: told with name and memory, waited for, and looked for again at the end. (NVML is played.)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantgate.model.errors import RunError
from quantgate.model.records import Hardware
from tasks.device import hardware, idle
from tasks.device.idle import idle_devices, occupants
from tasks.progress import Reporter
from tests.support.nvml_fake import ANSWERS, Device, FakeNvml, Process, cut, h100, played

CPU = Hardware(gpu="cpu", device_name="a CPU", sm_arch="x86_64-avx2")
H200 = next(file for file in ANSWERS if file.stem == "h200")


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    made: list[FakeNvml] = []

    def install(*devices: Device, **more: Any) -> FakeNvml:
        made.append(FakeNvml(list(devices), **more))
        for module in (hardware, idle):
            monkeypatch.setattr(module, "pynvml", made[-1])
        return made[-1]

    yield install
    assert all(fake.open == 0 for fake in made)


def of(*devices: Device) -> Hardware:
    return Hardware(
        gpu="h100",
        device_name=devices[0].name,
        gpu_count=len(devices),
        sm_arch="sm_90",
        uuids=tuple(device.uuid for device in devices),
    )


def busy(number: int = 0) -> Device:
    return h100(number, processes=[Process(11345, 14410 * 2**20, "./gpu_burn")], used_bytes=15 * 2**30)


def enter(devices: Hardware, lines: list[str], **more: Any) -> Any:
    return idle_devices(
        devices, Reporter(lines.append), **{"idle_timeout_s": 0, "release_timeout_s": 0, "poll_s": 0} | more
    )


def test_processes_of_a_gpu_under_load_are_named(nvml: Any) -> None:
    _, device, more = played(H200)
    nvml(device, **more)
    assert occupants((device.uuid,)) == [
        "process 10525 (/root/tools/memhog, 1,542 MiB)",
        "process 10526 (/root/tools/mem? hog, 818 MiB)",
        "process 10550 (./gpu_burn, 14,410 MiB)",
    ]


@pytest.mark.parametrize("file", [file for file in ANSWERS if file != H200], ids=lambda file: file.stem)
def test_an_idle_gpu_has_nobody_on_it(nvml: Any, file: Path) -> None:
    _, device, more = played(file)
    nvml(device, **more)
    assert occupants((device.uuid,)) == []


def test_what_the_driver_does_not_tell(nvml: Any) -> None:
    nameless = h100(0, processes=[Process(77, None)])
    nvml(nameless, h100(1, processes_untold=True, used_bytes=70 * 2**30), h100(2, processes_untold=True))
    assert occupants(("GPU-0",)) == ["process 77 (name unknown, memory unknown)"]
    assert occupants(("GPU-1",)) == ["71,680 MiB in use by no process that the driver names"]
    assert occupants(("GPU-2",)) == []


@pytest.mark.parametrize(("used_mib", "count"), [(0, 0), (1024, 0), (1025, 1)])
def test_memory_in_use_counts_above_what_a_driver_keeps(nvml: Any, used_mib: int, count: int) -> None:
    nvml(h100(0, used_bytes=used_mib * 2**20), memory_v2=False)
    assert len(occupants(("GPU-0",))) == count


def test_a_driver_that_shares_memory_with_the_host(nvml: Any) -> None:
    nvml(h100(0, memory_bytes=None))
    assert occupants(("GPU-0",)) == []


def test_the_other_slices_of_a_gpu_are_somebody_elses_business(nvml: Any) -> None:
    whole = cut(a="3g.40gb", b="3g.40gb")
    whole.slices[2].used_bytes = 30 * 2**30
    nvml(whole)
    assert occupants(("MIG-a",)) == []
    assert occupants(("MIG-b",)) == ["30,720 MiB in use by no process that the driver names"]


def test_a_busy_gpu_is_waited_for_and_then_refused(nvml: Any) -> None:
    fake, lines = nvml(h100(0), busy(1)), []
    with pytest.raises(RunError) as caught, enter(of(*fake.devices), lines):
        pytest.fail("nothing may be measured")
    assert str(caught.value) == (
        "NVIDIA H100 80GB HBM3 (GPU-0, GPU-1): not idle after 0 s: process 11345 (./gpu_burn, 14,410 MiB). "
        "Stop it, or choose another GPU with CUDA_VISIBLE_DEVICES."
    )
    assert caught.value.exit_status == 1
    assert lines[0] == (
        "waiting for NVIDIA H100 80GB HBM3 to be idle: process 11345 (./gpu_burn, 14,410 MiB) …"
    )


def test_a_gpu_that_becomes_idle_is_taken(nvml: Any) -> None:
    device = busy()
    fake = nvml(device)
    ask = fake.nvmlDeviceGetComputeRunningProcesses

    def ends_at_the_third_look(handle: Device) -> list[Process]:
        if fake.asked == 2:
            device.processes, device.used_bytes = [], 4 * 2**20
        return ask(handle)

    fake.nvmlDeviceGetComputeRunningProcesses = ends_at_the_third_look
    lines: list[str] = []
    with enter(of(device), lines, idle_timeout_s=60):
        assert fake.asked == 3
    assert [line for line in lines if "still on it" in line] == []


def test_what_a_run_leaves_is_said_however_it_ends(nvml: Any) -> None:
    device = h100(0)
    nvml(device)
    lines: list[str] = []

    def run() -> None:
        with enter(of(device), lines):
            device.processes.append(Process(4242, 70_000 * 2**20, "VLLM::EngineCore"))
            raise RunError("the engine died")

    with pytest.raises(RunError, match="the engine died"):
        run()
    assert lines[-1] == (
        "NVIDIA H100 80GB HBM3 (GPU-0): still on it after the run: process 4242 (VLLM::EngineCore, 70,000 MiB)"
    )


def test_a_cpu_is_not_asked() -> None:
    lines: list[str] = []
    with enter(CPU, lines):
        pass
    assert lines == []
