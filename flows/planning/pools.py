"""The pools that the matrix may use: what their hosts have, and with which engine they measure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quantgate.model.config.engines import EngineConfig, EngineFile
from quantgate.model.config.fleet import FleetFile, Pool
from quantgate.model.config.gpus import GpuConfig, GpuFile
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import choose, load_yaml
from tasks.engine import environment
from tasks.engine import server as engine


@dataclass(frozen=True)
class Place:
    """A pool and what is known of its hosts."""

    name: str
    pool: Pool
    gpu: str
    facts: GpuConfig
    engine: EngineConfig


def places_of(fleet: FleetFile, names: Sequence[str]) -> list[Place]:
    """The pools, each with its GPU's facts and its engine.

    Raises:
        ConfigError: there is no such pool, GPU or engine, or no pool has hosts.
    """
    names = names or [name for name, pool in fleet.pools.items() if pool.hosts]
    if not names:
        raise ConfigError("no pool has hosts", where="fleet", hint="List hosts there, or name a --pool.")
    gpus = load_yaml(ROOT / "configs" / "gpus.yaml", GpuFile).gpus
    places = []
    for name in names:
        pool: Pool = choose(fleet.pools, name, "fleet: pools")
        facts: GpuConfig = choose(gpus, pool.measured_gpu, f"fleet: pools.{name}")
        places.append(Place(name, pool, pool.measured_gpu, facts, _engine(pool, facts)))
    return places


def _engine(pool: Pool, facts: GpuConfig) -> EngineConfig:
    """The pool's engine, or the default of its kind of hardware.

    QUANTGATE_ENGINE says what this host has, which is one without a GPU: hosts with GPUs may have others, and
    then the fleet's file names their engine.
    """
    if not facts.nvml_names:
        return environment.load_engine(pool.engine, "cpu")[1]
    path = Path(os.environ.get("QUANTGATE_ENGINES_FILE") or ROOT / "configs" / "engines.yaml")
    default: str = choose(load_yaml(path, EngineFile).default, "gpu", f"{path.name}: default")
    return environment.load_engine(pool.engine or default, "gpu")[1]


def configured_environment(config: EngineConfig) -> dict[str, str]:
    """What engines.yaml sets and a run records; what a host sets itself is known there alone."""
    recorded = engine.recorded_environment(config)
    return {key: recorded[key] for key in config.environment if key in recorded}
