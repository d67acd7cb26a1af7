"""Whether a checkpoint fits a CPU host's memory: on this machine, on a pool that says its own, on one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.parameters import ValidateParameters
from flows.planning import cpu_fit
from flows.planning.cpu_fit import check_memory, check_size, pool_memory_bytes, too_large, weights_bytes
from flows.planning.request import declare
from flows.planning.runs import resolved_checkpoints
from quantgate.model.config.engines import EngineConfig
from quantgate.model.config.fleet import Host, Pool
from quantgate.model.config.models import CheckpointConfig, ModelConfig, load_model
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT, Home
from tasks.checkpoint.pins import Pins
from tasks.engine.environment import load_engine
from tasks.progress import Reporter
from tests.support.hub_server import HubServer
from tests.support.tiny_checkpoints import checkpoint_files
from warehouse.configuration import configured_in_memory
from warehouse.database import Connection

GB = 1e9


@pytest.fixture(autouse=True)
def small_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_fit, "host_memory_bytes", lambda: 25_300_000_000)
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)


@pytest.fixture(scope="module")
def db() -> Iterator[Connection]:
    with configured_in_memory() as connection:
        yield connection


def engine(**environment: str) -> EngineConfig:
    config = load_engine("vllm-cpu", "cpu")[1]
    return config.model_copy(update={"environment": environment})


def test_weights_kv_space_and_the_engine_count() -> None:
    four = engine(VLLM_CPU_KVCACHE_SPACE="4")
    assert too_large(18.9 * GB, four, {}, 25.3 * GB) == ""
    assert too_large(19.1 * GB, four, {}, 25.3 * GB) == (
        "19.1 GB of weights, 4.3 GB of KV cache and 2.0 GB for the engine do not fit 25.3 GB of memory"
    )
    assert too_large(23 * GB, engine(), {}, 25.3 * GB) == "", "the engine takes what is left"
    assert "1.0 GB of KV cache" in too_large(23 * GB, engine(), {"kv-cache-memory-bytes": 10**9}, 25.3 * GB)


@pytest.mark.parametrize("space", ["much", "-1"])
def test_a_kv_space_that_is_no_number_is_refused(space: str) -> None:
    with pytest.raises(ConfigError, match=f"VLLM_CPU_KVCACHE_SPACE is '{space}'"):
        too_large(1.0, engine(VLLM_CPU_KVCACHE_SPACE=space), {}, GB)


def test_a_host_refuses_a_70b_before_it_is_pulled() -> None:
    large = ModelConfig(
        name="seventy",
        architecture="Llama-3.1-70B",
        baseline=CheckpointConfig(source="org/bf16", precision="bf16"),
        candidates=(CheckpointConfig(source="org/fp8", precision="fp8"),),
        suite="demo",
        workload="demo",
        policy="demo",
    )
    with pytest.raises(ConfigError, match=r"org/bf16: 141\.1 GB of weights, 1\.1 GB of KV cache"):
        check_memory(large, large.checkpoints, load_engine("vllm-cpu", "cpu")[1])
    demo = load_model("quantgate-demo")
    check_memory(demo, demo.checkpoints, load_engine("vllm-cpu", "cpu")[1])
    with pytest.raises(ConfigError, match=r"org/unheard-of: 30\.0 GB"):
        check_size("org/unheard-of", 30 * GB, load_engine("vllm-cpu", "cpu")[1], {})


def test_a_hub_says_the_size_of_an_unknown_architecture_before_its_weights_are_fetched(
    home: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("acme/large", checkpoint_files() | {"model-2.safetensors": b"x" * 9_000_000})
    baseline = ROOT / "demo" / "checkpoints" / "quantgate-demo-BF16"
    asked = declare(
        ValidateParameters(baseline=str(baseline), candidates=["acme/large"], tasks=["demo"]), Home(home)
    )
    size = sum(file.stat().st_size for file in baseline.glob("*.safetensors"))
    kv_and_engine = 2**30 + 2 * 10**9
    monkeypatch.setattr(cpu_fit, "host_memory_bytes", lambda: size + kv_and_engine + 1_000_000)
    with pytest.raises(ConfigError, match=r"acme/large: 0\.0 GB of weights, .* do not fit"):
        resolved_checkpoints(asked, Pins(home / "pins.json"), Reporter(lambda line: None))
    assert not {name for name in hub.downloaded() if name.endswith(".safetensors")}


def test_weights_are_those_of_the_files_else_of_the_shape(db: Connection, tmp_path: Path) -> None:
    (tmp_path / "model-1.safetensors").write_bytes(b"x" * 300)
    (tmp_path / "model-2.safetensors").write_bytes(b"x" * 200)
    assert weights_bytes(db, "Llama-3.1-70B", "bf16", str(tmp_path)) == 500
    assert weights_bytes(db, "Llama-3.1-70B", "bf16", "org/x") == pytest.approx(141.1 * GB, rel=0.01)
    assert weights_bytes(db, "Unheard-of", "bf16", "org/x") is None
    assert weights_bytes(db, "Llama-3.1-70B", None, "org/x") is None


def test_a_pool_has_the_memory_of_its_smallest_host() -> None:
    def pool(*hosts: Host) -> Pool:
        return Pool(gpu="cpu", hosts=hosts)

    local, far, big = Host(name="local"), Host(name="far"), Host(name="far", memory_gb=512)
    assert pool_memory_bytes(pool(local)) == 25.3 * GB
    assert pool_memory_bytes(pool(big)) == 512 * GB
    assert pool_memory_bytes(pool(big, local)) == 25.3 * GB
    assert pool_memory_bytes(pool(far)) is None
    assert pool_memory_bytes(pool(far, big)) is None
    assert pool_memory_bytes(pool()) is None
