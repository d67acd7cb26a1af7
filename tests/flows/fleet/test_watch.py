"""Following a run on a server that fails meanwhile: asked again for a while, and the run is not given up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, Log
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed

from flows.fleet import watch as module
from flows.fleet.watch import watch
from quantgate.model.errors import RunError

URL = "http://127.0.0.1:9/api"
RUN = FlowRun(
    id=uuid4(), flow_id=uuid4(), name="busy-bee", state=Completed(message="done"), state_name="Completed"
)

LOGS = [
    Log(name=name, level=40, message=message, timestamp=datetime.now(UTC), flow_run_id=RUN.id)
    for name, message in (
        (
            "prefect.flow_runs",
            "it failed: one line\nTraceback (most recent call last):\n  File 'x'\nE: it failed",
        ),
        ("prefect.worker", "not the flow's own"),
    )
]


def faulty(answers: Iterator[int | None]) -> httpx.MockTransport:
    """Fault injection: a server that answers with these statuses, None being no answer, and then well."""

    def answer(request: httpx.Request) -> httpx.Response:
        status = next(answers, 200)
        if status is None:
            raise httpx.ConnectError("connection refused", request=request)
        if status != 200:
            return httpx.Response(status, text="told by the server", request=request)
        bodies = {str(RUN.id): RUN.model_dump(mode="json"), "filter": []}
        if request.url.path.endswith("/logs/filter"):
            bodies["filter"] = [log.model_dump(mode="json") for log in LOGS]
        return httpx.Response(200, json=bodies[request.url.path.rsplit("/", 1)[-1]], request=request)

    return httpx.MockTransport(answer)


def watched(
    monkeypatch: pytest.MonkeyPatch, *answers: int | None, patience_s: float = 60
) -> tuple[str, list[str]]:
    """The run's last message and what was told."""
    monkeypatch.setattr(module, "POLL_S", 0)
    lines: list[str] = []
    with temporary_settings({PREFECT_API_URL: URL}), get_client(sync_client=True) as client:
        client._client._transport = faulty(iter(answers))
        client._client._mounts = {}
        client._client.enable_csrf_support = False
        ended = watch(client, RUN.id, lines.append, patience_s=patience_s)
    return ended.message, lines


def test_a_server_that_comes_back_is_followed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    message, lines = watched(monkeypatch, None, None, 500)
    assert message == "done"
    assert lines == [
        f"Prefect server {URL}/: stopped answering (connection refused); asking again for 60 s",
        "it failed: one line",
        "busy-bee: Completed",
    ]


@pytest.mark.parametrize(
    ("answers", "patience_s", "told"),
    [
        ([None] * 9, 0, "stopped answering (connection refused)"),
        ([401], 60, "answered 401 to GET /api/flow_runs/"),
    ],
)
def test_one_that_does_not_leaves_the_run_going(
    monkeypatch: pytest.MonkeyPatch, answers: list[int | None], patience_s: float, told: str
) -> None:
    with pytest.raises(RunError) as ended:
        watched(monkeypatch, *answers, patience_s=patience_s)
    assert told in str(ended.value)
    assert f"The run goes on: `quantgate fleet watch {RUN.id}` follows it again." in str(ended.value)
