"""How many GPUs a checkpoint needs: 70B on real GPUs' memory, heads, and what a host's validate makes of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flows.fitting import fitting, spread
from quantgate.model.config import ROOT, EngineConfig, EngineFile, load_yaml
from quantgate.model.errors import ConfigError
from quantgate.model.models import CheckpointConfig, ModelConfig
from quantgate.model.records import Hardware
from tasks.progress import Reporter
from warehouse.database import Connection
from warehouse.estimates import configured

SHORT = {"max-model-len": 8192}


@pytest.fixture(scope="module")
def db() -> Iterator[Connection]:
    with configured() as connection:
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
    assert fitting(db, "Phi-4", "bf16", "l40s", least).gpus is None


def test_what_is_declared_stays(db: Connection) -> None:
    found = fitting(db, "Llama-3.1-70B", "bf16", "h100", {"tensor-parallel-size": 8, "data-parallel-size": 2})
    assert (found.gpus, found.computed) == (16, False)


@pytest.mark.parametrize(
    ("model", "precision", "arguments", "why"),
    [
        ("org/Unheard-of-7B", "bf16", SHORT, "'org/Unheard-of-7B' is none of configs/architectures"),
        ("Llama-3.1-70B", None, SHORT, "the precision of Llama-3.1-70B isn't known"),
        (
            "Llama-3.1-70B",
            "bf16",
            {"max-model-len": "auto"},
            "the longest context of Llama-3.1-70B isn't known",
        ),
        ("Llama-3.1-70B", "mixed", SHORT, "nothing is known of mixed"),
    ],
)
def test_unknown_is_one_gpu_and_says_so(
    db: Connection, model: str, precision: str | None, arguments: dict[str, object], why: str
) -> None:
    found = fitting(db, model, precision, "h100", arguments)
    assert (found.gpus, found.computed) == (1, False)
    assert found.reason.startswith("1 h100 is taken: ")
    assert why in found.reason


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
