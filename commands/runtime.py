"""Run flows in this process, with a private Prefect server that ends with it and none of the user's settings."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from quantgate.model.errors import QuantgateError, RunError
from quantgate.model.home import Home

if TYPE_CHECKING:
    from tasks.engine.process import Tied

SERVER_TIMEOUT_S = 180.0
SERVER_RESTARTS = 3


def _settings(home: Home, port: int) -> dict[str, str]:
    return {
        "PREFECT_HOME": str(home.prefect),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
        # The flows print their own lines; Prefect keeps its record in its database.
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def in_process(home: Home) -> Iterator[None]:
    """Run flows in this process against a private server under the home; call it before Prefect is imported.

    Prefect's own temporary server outlives a process that is killed, so the private server is tied to this process. If
    it ends while it is in use, it is started again: its record is on disk, and Prefect's client retries for a minute.

    Raises:
        RunError: the server does not come up, or ends again and again.
    """
    from tasks.engine.process import Tied, direct_loopback

    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | direct_loopback()
    os.environ.clear()
    port = _free_port()
    os.environ.update(kept | _settings(home, port))
    _keep_private(home)
    server = ["prefect", "server", "start", "--no-services", "--host", "127.0.0.1", "--port", str(port)]
    log = home.logs / "prefect-server.log"
    servers: list[Tied] = []
    over = threading.Event()

    def start() -> None:
        servers.append(Tied([sys.executable, "-m", *server], log=log, environment=os.environ))

    def keep() -> None:
        while not over.wait(0.5) and len(servers) <= SERVER_RESTARTS:
            if servers[-1].exit_status() is not None:
                servers[-1].stop()
                start()

    keeper = threading.Thread(target=keep, daemon=True, name="private Prefect server")
    start()
    try:
        import prefect.flows  # noqa: F401 - takes as long as the server's start: both at once

        _await_healthy(servers[-1])
        keeper.start()
        yield
    except QuantgateError:
        raise
    except Exception:
        # Without the server flows fail in many ways, and no error names it. One that is ending answers no more.
        is_alive = servers[0].exit_status() is None and _healthy(os.environ["PREFECT_API_URL"])
        if len(servers) == 1 and is_alive:
            raise
        raise _ended(f"ended while it was in use, {len(servers)} times at most", servers[0]) from None
    finally:
        over.set()
        if keeper.ident is not None:
            keeper.join()
        servers[-1].stop()


def _keep_private(home: Home) -> None:
    """Make the server's folder, database and log the owner's alone: parameters, and what ended a run, are in them.

    SQLite gives the files beside a database the database's own permissions.
    """
    (home.private(home.prefect) / "prefect.db").touch(mode=0o600)
    home.private(home.logs)


def _ended(what: str, server: Tied) -> RunError:
    from tasks.engine.process import how_ended, last_words

    status = server.exit_status()
    how = f"{what}: it {how_ended(status)}" if status is not None else what
    return RunError(
        f"{how}; {last_words(server.output())}", where="private Prefect server", hint=f"Its log: {server.log}"
    )


def _await_healthy(server: Tied) -> None:
    """Wait until the server answers.

    Raises:
        RunError: it ended, or did not answer in time.
    """
    started = time.monotonic()
    while not _healthy(os.environ["PREFECT_API_URL"]):
        if server.exit_status() is not None or time.monotonic() - started > SERVER_TIMEOUT_S:
            raise _ended("did not start", server)
        time.sleep(0.2)


def _healthy(api_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api_url}/health", timeout=2) as answer:  # noqa: S310
            return int(answer.status) == 200
    except OSError:
        return False


@contextmanager
def expected_failures() -> Iterator[None]:
    """Raise an expected failure itself, whatever Prefect wrapped it in."""
    try:
        yield
    except QuantgateError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, QuantgateError | OSError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        raise
