"""How many GPUs a checkpoint needs: 70B on real GPUs' memory, heads, and what a host's validate makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.parameters import ValidateParameters
from flows.planning import request
from flows.planning.gpu_fit import Stored, check_gpus, fitting, served_bytes, spread, stored
from flows.planning.request import declare, hardware_of
from quantgate.model.config.engines import EngineConfig, EngineFile
from quantgate.model.config.models import CheckpointConfig, ModelConfig
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT, Home
from quantgate.model.records import Hardware
from quantgate.model.yaml_file import load_yaml
from tasks.device import hardware
from tasks.progress import Reporter
from tests.tasks.device.test_hardware import Device, FakeNvml
from warehouse.configuration import configured_in_memory
from warehouse.database import Connection

SHORT = {"max-model-len": 8192}


@pytest.fixture(scope="module")
def db() -> Iterator[Connection]:
    with configured_in_memory() as connection:
        yield connection


@pytest.mark.parametrize(
    ("gpu", "precision", "arguments", "gpus"),
    [
        ("h100", "bf16", SHORT, 2),  # 141.1 GB of weights, 77 GB of memory at 0.9
        ("h100", "fp8", SHORT, 1),  # 72.7 GB: 8,245 tokens are left
        ("h100", "fp8", {"max-model-len": 8246}, 2),
        ("h100", "fp8", SHORT | {"gpu-memory-utilization": 0.85}, 2),
        ("h100", "fp8", {"max-model-len": 16384, "kv-cache-dtype": "fp8"}, 1),
        ("h100", "nvfp4", SHORT, 1),
        ("h200", "bf16", SHORT, 2),
        ("h200", "fp8", SHORT, 1),
        ("b200", "bf16", SHORT, 1),
        ("l40s", "bf16", SHORT, 4),
        ("h100", "bf16", {}, 4),  # its own 131,072 tokens: vLLM starts only where one such request fits
        ("h200", "bf16", {}, 2),
        ("b200", "fp8", {}, 1),
    ],
)
def test_a_70b_on_real_gpus(
    db: Connection, gpu: str, precision: str, arguments: dict[str, object], gpus: int
) -> None:
    found = fitting(db, "meta-llama/Llama-3.1-70B", precision, gpu, arguments)
    assert (found.gpus, found.computed) == (gpus, True)
    assert f"on {gpus} {gpu}" in found.reason


def test_too_large_for_a_host_says_how_much(db: Connection) -> None:
    found = fitting(db, "DeepSeek-R1", "bf16", "h100", SHORT)
    assert found.gpus is None
    assert "DeepSeek-R1 in bf16 (1342.1 GB" in found.reason
    assert "none of 1, 2, 4, 8 h100 (615.7 GB" in found.reason


def test_tensor_parallel_divides_the_heads(db: Connection) -> None:
    """Phi-4 has 40 heads and 10 KV heads: 2 GPUs can share them, 4 and 8 can't."""
    assert fitting(db, "Phi-4", "bf16", "l40s", {"max-model-len": 16384}).gpus == 1
    little = {"max-model-len": 16384, "gpu-memory-utilization": 0.6}
    assert fitting(db, "Phi-4", "bf16", "l40s", little).gpus == 2
    least = {"max-model-len": 16384, "gpu-memory-utilization": 0.3}
    none = fitting(db, "Phi-4", "bf16", "l40s", least)
    assert none.gpus is None
    assert "fits on none of 1, 2 l40s" in none.reason


def test_what_is_declared_stays(db: Connection) -> None:
    found = fitting(db, "Llama-3.1-70B", "bf16", "h100", {"tensor-parallel-size": 8, "data-parallel-size": 2})
    assert (found.gpus, found.computed) == (16, False)


def test_an_unknown_model_is_one_gpu_and_says_so(db: Connection) -> None:
    found = fitting(db, "org/Unheard-of-7B", "bf16", "h100", SHORT)
    assert (found.gpus, found.computed) == (1, False)
    assert found.reason == "1 h100 is assumed: configs/architectures has no 'org/Unheard-of-7B'"


@pytest.mark.parametrize(
    ("length", "gpus", "context"),
    [("8K", 2, "8,192"), ("8k", 2, "8,000"), (-1, 4, "131,072"), ("auto", 4, "131,072")],
)
def test_a_context_as_vllm_writes_it(db: Connection, length: object, gpus: int, context: str) -> None:
    found = fitting(db, "Llama-3.1-70B", "bf16", "h100", {"max-model-len": length})
    assert found.gpus == gpus
    assert found.reason.endswith(f"a request may have {context}")


