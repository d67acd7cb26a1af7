"""configs/fleet.yaml: the pools, the hosts that serve them, and what is measured every night."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, model_validator

from quantgate.model.bounded import named_path
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import Strict, load_yaml


class Host(Strict):
    """One machine of a pool."""

    name: str
    workers: int = Field(default=1, ge=1, description="Workers on it, each with one measurement at a time.")
    gpus_per_worker: int = Field(default=1, ge=0, description="GPUs that one worker may use; 0 on a CPU.")
    memory_gb: float | None = Field(
        default=None,
        gt=0,
        description="Main memory in GB (10^9 bytes), against which a CPU pool's checkpoints are checked.",
    )


class Pool(Strict):
    """One work pool: hosts of one GPU type."""

    gpu: str = Field(description="A key of configs/gpus.yaml: what its hosts have.")
    simulated_by: str | None = Field(
        default=None,
        description="A key of configs/gpus.yaml that stands in for the GPU; rows carry this one's name.",
    )
    description: str = ""
    engine: str | None = Field(
        default=None, description="An engine of configs/engines.yaml; the host's own default if empty."
    )
    hosts: tuple[Host, ...] = Field(default=(), description="None yet: the pool waits for its first worker.")

    @property
    def measured_gpu(self) -> str:
        """The GPU that rows name: never one that is only simulated."""
        return self.simulated_by or self.gpu

    @property
    def slots(self) -> int:
        """Measurements at once: one per worker, and one where no host is listed yet."""
        return sum(host.workers for host in self.hosts) or 1

    @property
    def gpus(self) -> int:
        """The most GPUs that one measurement can have in this pool."""
        return max((host.gpus_per_worker for host in self.hosts), default=1)


class Nightly(Strict):
    """The matrix: models x precisions x pools."""

    cron: str = "0 1 * * *"
    timezone: str = "UTC"
    active: bool = True
    models: tuple[str, ...] = Field(description="Names of configs/models.")
    precisions: tuple[str, ...] = Field(default=(), description="Of the candidates; every one if empty.")
    pools: tuple[str, ...] = Field(default=(), description="Every pool that has hosts if empty.")
    budget_usd: float | None = Field(default=None, gt=0, description="The most that one night may cost.")


class FleetFile(Strict):
    """configs/fleet.yaml (or the file that QUANTGATE_FLEET names)."""

    cpu_pool: str = Field(default="cpu", description="The pool that runs matrix, load and publish.")
    pools: dict[str, Pool] = Field(min_length=1)
    matrix: Nightly

    @model_validator(mode="after")
    def _known_pools(self) -> FleetFile:
        """Check that every named pool exists."""
        for name in (self.cpu_pool, *self.matrix.pools):
            if name not in self.pools:
                raise ValueError(f"'{name}' is no pool; known: {', '.join(self.pools)}")
        return self


def fleet_path() -> Path:
    """Return the fleet's file: QUANTGATE_FLEET, or configs/fleet.yaml."""
    named = os.environ.get("QUANTGATE_FLEET")
    return named_path(named) if named else ROOT / "configs" / "fleet.yaml"


def load_fleet(path: Path | None = None) -> FleetFile:
    """Read the fleet.

    Raises:
        ConfigError: the file is missing or wrong.
    """
    return load_yaml(path or fleet_path(), FleetFile)
