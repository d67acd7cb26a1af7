"""Start the matrix's runs on the pools and wait for them; no run is started twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from flows.fleet.server import OUTDATED, is_refusal, what_went_wrong
from flows.naming import name_of, tags_of
from flows.parameters import ValidateParameters
from flows.planning.cells import Unit, run_name

POLL_S = 5.0
ATTEMPTS = 100
"""Number of keys to look up in one request."""


@dataclass(frozen=True)
class Outcome:
    """The end of a run; `problem` is empty where it completed."""

    name: str
    problem: str = ""
    joined: bool = False
    """True if the run was in progress already: a matrix that has ended since had started it."""


async def dispatch(units: Iterable[Unit], wait_s: float) -> list[Outcome]:
    """Run every unit on its pool, all at once, and wait for all of them; a failure does not stop the others.

    Args:
        units: have parameters.
        wait_s: most seconds to wait; a run that isn't finished then goes on, and counts as failed.

    Returns:
        An outcome for each unit, in their order.
    """
    async with get_client() as client:
        return list(await asyncio.gather(*(_unit(client, unit, wait_s) for unit in units)))


async def run_once(deployment: str, wait_s: float) -> Outcome:
    """Run a deployment with its own parameters and wait for it."""
    async with get_client() as client:
        return await _ended(client, deployment, deployment, wait_s)


async def _unit(client: PrefectClient, unit: Unit, wait_s: float) -> Outcome:
    name = run_name(unit.model, unit.pool)
    unpinned = [cell.source for cell in unit.due if cell.expected and not cell.expected.checkpoint]
    if unpinned:
        return Outcome(name, f"not started: the commit of {', '.join(unpinned)} isn't known")
    return await _ended(client, f"validate/{unit.pool}", name, wait_s, unit)


async def _ended(
    client: PrefectClient, deployment: str, name: str, wait_s: float, unit: Unit | None = None
) -> Outcome:
    """Start (or join) a run of a deployment, and return how it ended."""
    joined = False
    try:
        key, title, tags = None, None, None
        if unit:
            key, joined = await free_key(client, f"matrix {unit.pool} {unit.model} {unit.fingerprint[:16]}")
            record = ValidateParameters.model_validate(unit.parameters)
            title, tags = name_of(record), tags_of(record)
        run = await arun_deployment(
            deployment,
            client=client,
            parameters={"parameters": unit.parameters} if unit else {},
            flow_run_name=title,
            tags=tags,
            idempotency_key=key,
            as_subflow=not joined,
            timeout=wait_s,
            poll_interval=POLL_S,
        )
    except ObjectNotFound:
        return Outcome(name, f"the server has no deployment '{deployment}'; `quantgate fleet init` makes it")
    except PrefectHTTPStatusError as error:
        reason, hint = what_went_wrong(error), f"; {OUTDATED}" if is_refusal(error) else ""
        return Outcome(name, f"{deployment}: {reason}{hint}")
    except Exception as error:  # the other runs go on, whatever failed at the server or on the way to it
        return Outcome(name, f"{deployment}: {' '.join(str(error).split())[:300] or type(error).__name__}")
    return Outcome(name, _problem(run, wait_s), joined)


def _problem(run: FlowRun, wait_s: float) -> str:
    """Return why a run isn't completed, in the words of its own state."""
    state = run.state
    if state is not None and state.is_completed():
        return ""
    if state is None or not state.is_final():
        return f"not finished within {wait_s / 3600:g} h; run {run.name} goes on"
    message = " ".join((state.message or "").split())
    name = (state.name or state.type.value).lower()
    return f"{name}: {message}" if message else name


async def free_key(client: PrefectClient, stem: str) -> tuple[str, bool]:
    """Return the idempotency key for a run of a plan, and whether such a run is in progress.

    The same plan has the same stem, whichever matrix dispatches it, so that a matrix which was killed and started
    again joins what still runs. A run that has ended used its key: a plan that is still due gets the next one.

    Args:
        client: of the server.
        stem: made of pool, model and the plan's fingerprint.
    """
    first = 1
    while True:
        keys = [f"{stem} {attempt}" for attempt in range(first, first + ATTEMPTS)]
        runs = await client.read_flow_runs(flow_run_filter=with_keys(keys), limit=ATTEMPTS)
        for key, run in runs_by_key(keys, runs):
            if run is None or in_progress(run):
                return key, run is not None
        first += ATTEMPTS


def with_keys(keys: list[str]) -> FlowRunFilter:
    """Return the filter of the runs that have one of these idempotency keys."""
    return FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=keys))


def runs_by_key(keys: list[str], runs: Iterable[FlowRun]) -> Iterator[tuple[str, FlowRun | None]]:
    """Yield each key with its run; None where no run has used it."""
    by_key = {run.idempotency_key: run for run in runs}
    for key in keys:
        yield key, by_key.get(key)


def in_progress(run: FlowRun) -> bool:
    """Return whether a run is queued or running, and not about to end because somebody cancelled it."""
    return run.state is None or not (run.state.is_final() or run.state.is_cancelling())


def is_queued(run: FlowRun) -> bool:
    """Return whether a run waits for its worker."""
    return run.state is None or run.state.is_scheduled() or run.state.is_pending()
