"""List the deployments that a fleet needs, as records and as prefect.yaml."""

from __future__ import annotations

import importlib
import shlex
from importlib.metadata import version
from typing import Any

import yaml
from pydantic import Field

from quantgate.model.config.fleet import FleetFile, Host, Pool, fleet_path
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import Strict

SCHEDULE_SLUG = "fleet"
"""Marks the schedules that come from configs/fleet.yaml; others are the user's own."""

TAG = "quantgate-fleet"
"""Marks the deployments that come from configs/fleet.yaml."""

GRACE_S = 300
"""Seconds for which a silent run keeps its slot: Prefect renews a lease of 300 s."""

PULL: list[dict[str, Any]] = [
    {"prefect.deployments.steps.set_working_directory": {"directory": "{{ $QUANTGATE_ROOT }}"}}
]
"""The checkout that a worker runs from, read on its host."""

LOAD, PUBLISH = "load/warehouse", "publish/warehouse"

CONTROL, DEFAULT = "control", "default"
"""Queues of the CPU pool: one for flows that coordinate, which wait for one another, and one for flows that measure.
A worker serves both unless its command names one (in compose.yaml the loader beside a worker that measures)."""

_HEADER = """\
# Written by `quantgate fleet show` from configs/fleet.yaml; a test compares the two. `quantgate fleet init` makes these
# deployments on a server, and with them the pools and limits that this file's format has no place for.
"""


class Deployment(Strict):
    """A flow on a pool, with parameters, limit and schedule."""

    flow: str
    name: str
    description: str
    pool: str
    queue: str = DEFAULT
    parameters: dict[str, Any] = Field(default_factory=dict)
    limit: int | None = Field(default=None, description="Number of runs at once; further runs queue.")
    cron: str | None = None
    timezone: str = "UTC"
    active: bool = True

    @property
    def full_name(self) -> str:
        """Return the name that run_deployment takes."""
        return f"{self.flow}/{self.name}"

    @property
    def entrypoint(self) -> str:
        """Return the entrypoint; a flow's file has the flow's name."""
        return f"flows/{self.flow}.py:{self.flow}"

    def load_flow(self) -> Any:
        """Import the flow."""
        return getattr(importlib.import_module(f"flows.{self.flow}"), self.flow)


def validate_parameters(pool: Pool) -> dict[str, Any]:
    """Return the parameters that all validations on a pool share, as fields of ValidateParameters."""
    engine = {"engine": pool.engine} if pool.engine else {}
    return {"gpu": pool.measured_gpu, **engine, "afterwards": "fleet"}


def deployments(fleet: FleetFile) -> list[Deployment]:
    """Return every deployment of a fleet."""
    cpu, nightly = fleet.cpu_pool, fleet.matrix
    return [
        *(
            Deployment(
                flow="validate",
                name=name,
                description=f"Measure a model's precisions on {_hosts(pool)}, judge them, publish the table.",
                pool=name,
                parameters={"parameters": validate_parameters(pool)},
                limit=pool.slots,
            )
            for name, pool in fleet.pools.items()
        ),
        Deployment(
            flow="matrix",
            name="nightly",
            description="Models x precisions x pools: what is not measured yet, or has changed.",
            pool=cpu,
            queue=CONTROL,
            parameters={"parameters": {}},
            limit=1,
            cron=nightly.cron,
            timezone=nightly.timezone,
            active=nightly.active,
        ),
        *(
            Deployment(flow=flow, name="warehouse", description=description, pool=cpu, queue=CONTROL)
            for flow, description in (
                ("load", "Load new bundles into the warehouse."),
                ("publish", "Publish the validated table."),
            )
        ),
    ]


def _hosts(pool: Pool) -> str:
    return f"{pool.measured_gpu} (standing for {pool.gpu})" if pool.simulated_by else pool.gpu


def prefect_yaml(fleet: FleetFile) -> str:
    """Write prefect.yaml of a fleet."""
    content = {
        "name": "quantgate",
        "prefect-version": version("prefect"),
        "pull": PULL,
        "deployments": [_entry(deployment) for deployment in deployments(fleet)],
    }
    return _HEADER + yaml.safe_dump(content, sort_keys=False, width=110)


def _entry(deployment: Deployment) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": deployment.name,
        "description": deployment.description,
        "entrypoint": deployment.entrypoint,
        "work_pool": {"name": deployment.pool, "work_queue_name": deployment.queue},
        "tags": [TAG],
        "enforce_parameter_schema": True,
    }
    if deployment.limit:
        entry["concurrency_limit"] = {
            "limit": deployment.limit,
            "collision_strategy": "ENQUEUE",
            "grace_period_seconds": GRACE_S,
        }
    if deployment.cron:
        entry["schedules"] = [
            {
                "cron": deployment.cron,
                "timezone": deployment.timezone,
                "active": deployment.active,
                "slug": SCHEDULE_SLUG,
            }
        ]
    if deployment.parameters:
        entry["parameters"] = deployment.parameters
    return entry


def worker_commands(fleet: FleetFile, pool_name: str, host: Host) -> list[str]:
    """Return the commands that start a host's workers, from its checkout.

    A GPU pool's worker runs one flow at a time. The CPU pool's worker runs any number: `matrix` and `validate` wait
    there for `load` and `publish`, and the deployment's limit keeps measurements apart.
    """
    start = f"{_fleet_variable()}QUANTGATE_ROOT=$PWD .venv/bin/prefect worker start --type process"
    if pool_name == fleet.cpu_pool:
        return [f"{start} --pool {pool_name} --name {host.name}"]
    commands = []
    for index in range(host.workers):
        first = index * host.gpus_per_worker
        devices = ",".join(map(str, range(first, first + host.gpus_per_worker)))
        simulated = fleet.pools[pool_name].simulated_by or not host.gpus_per_worker
        visible = "" if simulated else f"CUDA_VISIBLE_DEVICES={devices} "
        name = host.name if host.workers == 1 else f"{host.name}-{index}"
        commands.append(f"{visible}{start} --pool {pool_name} --limit 1 --name {name}")
    return commands


def _fleet_variable() -> str:
    """Return the assignment of QUANTGATE_FLEET that a worker needs; empty for the default file."""
    path = fleet_path().resolve()
    if path == ROOT / "configs" / "fleet.yaml":
        return ""
    if path.is_relative_to(ROOT):
        return f"QUANTGATE_FLEET=$PWD/{shlex.quote(str(path.relative_to(ROOT)))} "
    return f"QUANTGATE_FLEET={shlex.quote(str(path))} "