@pytest.mark.parametrize(
    ("precision", "arguments", "why"),
    [
        ("bf16", {"max-model-len": "long"}, "'max-model-len' is 'long'"),
        ("bf16", SHORT | {"gpu-memory-utilization": "abc"}, "'gpu-memory-utilization' is 'abc'"),
        ("bf16", SHORT | {"gpu-memory-utilization": 90}, "'gpu-memory-utilization' is 90"),
        ("bf16", SHORT | {"gpu-memory-utilization": 0}, "'gpu-memory-utilization' is 0"),
        ("bf16", SHORT | {"gpu-memory-utilization": float("nan")}, "'gpu-memory-utilization' is nan"),
        ("bf16", SHORT | {"kv-cache-dtype": "fp9"}, "nothing is known of a KV cache of type 'fp9'"),
        ("mixed", SHORT, "nothing is known of mixed in its memory"),
        (
            "nvfp4",
            {"kv-cache-dtype": "turboquant_k8v4"},
            "nothing is known of a KV cache of type 'turboquant_k8v4'",
        ),
        (None, SHORT, "its precision isn't declared, and bf16 takes more than one"),
    ],
)
def test_what_can_t_be_told_of_a_known_shape_is_refused(
    db: Connection, precision: str | None, arguments: dict[str, object], why: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)):
        fitting(db, "Llama-3.1-70B", precision, "h100", arguments)


@pytest.mark.parametrize(
    ("gpu", "model", "precision", "arguments", "files", "gpus"),
    [
        ("h100", "Llama-3.3-70B", "nvfp4", {}, Stored(), 2),
        ("h100", "Llama-3.3-70B", "nvfp4", {"kv-cache-dtype": "fp8"}, Stored(), 1),
        ("h100", "Llama-3.3-70B", "nvfp4", {}, Stored("fp8"), 1),
        ("h100", "Llama-3.3-70B", "nvfp4", {"kv-cache-dtype": "bfloat16"}, Stored("fp8"), 2),
        ("h100", "Llama-3.3-70B", "nvfp4", {}, Stored("nvfp4"), 1),
        ("h100", "Llama-3.3-70B", "mixed", {}, Stored("fp8", 45_000_000_000), 1),
        ("h100", "Llama-3.3-70B", "mixed", {}, Stored("fp8", 60_000_000_000), 2),
        ("l40s", "Llama-3.1-8B", "fp32", {"max-model-len": 8192}, Stored(), 1),
        ("l40s", "Llama-3.1-8B", "fp32", {"max-model-len": 8192, "dtype": "float32"}, Stored(), 1),
        ("l40s", "Llama-3.1-8B", "fp32", {"max-model-len": 131072}, Stored(), 1),
        ("l40s", "Llama-3.1-8B", "fp32", {"max-model-len": 131072, "dtype": "float32"}, Stored(), 2),
    ],
)
def test_what_is_served_counts(
    db: Connection,
    gpu: str,
    model: str,
    precision: str,
    arguments: dict[str, object],
    files: Stored,
    gpus: int,
) -> None:
    assert fitting(db, model, precision, gpu, arguments, files).gpus == gpus


def test_the_reason_names_what_is_left(db: Connection) -> None:
    reason = fitting(db, "Llama-3.3-70B", "nvfp4", "h100", {}, Stored("fp8")).reason
    assert reason.startswith("42.7 GB of nvfp4 weights leave 199,274 tokens of KV cache on 1 h100")


def test_files_at_hand_say_what_they_store(tmp_path: Path, home: Path) -> None:
    settings = {
        "quant_method": "modelopt",
        "quant_algo": "FP8",
        "kv_cache_scheme": {"type": "float", "num_bits": 8},
    }
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": settings}))
    (tmp_path / "model.safetensors").write_bytes(b"12345678")
    folder = CheckpointConfig(source=str(tmp_path), precision="fp8", kv_cache_dtype="auto")
    assert stored(folder) == Stored("fp8", 8)
    hub_id = CheckpointConfig(source="org/model", precision="fp8", kv_cache_dtype="fp8")
    assert stored(hub_id) == Stored("fp8", None), "its file says it where nothing is pulled"


def test_a_home_of_nobody_is_no_folder() -> None:
    assert stored(CheckpointConfig(source="~nobody-here/checkpoint")) == Stored()


def test_a_board_that_is_not_listed_is_named_with_where_to_add_it(db: Connection) -> None:
    with pytest.raises(ConfigError, match=r"gpus.yaml has no board called 'NVIDIA H100 PCIe'.* nvml_names"):
        fitting(db, "Llama-3.1-70B", "fp8", "NVIDIA H100 PCIe", SHORT)


