"""Pools, limits, deployments and schedules of a fleet on its Prefect server; safe to repeat."""

from __future__ import annotations

from typing import Any, NamedTuple

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from flows.fleet.deployments import GRACE_S, PULL, SCHEDULE_SLUG, TAG, Deployment, deployments
from quantgate.model.config.fleet import FleetFile, Pool
from quantgate.model.errors import ConfigError

MADE, CHANGED, UNCHANGED, LEFT, REMOVED = "made", "changed", "unchanged", "left", "removed"


class Done(NamedTuple):
    """What became of one thing."""

    state: str
    what: str
    detail: str = ""


def initialize(client: SyncPrefectClient, fleet: FleetFile) -> list[Done]:
    """Make or update everything that the fleet needs.

    Args:
        client: of the server.
        fleet: what is wanted.

    Returns:
        A line for each pool, deployment and schedule, and for what the fleet no longer has.

    Raises:
        ConfigError: a pool of that name exists and is of another type.
    """
    wanted = deployments(fleet)
    done = [_pool(client, name, pool) for name, pool in fleet.pools.items()]
    for one in wanted:
        deployment_id, line = _deployment(client, one)
        done.append(line)
        done += _schedule(client, one, client.read_deployment(deployment_id))
    return done + _leftovers(client, fleet, {one.full_name for one in wanted})


def _pool(client: SyncPrefectClient, name: str, pool: Pool) -> Done:
    what = f"pool {name}"
    description = pool.description or f"{pool.gpu} hosts"
    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(
            WorkPoolCreate(
                name=name,
                type=ProcessWorker.type,
                description=description,
                base_job_template=ProcessWorker.get_default_base_job_template(),
            )
        )
        return Done(MADE, what, description)
    if found.type != ProcessWorker.type:
        raise ConfigError(
            f"a pool of type {found.type} has that name on the server",
            where=what,
            hint=f"Call it something else in the fleet's file, or `prefect work-pool delete {name}`.",
        )
    if found.description == description:
        return Done(UNCHANGED, what)
    client.update_work_pool(name, WorkPoolUpdate(description=description))
    return Done(CHANGED, what, "description")


def _wanted(one: Deployment) -> dict[str, Any]:
    """A deployment's fields as the server keeps them."""
    schema = parameter_schema(one.load_flow())
    return {
        "description": one.description,
        "entrypoint": one.entrypoint,
        "path": ".",
        "parameters": one.parameters,
        "tags": [TAG],
        "pull_steps": PULL,
        "work_pool_name": one.pool,
        "work_queue_name": one.queue,
        "parameter_openapi_schema": schema.model_dump(),
        "enforce_parameter_schema": False,
        "concurrency_limit": one.limit,
        "concurrency_options": ConcurrencyOptions(
            collision_strategy=ConcurrencyLimitStrategy.ENQUEUE, grace_period_seconds=GRACE_S
        )
        if one.limit
        else None,
    }


def _found(deployment: DeploymentResponse) -> dict[str, Any]:
    limit = deployment.global_concurrency_limit
    fields = {
        name: getattr(deployment, name)
        for name in (
            "description",
            "entrypoint",
            "path",
            "parameters",
            "tags",
            "pull_steps",
            "work_pool_name",
            "work_queue_name",
        )
    }
    return fields | {
        "parameter_openapi_schema": deployment.parameter_openapi_schema,
        "enforce_parameter_schema": deployment.enforce_parameter_schema,
        "concurrency_limit": limit.limit if limit else None,
        "concurrency_options": deployment.concurrency_options,
    }


def _deployment(client: SyncPrefectClient, one: Deployment) -> tuple[Any, Done]:
    what, wanted = f"deployment {one.full_name}", _wanted(one)
    told = f"{one.limit} at once" if one.limit else ""
    try:
        found = client.read_deployment_by_name(one.full_name)
    except ObjectNotFound:
        flow_id = client.create_flow_from_name(one.flow)
        return client.create_deployment(flow_id, one.name, **wanted), Done(MADE, what, told)
    there = _found(found)
    different = [name for name, value in wanted.items() if there[name] != value]
    if not different:
        return found.id, Done(UNCHANGED, what)
    client.update_deployment(found.id, DeploymentUpdate(**{name: wanted[name] for name in different}))
    return found.id, Done(CHANGED, what, ", ".join(different))


def _schedule(client: SyncPrefectClient, one: Deployment, there: DeploymentResponse) -> list[Done]:
    """The fleet's schedule; those that a user made are told and left alone."""
    what = f"schedule of {one.full_name}"
    ours = [schedule for schedule in there.schedules if schedule.slug == SCHEDULE_SLUG]
    done = [
        Done(LEFT, what, "another one is not of the fleet's file")
        for schedule in there.schedules
        if schedule.slug != SCHEDULE_SLUG
    ]
    if one.cron is None:
        for schedule in ours:
            client.delete_deployment_schedule(there.id, schedule.id)
            done.append(Done(REMOVED, what))
        return done
    wanted = CronSchedule(cron=one.cron, timezone=one.timezone)
    told = f"{one.cron} {one.timezone}" if one.active else "paused"
    if not ours:
        new = DeploymentScheduleCreate(schedule=wanted, active=one.active, slug=SCHEDULE_SLUG)
        client.create_deployment_schedules(there.id, [new])
        return [*done, Done(MADE, what, told)]
    if ours[0].schedule == wanted and ours[0].active == one.active:
        return [*done, Done(UNCHANGED, what)]
    client.update_deployment_schedule(there.id, ours[0].id, active=one.active, schedule=wanted)
    return [*done, Done(CHANGED, what, told)]


def _leftovers(client: SyncPrefectClient, fleet: FleetFile, wanted: set[str]) -> list[Done]:
    """What an earlier file had: its schedules go, the rest is told, since runs may hang on it."""
    done, pools = [], set()
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    for found in client.read_deployments(deployment_filter=tagged):
        name = f"{client.read_flow(found.flow_id).name}/{found.name}"
        if name in wanted:
            continue
        for schedule in found.schedules:
            client.delete_deployment_schedule(found.id, schedule.id)
            done.append(Done(REMOVED, f"schedule of {name}"))
        done.append(Done(LEFT, f"deployment {name}", f"`prefect deployment delete {name}` removes it"))
        if found.work_pool_name and found.work_pool_name not in fleet.pools:
            pools.add(found.work_pool_name)
    for pool in sorted(pools):
        waiting = len(client.get_scheduled_flow_runs_for_work_pool(pool))
        hint = f"{waiting} runs wait there; `prefect work-pool delete {pool}` removes it and them"
        done.append(Done(LEFT, f"pool {pool}", hint))
    return done
