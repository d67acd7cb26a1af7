"""The pools that the matrix may use: what their hosts have, and with which engine they measure."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.planning.cpu_fit import pool_memory_bytes
from quantgate.model.config.engines import EngineConfig, EngineFile
from quantgate.model.config.fleet import FleetFile, Pool
from quantgate.model.config.gpus import GpuConfig, choose_gpu, load_gpus
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import choose, load_yaml
from tasks.engine import environment
from tasks.engine import server as engine


@dataclass(frozen=True)
class PoolFacts:
    """A pool and what is known of its hosts."""

    name: str
    config: Pool
    gpu: str
    gpu_config: GpuConfig
    engine: EngineConfig
    memory_bytes: float | None = None
    """Of its smallest host, where the pool is a CPU's and says it; else None."""


def pool_facts(fleet: FleetFile, names: Sequence[str]) -> list[PoolFacts]:
    """Return pools with their GPU's facts and their engine; all that have hosts if no name is given.

    Raises:
        ConfigError: there is no such pool, GPU or engine, or no pool has hosts.
    """
    names = names or [name for name, pool in fleet.pools.items() if pool.hosts]
    if not names:
        raise ConfigError("no pool has hosts", where="fleet", hint="List hosts there, or name a --pool.")
    gpus = load_gpus()
    pools = []
    for name in names:
        pool: Pool = choose(fleet.pools, name, "fleet: pools")
        gpu = choose_gpu(gpus, pool.measured_gpu, f"fleet: pools.{name}")
        memory_bytes = None if gpu.nvml_names else pool_memory_bytes(pool)
        pools.append(PoolFacts(name, pool, pool.measured_gpu, gpu, _engine(pool, gpu), memory_bytes))
    return pools


def left_out(fleet: FleetFile, chosen: Collection[str], *, by_hand: bool) -> dict[str, str]:
    """Return why each other pool of the fleet gets nothing, by pool.

    Args:
        fleet: all pools.
        chosen: names of those that are planned.
        by_hand: True if the caller named them.
    """
    named = "--pool names others" if by_hand else "the fleet's matrix names others"
    return {
        name: "it has no hosts" if not pool.hosts else named
        for name, pool in fleet.pools.items()
        if name not in chosen
    }


def _engine(pool: Pool, gpu: GpuConfig) -> EngineConfig:
    """Return the pool's engine, or the default of its kind of hardware.

    QUANTGATE_ENGINE names the engine of this host, which has no GPU. Hosts with GPUs may have another engine, and
    then the fleet's file names it.
    """
    if not gpu.nvml_names:
        return environment.load_engine(pool.engine, "cpu")[1]
    path = Path(os.environ.get("QUANTGATE_ENGINES_FILE") or ROOT / "configs" / "engines.yaml")
    default: str = choose(load_yaml(path, EngineFile).default, "gpu", f"{path.name}: default")
    return environment.load_engine(pool.engine or default, "gpu")[1]


def configured_environment(config: EngineConfig) -> dict[str, str]:
    """Return the variables that engines.yaml sets and a run records; a host may set others that only it knows."""
    recorded = engine.recorded_environment(config)
    return {key: recorded[key] for key in config.environment if key in recorded}