def test_an_undeclared_precision_takes_one_gpu_where_any_fits(db: Connection) -> None:
    assert fitting(db, "Llama-3.1-70B", None, "b200", SHORT).gpus == 1


def engine() -> EngineConfig:
    return load_yaml(ROOT / "configs" / "engines.yaml", EngineFile).engines["vllm"]


def host(gpu: str, *, mig_slice: str | None = None) -> Hardware:
    return Hardware(gpu=gpu, device_name=gpu, sm_arch="sm_90", uuids=("GPU-0",), mig_slice=mig_slice)


def seventy(**arguments: int) -> ModelConfig:
    return ModelConfig(
        name="Llama-3.1-70B-Instruct",
        architecture="Llama-3.1-70B",
        baseline=CheckpointConfig(source="org/bf16", precision="bf16"),
        candidates=(CheckpointConfig(source="org/fp8", precision="fp8"),),
        suite="demo",
        workload="chat",
        policy="demo",
        engine_arguments=arguments,
    )


def sizes(model: ModelConfig, found: Hardware, told: list[str] | None = None) -> list[object]:
    checkpoints = tuple(
        one.model_copy(update={"engine_arguments": model.engine_arguments})
        for one in (model.baseline, *model.candidates)
    )
    said = told if told is not None else []
    spreaded = spread(model, checkpoints, engine(), found, Reporter(said.append))
    return [one.engine_arguments.get("tensor-parallel-size") for one in spreaded]


def test_a_host_takes_two_h100_for_bf16_and_one_for_fp8() -> None:
    told: list[str] = []
    assert sizes(seventy(**{"max-model-len": 8192}), host("h100"), told) == [2, None]
    assert told[0].startswith("org/bf16: 141.1 GB of bf16 weights leave 29,323 tokens of KV cache on 2 h100")


def test_files_larger_than_the_gpus_are_refused_whatever_the_architecture() -> None:
    two = host("h100").model_copy(update={"gpu_count": 2, "memory_bytes": 80 * 10**9})
    check_gpus("org/new", 144 * 10**9, {}, two)
    assert served_bytes(144, "fp32", {}) == 72, "FP32 is served in 16 bits"
    assert served_bytes(144, "fp32", {"dtype": "float32"}) == served_bytes(144, "bf16", {}) == 144
    with pytest.raises(
        ConfigError, match=r"org/new: 144\.1 GB of weights do not fit 144\.0 GB, .* of 2 h100"
    ):
        check_gpus("org/new", 144_100_000_000, {}, two)
    check_gpus("org/new", 145 * 10**9, {"gpu-memory-utilization": 0.95}, two)
    check_gpus("org/new", 200 * 10**9, {"quantization": "fp8"}, two)


def test_a_cpu_and_a_slice_stay_as_they_are() -> None:
    cpu = Hardware(gpu="cpu", device_name="x", sm_arch="x86_64-avx2")
    assert sizes(seventy(), cpu) == [None, None]
    assert sizes(seventy(), host("h100", mig_slice="3g.40gb")) == [None, None]


def test_a_host_refuses_what_can_t_fit() -> None:
    huge = seventy(**{"max-model-len": 8192}).model_copy(update={"architecture": "DeepSeek-R1"})
    with pytest.raises(
        ConfigError, match=r"org/bf16: DeepSeek-R1 in bf16 .* fits on none of 1, 2, 4, 8 h100"
    ):
        sizes(huge, host("h100"))


def test_validate_on_a_host_spreads_each_checkpoint_as_it_needs(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boards = [Device("NVIDIA H100 80GB HBM3", f"GPU-{number}") for number in range(2)]
    monkeypatch.setattr(hardware, "pynvml", FakeNvml(boards))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(request, "load_model", lambda _: seventy(**{"max-model-len": 8192}))
    parameters = ValidateParameters(model="Llama-3.1-70B-Instruct", gpu="h100")
    declared = declare(parameters, Home.current())
    found = [hardware_of(one, declared.engine, declared.hardware) for one in declared.checkpoints]
    assert [one.gpu_count for one in found] == [2, 1]
    assert [one.uuids for one in found] == [("GPU-0", "GPU-1"), ("GPU-0",)]
    monkeypatch.setattr(hardware, "pynvml", FakeNvml(boards[:1]))
    with pytest.raises(ConfigError, match="2 GPUs asked for, 1 visible"):
        declare(parameters, Home.current())
