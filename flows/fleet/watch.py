"""Follow a run on a server: its states, its own lines, and in the end its table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    LogFilter,
    LogFilterFlowRunId,
    LogFilterTimestamp,
)
from prefect.client.schemas.objects import FlowRun, Log
from prefect.client.schemas.sorting import LogSort
from prefect.exceptions import ObjectNotFound

from flows.fleet.publish_mode import artifact, artifact_key
from flows.fleet.server import may_pass, what_went_wrong
from quantgate.model.errors import ConfigError, RunError

POLL_S = 2.0
OVERLAP = timedelta(seconds=15)
"""Lines arrive in batches from two processes, so they are not in order of time."""
PAGE = 200
PATIENCE_S = 60.0
"""Long enough for a server to restart."""
OWN_LOGGER = "prefect.flow_runs"
TRACEBACK = "\nTraceback (most recent call last):"
"""The server's log has what follows; a run's end is shown in one line."""


class Ended(NamedTuple):
    """The end of a run, with its table."""

    completed: bool
    message: str
    table: str | None
    rows: list[dict[str, Any]]


def watch(
    client: SyncPrefectClient, run_id: UUID, show: Callable[[str], None], *, patience_s: float = PATIENCE_S
) -> Ended:
    """Follow a run to its end.

    Args:
        client: of the server.
        run_id: the flow run.
        show: receives a line for each state and each line of the flow.
        patience_s: seconds for which a server that doesn't answer is asked again.

    Raises:
        ConfigError: the server has no such run.
        RunError: the server stopped answering, or refuses to answer; the run goes on.
    """
    state, lines = None, _Lines(client, run_id)
    down_since: float | None = None
    while True:
        try:
            run = _read(client, run_id)
            final = run.state is not None and run.state.is_final()
            for line in lines.new():
                show(line)
            if run.state_name != state:
                state = run.state_name
                show(f"{run.name}: {state}")
            if final:
                return _ended(client, run)
            down_since = None
        except httpx.HTTPError as error:
            server, reason = f"Prefect server {client.api_url}", what_went_wrong(error)
            if not may_pass(error) or (down_since is not None and time.monotonic() - down_since > patience_s):
                hint = f"The run goes on: `quantgate fleet watch {run_id}` follows it again."
                raise RunError(reason, where=server, hint=hint) from None
            if down_since is None:
                down_since = time.monotonic()
                show(f"{server}: {reason}; asking again for {patience_s:.0f} s")
        time.sleep(POLL_S)


def _read(client: SyncPrefectClient, run_id: UUID) -> FlowRun:
    try:
        return client.read_flow_run(run_id)
    except ObjectNotFound:
        raise ConfigError(
            "the server has no such run", where=str(run_id), hint="`prefect flow-run ls` lists them."
        ) from None


class _Lines:
    """Read the flow's lines, each once."""

    def __init__(self, client: SyncPrefectClient, run_id: UUID) -> None:
        self._client, self._run_id = client, run_id
        self._seen: set[UUID] = set()
        self._latest: datetime | None = None

    def new(self) -> Iterator[str]:
        """Return the lines that were not returned before."""
        after = LogFilterTimestamp(after_=self._latest - OVERLAP) if self._latest else None
        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[self._run_id]), timestamp=after)
        offset = 0
        while True:
            page: list[Log] = self._client.read_logs(
                wanted, limit=PAGE, offset=offset, sort=LogSort.TIMESTAMP_ASC
            )
            for line in page:
                if line.id not in self._seen:
                    self._seen.add(line.id)
                    self._latest = max(line.timestamp, self._latest or line.timestamp)
                    if line.name == OWN_LOGGER:
                        yield line.message.partition(TRACEBACK)[0]
            if len(page) < PAGE:
                return
            offset += PAGE


def _ended(client: SyncPrefectClient, run: FlowRun) -> Ended:
    key = artifact_key(str(run.id))
    table, rows = artifact(client, key), artifact(client, f"{key}-rows")
    text = str(table).removeprefix("```text\n").removesuffix("\n```") if table is not None else None
    message = (run.state.message or "") if run.state else ""
    completed = run.state is not None and run.state.is_completed()
    return Ended(completed, message, text, rows if isinstance(rows, list) else [])
