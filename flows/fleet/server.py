"""Connect to the Prefect server that the user has configured."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import WorkerFilter, WorkerFilterStatus
from prefect.settings import get_current_settings

from quantgate.model.errors import ConfigError, RunError

TIMEOUT_S = 10.0
OUTDATED = "`quantgate fleet init` gives the server the parameters and names that this checkout has now."
_START = "`prefect server start` starts one, and PREFECT_API_URL=http://127.0.0.1:4200/api names it."


def api_url() -> str:
    """Return the URL of the configured API, after it has answered.

    Raises:
        ConfigError: none is configured, or it does not answer.
    """
    url = get_current_settings().api.url
    if not url:
        raise ConfigError("no server is configured", where="Prefect", hint=_START)
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=TIMEOUT_S):  # noqa: S310 - the user's own setting
            return url
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ConfigError(f"does not answer ({reason})", where=f"Prefect server {url}", hint=_START) from None


@contextmanager
def server() -> Iterator[SyncPrefectClient]:
    """Open a client of the configured server.

    Raises:
        ConfigError: none is configured, or it does not answer.
        RunError: it refuses a request, or stops answering.
    """
    url = api_url()
    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.HTTPError as error:
        raise RunError(what_went_wrong(error), where=f"Prefect server {url}") from None


def what_went_wrong(error: httpx.HTTPError) -> str:
    """Describe a request's failure in a line: what the server answered, or that it did not."""
    if isinstance(error, httpx.HTTPStatusError):
        request, answer = error.request, error.response
        return f"answered {answer.status_code} to {request.method} {request.url.path}: {answer.text[:300]}"
    return f"stopped answering ({error})"


def is_refusal(error: httpx.HTTPError) -> bool:
    """Return whether the server refused a run's parameters, which it holds to its copy of the deployment's form."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code == httpx.codes.CONFLICT


def may_pass(error: httpx.HTTPError) -> bool:
    """Return whether the same request may be answered later: the server restarts, or is too busy."""
    return not isinstance(error, httpx.HTTPStatusError) or error.response.status_code >= 500


def workers_online(client: SyncPrefectClient, pool: str) -> list[str]:
    """Return the names of a pool's workers that are online."""
    online = WorkerFilter(status=WorkerFilterStatus(any_=["ONLINE"]))
    return sorted(worker.name for worker in client.read_workers_for_work_pool(pool, worker_filter=online))
