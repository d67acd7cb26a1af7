"""NVML is played by a fake with the real module's names and errors; the CPU's part runs on this machine."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from quantgate.model.config.gpus import GpuConfig, GpuFile
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.records import Hardware
from quantgate.model.yaml_file import load_yaml
from tasks.device import hardware
from tests.support.nvml_fake import ANSWERS, Device, FakeNvml, cut, h100, played

GPUS = GpuFile(
    gpus={
        "h100": GpuConfig(name="NVIDIA H100 SXM", nvml_names=("NVIDIA H100 80GB HBM3",), source="test"),
        "h200": GpuConfig(name="NVIDIA H200 SXM", nvml_names=("NVIDIA H200",), source="test"),
        "cpu": GpuConfig(name="CPU", source="test"),
    }
)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    made: list[FakeNvml] = []

    def install(*devices: Device, **more: Any) -> None:
        made.append(FakeNvml(list(devices), **more))
        monkeypatch.setattr(hardware, "pynvml", made[-1])

    yield install
    assert all(fake.open == 0 for fake in made)


def refusal(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        hardware.detect(gpus=GPUS, **options)
    return str(caught.value)


def test_the_fake_has_the_real_modules_functions() -> None:
    for name, fake in vars(FakeNvml).items():
        if name.startswith("nvml"):
            real = list(inspect.signature(getattr(pynvml, name)).parameters.values())
            needed = [parameter for parameter in real if parameter.default is parameter.empty]
            played = list(inspect.signature(fake).parameters.values())[1:]
            assert len([one for one in played if one.default is one.empty]) == len(needed), name
            assert len(played) <= len(real), name


def test_a_gpu_goes_by_its_short_name(nvml: Any) -> None:
    nvml(h100(0), h100(1))
    assert hardware.detect(gpus=GPUS) == Hardware(
        gpu="h100",
        device_name="NVIDIA H100 80GB HBM3",
        gpu_count=1,
        sm_arch="sm_90",
        mig_slice=None,
        driver="580.95.05",
        cuda_version="13.0",
        sm_clock_max_mhz=1980,
        memory_clock_max_mhz=2619,
        power_limit_w=700.0,
        uuids=("GPU-0",),
        memory_bytes=85_520_809_984,
        cpu_cores=len(os.sched_getaffinity(0)),
    )


def test_several_gpus_are_taken_in_order(nvml: Any) -> None:
    nvml(h100(0), h100(1), h100(2))
    found = hardware.detect(gpu_count=2, gpus=GPUS)
    assert (found.gpu_count, found.uuids) == (2, ("GPU-0", "GPU-1"))
    assert refusal(gpu_count=4) == (
        "4 GPUs asked for, 3 visible. Lower the number, or widen CUDA_VISIBLE_DEVICES."
    )


def test_the_projects_own_table_knows_the_guides_gpus(nvml: Any) -> None:
    nvml(Device("NVIDIA B200", "GPU-0", capability=(10, 0), mig=None))
    found = hardware.detect()
    assert (found.gpu, found.sm_arch) == ("b200", "sm_100")


def test_there_are_answers_of_every_gpu_of_the_projects_table() -> None:
    known = load_yaml(ROOT / "configs" / "gpus.yaml", GpuFile).gpus
    assert {file.stem for file in ANSWERS} == {short for short, gpu in known.items() if gpu.nvml_names}


@pytest.mark.parametrize("file", ANSWERS, ids=lambda file: file.stem)
def test_nvmls_answers_of_a_real_gpu_are_what_the_projects_table_says(nvml: Any, file: Path) -> None:
    answers, device, more = played(file)
    nvml(device, **more)
    found, known = hardware.detect(), load_yaml(ROOT / "configs" / "gpus.yaml", GpuFile).gpus[file.stem]
    assert (found.gpu, found.device_name, found.driver) == (file.stem, device.name, answers["driver"])
    assert (found.sm_arch, found.memory_bytes) == (known.sm_arch, (known.nvml_memory_mib or 0) * 2**20)
    assert found.cuda_version == {"590.48.01": "13.1", "595.80": "13.2", "580.173.02": "13.0"}.get(
        answers["driver"], "13.3"
    )
    assert (found.sm_clock_max_mhz, found.memory_clock_max_mhz) == (
        device.sm_clock_max_mhz,
        device.memory_clock_max_mhz,
    )
    assert found.power_limit_w == {"l40s": 350, "b200": 1000, "b300": 1100}.get(file.stem, 700)
    assert found.uuids == (device.uuid,)


@pytest.mark.parametrize("file", ANSWERS, ids=lambda file: file.stem)
def test_answers_say_where_they_come_from(file: Path) -> None:
    origin = yaml.safe_load(file.read_text())["origin"]
    assert origin["how"] in {"recorded on a real GPU", "built from a published nvidia-smi output"}
    if origin["how"].startswith("built"):
        assert origin["repository"].startswith("https://github.com/")
        assert origin["path"]


def test_what_the_driver_does_not_tell_is_unknown(nvml: Any) -> None:
    nvml(h100(0, sm_clock_max_mhz=None, memory_clock_max_mhz=None, power_limit_mw=None), cuda=None)
    found = hardware.detect(gpus=GPUS)
    assert (found.gpu, found.driver) == ("h100", "580.95.05")
    assert (found.cuda_version, found.sm_clock_max_mhz, found.memory_clock_max_mhz, found.power_limit_w) == (
        None,
        None,
        None,
        None,
    )


@pytest.mark.parametrize("name", ["NVIDIA H100 PCIe", "Tesla T4"])
def test_an_unknown_gpu_goes_by_the_name_found(nvml: Any, name: str) -> None:
    nvml(Device(name, "GPU-0", capability=(7, 5), mig=None))
    found = hardware.detect(gpus=GPUS)
    assert (found.gpu, found.device_name, found.sm_arch) == (name, name, "sm_75")


def test_different_gpus_do_not_make_one_run(nvml: Any) -> None:
    nvml(h100(0), Device("NVIDIA H200", "GPU-9"))
    assert hardware.detect(gpus=GPUS).gpu == "h100"
    assert refusal(gpu_count=2).startswith("different GPUs together: NVIDIA H100 80GB HBM3, NVIDIA H200.")


@pytest.mark.parametrize(
    ("visible", "uuid"),
    [("1", "GPU-1"), ("GPU-2", "GPU-2"), ("2,0", "GPU-2"), (" 1 , 0", "GPU-1"), ("1,9,0", "GPU-1")],
)
def test_only_visible_gpus_count(nvml: Any, monkeypatch: pytest.MonkeyPatch, visible: str, uuid: str) -> None:
    nvml(h100(0), h100(1), h100(2))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert hardware.detect(gpus=GPUS).uuids == (uuid,)


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_hidden_gpus_leave_the_cpu(nvml: Any, monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    nvml(h100(0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert hardware.detect(gpus=GPUS).gpu == "cpu"


@pytest.mark.parametrize("visible", ["7", "GPU-x", "GPU-"])
def test_a_list_that_names_no_gpu_is_a_mistake(
    nvml: Any, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    nvml(h100(0), h100(1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert refusal().startswith(f"CUDA_VISIBLE_DEVICES='{visible}' names none of the 2 devices.")


@pytest.mark.parametrize("visible", ["0,0", "1,GPU-1", "GPU-1, GPU-1,0"])
def test_a_device_that_is_named_twice_is_refused(
    nvml: Any, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    nvml(h100(0), h100(1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert refusal() == (
        f"CUDA_VISIBLE_DEVICES='{visible}' names GPU-{visible[0] if visible[0] == '0' else 1} twice. "
        "Name each device once."
    )


def test_a_mig_slice_is_a_device_of_its_own(nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(cut(a="1g.10gb", b="3g.40gb"))
    found = hardware.detect(gpus=GPUS)
    assert (found.gpu, found.mig_slice, found.uuids) == ("h100", "1g.10gb", ("MIG-a",))
    assert (found.memory_bytes, found.sm_arch) == (10_000_000_000, "sm_90")
    assert (found.power_limit_w, found.sm_clock_max_mhz) == (700.0, 1980), "the whole board's"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-b")
    assert hardware.detect(gpus=GPUS).mig_slice == "3g.40gb"


@pytest.mark.parametrize(
    ("mig", "hint"),
    [
        (None, "It can't be cut: name the GPU itself, or unset it."),
        (False, "Turn MIG on and make one (nvidia-smi -mig 1, nvidia-smi mig -cgi …)."),
    ],
)
def test_a_slice_asked_of_a_gpu_that_has_none(
    nvml: Any, monkeypatch: pytest.MonkeyPatch, mig: bool | None, hint: str
) -> None:
    nvml(h100(0, mig=mig), h100(1, mig=mig))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a")
    assert refusal() == (
        f"CUDA_VISIBLE_DEVICES asks for a MIG slice (MIG-a), and NVIDIA H100 80GB HBM3 has none. {hint}"
    )


def test_a_slice_that_is_not_there_is_told_apart_from_no_mig(
    nvml: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml(cut(a="1g.10gb"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-b")
    assert refusal().startswith("CUDA_VISIBLE_DEVICES='MIG-b' names none of the 1 devices.")


def test_mig_that_cannot_serve_is_refused(nvml: Any) -> None:
    nvml(cut(a="1g.10gb", b="1g.10gb"))
    assert refusal(gpu_count=2).startswith("an engine runs on one MIG slice only.")
    nvml(cut())
    assert refusal().startswith("MIG is on, but no slice is made.")


def test_memory_that_the_driver_does_not_tell_is_unknown(nvml: Any) -> None:
    nvml(Device("NVIDIA GB10", "GPU-0", capability=(12, 1), memory_bytes=None, mig=None))
    assert hardware.detect(gpus=GPUS).memory_bytes == 0


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_without_a_driver_it_is_the_cpu(nvml: Any, code: int) -> None:
    nvml(fails=code)
    found = hardware.detect()
    assert (found.gpu, found.gpu_count, found.uuids, found.driver) == ("cpu", 1, (), None)
    assert found.memory_bytes == psutil.virtual_memory().total
    assert found.cpu_cores == len(os.sched_getaffinity(0))
    assert found.sm_arch.startswith(("x86_64", "aarch64"))
    assert refusal(gpu_count=2).startswith("2 GPUs asked for, none found.")


def test_a_driver_without_a_gpu_leaves_the_cpu(nvml: Any) -> None:
    nvml()
    assert hardware.detect().gpu == "cpu"


def test_a_driver_that_does_not_answer_is_not_taken_for_a_cpu(nvml: Any) -> None:
    nvml(fails=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    assert refusal().startswith("the NVIDIA driver doesn't answer (")


def cpuinfo(flags: str, model: str = "AMD EPYC") -> str:
    first = f"processor\t: 0\nmodel name\t: {model}\nflags\t\t: fpu {flags}\n\n"
    return f"{first}processor\t: 1\nmodel name\t: other\n"


AVX512 = "avx512f avx512bw avx512dq avx512vl"


@pytest.mark.parametrize(
    ("flags", "machine", "architecture"),
    [
        ("sse4_2 avx", "x86_64", "x86_64"),
        ("avx avx2", "x86_64", "x86_64"),
        ("avx avx2 fma", "x86_64", "x86_64-avx2"),
        (f"avx2 fma {AVX512}", "x86_64", "x86_64-avx512"),
        (f"avx2 fma {AVX512} amx_tile amx_bf16 amx_int8", "AMD64", "x86_64-amx"),
        ("avx2 fma avx512f", "x86_64", "x86_64-avx2"),
        ("", "arm64", "aarch64"),
        ("", "riscv64", "riscv64"),
    ],
)
def test_the_instruction_set_names_the_architecture(flags: str, machine: str, architecture: str) -> None:
    assert hardware.cpu_identity(cpuinfo(flags), machine) == ("AMD EPYC", architecture)
    suits = hardware.cpu_unsuitable(cpuinfo(flags), machine) is None
    assert suits == (architecture in {"x86_64-avx2", "x86_64-avx512", "x86_64-amx", "aarch64"})


def test_an_unsuitable_cpu_says_why() -> None:
    assert hardware.cpu_unsuitable(cpuinfo("avx", "Old Xeon"), "x86_64") == (
        "Old Xeon lacks AVX2 and FMA, which the CPU engine needs"
    )
    assert "no build for riscv64" in str(hardware.cpu_unsuitable("", "riscv64"))


@given(text=st.text(max_size=200))
def test_any_cpuinfo_gives_a_name(text: str) -> None:
    name, architecture = hardware.cpu_identity(text, "x86_64")
    assert name
    assert architecture.startswith("x86_64")


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        (
            "0::/a/b\n",
            {"a/memory.max": "7000", "a/b/memory.max": "max"},
            7000,
        ),  # version 2, the outer group's
        ("0::/a\n", {"a/memory.max": "max"}, 9000),
        ("4:cpu,memory:/x\n0::/\n", {"memory/x/memory.limit_in_bytes": "6000"}, 6000),
        ("4:memory:/x\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, 9000),
        ("3:cpuset:/x\n", {"memory/x/memory.limit_in_bytes": "1"}, 9000),  # another controller's
        (None, {}, 9000),
    ],
)
def test_a_host_s_memory_is_what_its_control_groups_leave(
    groups: str | None, files: dict[str, str], limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    if groups is not None:
        own.write_text(groups)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    monkeypatch.setattr(hardware, "OWN_CGROUPS", own)
    monkeypatch.setattr(hardware, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(hardware.psutil, "virtual_memory", lambda: SimpleNamespace(total=9000))
    assert hardware.host_memory_bytes() == limit
