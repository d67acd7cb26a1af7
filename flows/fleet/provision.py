"""Make the pools, limits, deployments and schedules of a fleet on its Prefect server; safe to repeat."""

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
from prefect.workers.process import ProcessWorker

from flows.fleet.deployments import GRACE_S, PULL, SCHEDULE_SLUG, TAG, Deployment, deployments
from flows.fleet.form import form_of
from quantgate.model.config.fleet import FleetFile, Pool
from quantgate.model.errors import ConfigError

MADE, CHANGED, UNCHANGED, LEFT, REMOVED = "made", "changed", "unchanged", "left", "removed"


class Done(NamedTuple):
    """A line about one pool, deployment or schedule: what was done to it."""

    state: str
    what: str
    detail: str = ""


def initialize(client: SyncPrefectClient, fleet: FleetFile) -> list[Done]:
    """Make or update everything that the fleet needs.

    Args:
        client: of the server.
        fleet: with the pools and the matrix's schedule.

    Returns:
        A line for each pool, deployment and schedule, also for those that the fleet no longer has.

    Raises:
        ConfigError: the server has a pool of the same name and another type.
    """
    wanted = deployments(fleet)
    done = [_pool(client, name, pool) for name, pool in fleet.pools.items()]
    for deployment in wanted:
        deployment_id, line = _deployment(client, deployment)
        done.append(line)
        done += _schedule(client, deployment, client.read_deployment(deployment_id))
    return done + _leftovers(client, fleet, {deployment.full_name for deployment in wanted})


def _pool(client: SyncPrefectClient, name: str, pool: Pool) -> Done:
    what = f"pool {name}"
    description = pool.description or f"{pool.gpu} hosts"
    try:
        current = client.read_work_pool(name)
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
    if current.type != ProcessWorker.type:
        raise ConfigError(
            f"a pool of type {current.type} has that name on the server",
            where=what,
            hint=f"Call it something else in the fleet's file, or `prefect work-pool delete {name}`.",
        )
    if current.description == description:
        return Done(UNCHANGED, what)
    client.update_work_pool(name, WorkPoolUpdate(description=description))
    return Done(CHANGED, what, "description")


def _wanted(deployment: Deployment) -> dict[str, Any]:
    """Return a deployment's fields as the server keeps them."""
    return {
        "description": deployment.description,
        "entrypoint": deployment.entrypoint,
        "path": ".",
        "parameters": deployment.parameters,
        "tags": [TAG],
        "pull_steps": PULL,
        "work_pool_name": deployment.pool,
        "work_queue_name": deployment.queue,
        "parameter_openapi_schema": form_of(deployment),
        "enforce_parameter_schema": True,
        "concurrency_limit": deployment.limit,
        "concurrency_options": ConcurrencyOptions(
            collision_strategy=ConcurrencyLimitStrategy.ENQUEUE, grace_period_seconds=GRACE_S
        )
        if deployment.limit
        else None,
    }


def _deployment(client: SyncPrefectClient, deployment: Deployment) -> tuple[Any, Done]:
    what, wanted = f"deployment {deployment.full_name}", _wanted(deployment)
    try:
        current = client.read_deployment_by_name(deployment.full_name)
    except ObjectNotFound:
        flow_id = client.create_flow_from_name(deployment.flow)
        limit = f"{deployment.limit} at once" if deployment.limit else ""
        return client.create_deployment(flow_id, deployment.name, **wanted), Done(MADE, what, limit)
    limit_record = current.global_concurrency_limit
    fields = {**vars(current), "concurrency_limit": limit_record.limit if limit_record else None}
    different = [name for name, value in wanted.items() if fields[name] != value]
    if not different:
        return current.id, Done(UNCHANGED, what)
    client.update_deployment(current.id, DeploymentUpdate(**{name: wanted[name] for name in different}))
    return current.id, Done(CHANGED, what, ", ".join(different))


def _schedule(client: SyncPrefectClient, wanted: Deployment, current: DeploymentResponse) -> list[Done]:
    """Make or update the fleet's schedule; report those that a user made, and leave them alone."""
    what = f"schedule of {wanted.full_name}"
    ours = [schedule for schedule in current.schedules if schedule.slug == SCHEDULE_SLUG]
    done = [
        Done(LEFT, what, "another schedule is not from the fleet's file")
        for schedule in current.schedules
        if schedule.slug != SCHEDULE_SLUG
    ]
    if wanted.cron is None:
        for schedule in ours:
            client.delete_deployment_schedule(current.id, schedule.id)
            done.append(Done(REMOVED, what))
        return done
    cron = CronSchedule(cron=wanted.cron, timezone=wanted.timezone)
    detail = f"{wanted.cron} {wanted.timezone}" if wanted.active else "paused"
    if not ours:
        new = DeploymentScheduleCreate(schedule=cron, active=wanted.active, slug=SCHEDULE_SLUG)
        client.create_deployment_schedules(current.id, [new])
        return [*done, Done(MADE, what, detail)]
    if ours[0].schedule == cron and ours[0].active == wanted.active:
        return [*done, Done(UNCHANGED, what)]
    client.update_deployment_schedule(current.id, ours[0].id, active=wanted.active, schedule=cron)
    return [*done, Done(CHANGED, what, detail)]


def _leftovers(client: SyncPrefectClient, fleet: FleetFile, wanted: set[str]) -> list[Done]:
    """Remove the schedules of an earlier file; report its pools and deployments, which runs may need."""
    done, pools = [], set()
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    for deployment in client.read_deployments(deployment_filter=tagged):
        name = f"{client.read_flow(deployment.flow_id).name}/{deployment.name}"
        if name in wanted:
            continue
        for schedule in deployment.schedules:
            client.delete_deployment_schedule(deployment.id, schedule.id)
            done.append(Done(REMOVED, f"schedule of {name}"))
        done.append(Done(LEFT, f"deployment {name}", f"`prefect deployment delete {name}` removes it"))
        if deployment.work_pool_name and deployment.work_pool_name not in fleet.pools:
            pools.add(deployment.work_pool_name)
    for pool in sorted(pools):
        waiting = len(client.get_scheduled_flow_runs_for_work_pool(pool))
        hint = f"runs that wait there: {waiting}; `prefect work-pool delete {pool}` removes it and them"
        done.append(Done(LEFT, f"pool {pool}", hint))
    return done
