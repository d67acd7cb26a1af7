"""Which of driver, engine and board is too old for another."""

from __future__ import annotations

import pytest

from quantgate.model.config.engines import EngineConfig, EngineFile, EngineRequirements
from quantgate.model.config.gpus import GpuFile
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.records import Hardware
from quantgate.model.yaml_file import load_yaml
from tasks.device.versions import check_versions, too_old

GPUS = load_yaml(ROOT / "configs" / "gpus.yaml", GpuFile).gpus
ENGINE = load_yaml(ROOT / "configs" / "engines.yaml", EngineFile).engines["vllm"]


def host(gpu: str, driver: str | None, cuda: str | None) -> Hardware:
    board = GPUS.get(gpu)
    name = board.name if board else gpu
    return Hardware(
        gpu=gpu, device_name=name, sm_arch=(board and board.sm_arch) or "", driver=driver, cuda_version=cuda
    )


def built_with(cuda: str, driver: str) -> EngineConfig:
    requires = EngineRequirements(cuda=cuda, driver_min=driver, source="test")
    return ENGINE.model_copy(update={"requires": requires, "version": "9.9"})


@pytest.mark.parametrize(
    ("devices", "engine", "faults"),
    [
        (host("h100", "580.65.06", "13.0"), ENGINE, []),
        (host("h100", "595.80", "13.2"), ENGINE, []),
        (
            host("h100", "570.124.06", "12.8"),
            ENGINE,
            [
                "the NVIDIA driver 570.124.06 is too old for engine vllm 0.25.1: its CUDA 13.0 needs 580 or later",
            ],
        ),
        (
            host("b300", "580.65.06", "13.0"),
            built_with("12.8", "525"),
            [
                (
                    "engine vllm 9.9 is too old for NVIDIA B300 (sm_103): it is built with CUDA 12.8, and the board "
                    "needs 12.9 or later"
                )
            ],
        ),
        (
            host("b300", "570.26", "12.8"),
            built_with("12.9", "525"),
            [
                (
                    "the NVIDIA driver 570.26 (CUDA 12.8) is too old for NVIDIA B300 (sm_103), which needs "
                    "CUDA 12.9 or later"
                )
            ],
        ),
        (host("h100", None, None), ENGINE, []),
        (host("h100", "unknown", None), ENGINE, []),
        (host("NVIDIA H100 PCIe", "570.26", "12.8"), built_with("12.8", "525"), []),
        (
            host("h100", "450.80.02", "11.0"),
            ENGINE.model_copy(update={"requires": None}),
            [
                (
                    "the NVIDIA driver 450.80.02 (CUDA 11.0) is too old for NVIDIA H100 SXM (sm_90), which needs "
                    "CUDA 11.8 or later"
                )
            ],
        ),
        (Hardware(gpu="cpu", device_name="x", sm_arch="x86_64-avx2"), ENGINE, []),
    ],
)
def test_what_is_too_old_is_said_and_the_unknown_is_passed_over(
    devices: Hardware, engine: EngineConfig, faults: list[str]
) -> None:
    assert list(too_old(devices, "vllm", engine, GPUS)) == faults


def test_a_run_on_such_a_host_is_refused_in_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"driver 570.26 is too old for engine vllm 0.25.1.* Update it, or"
    ) as caught:
        check_versions(host("h100", "570.26", "12.8"), "vllm", ENGINE, GPUS)
    assert "\n" not in str(caught.value)
