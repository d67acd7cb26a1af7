"""Submit runs to the fleet's server, watch them, and show how they end."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING
from uuid import UUID

from commands.outcome import NOT_VALIDATED
from commands.output import say
from commands.terminated import Terminated
from quantgate.model.config.fleet import FleetFile, load_fleet
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.home import Home

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

    from flows.parameters import ValidateParameters

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


def _say(text: str) -> None:
    say(text, err=True)


def run_on_fleet(
    gpu: str, parameters: ValidateParameters, home: Home, *, watched: bool, require_validated: bool
) -> int:
    """Submit a validation to the pool that has the GPU; if it is watched, return its exit status."""
    from prefect.utilities.urls import url_for

    from flows.fleet.server import server, workers_online
    from flows.fleet.submit import prepare, submit

    fleet = load_fleet()
    submission = prepare(fleet, gpu, parameters, home)
    with server() as client:
        run, joined = submit(client, submission)
        for note in submission.notes:
            _say(note)
        if not workers_online(client, submission.pool):
            _say(
                f"no worker of pool {submission.pool} is online, so the run waits. "
                f"{_start(fleet, submission.pool)}"
            )
        where = url_for(run) or run.id
        if joined:
            _say(_joined(run, submission.pool, where))
        else:
            _say(f"submitted {run.name} to pool {submission.pool}: {where}")
        if not watched:
            _say(f"follow it with `quantgate fleet watch {run.id}`")
            return 0
        return follow(client, run.id, require_validated=require_validated)


def _joined(run: FlowRun, pool: str, where: object) -> str:
    """Return the line about a run that is joined; one whose worker died is running until somebody cancels it."""
    state = (run.state_name or "scheduled").lower()
    since = f" since {run.state.timestamp:%Y-%m-%d %H:%M} UTC" if run.state else ""
    return (
        f"joined {run.name} in pool {pool}, {state}{since}, and queued no second run: {where} "
        f"(`prefect flow-run cancel {run.id}` cancels it)"
    )


def _start(fleet: FleetFile, pool: str) -> str:
    from flows.fleet.deployments import worker_commands
    from quantgate.model.config.fleet import Host

    hosts = fleet.pools[pool].hosts
    where = hosts[0].name if hosts else f"a host with {fleet.pools[pool].gpu}"
    command = worker_commands(fleet, pool, hosts[0] if hosts else Host(name=f"{pool}-1"))[0]
    return f"Start one on {where}, in the checkout: {command}"


def follow(client: SyncPrefectClient, run_id: UUID, *, require_validated: bool) -> int:
    """Watch a run, print its table and return its exit status; Ctrl-C and SIGTERM end the watching, not the run."""
    from flows.fleet.watch import watch

    try:
        ended = watch(client, run_id, _say)
    except (KeyboardInterrupt, Terminated) as stop:
        _say(
            f"the run goes on: `quantgate fleet watch {run_id}` follows it again, "
            f"`prefect flow-run cancel {run_id}` cancels it"
        )
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    if ended.table:
        say()
        say(ended.table)
    if not ended.completed:
        raise RunError(ended.message or "it did not complete", where=f"run {run_id}")
    if not require_validated:
        return 0
    verdicts = {row["run_id"]: row["verdict"] for row in ended.rows if row["use"] == "all"}
    validated = bool(verdicts) and set(verdicts.values()) <= {"BASELINE", "VALIDATED"}
    return 0 if validated else NOT_VALIDATED


def parse_run_id(given: str) -> UUID:
    """Read the id of a flow run.

    Raises:
        ConfigError: it is not an id.
    """
    try:
        return UUID(given)
    except ValueError:
        raise ConfigError(
            f"'{given}' is not the id of a run", where="RUN", hint="`prefect flow-run ls` lists them."
        ) from None
