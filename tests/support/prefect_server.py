"""A Prefect server of one's own on 127.0.0.1 with SQLite, and process workers of it; all end with the test.

And a database whose tables are there: Prefect's hundred migrations of a new one take eight CPU seconds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.engine.process import Tied


@dataclass
class Server:
    """A server that answers."""

    folder: Path
    url: str

    @property
    def environment(self) -> dict[str, str]:
        """Environment that points a process to this server."""
        return {"PREFECT_HOME": str(self.folder), "PREFECT_API_URL": self.url, "DO_NOT_TRACK": "1"}

    def tables(self) -> dict[str, str]:
        """Everything that the database holds, as text by table."""
        with sqlite3.connect(f"file:{self.folder / 'prefect.db'}?mode=ro", uri=True) as database:
            names = [
                row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            return {name: str(database.execute(f'SELECT * FROM "{name}"').fetchall()) for name in names}


def migrated(folder: Path) -> Path:
    """A database as a server's first start leaves it; made once in a folder, whoever asks beside us."""
    folder.mkdir(exist_ok=True)
    made = folder / "migrated.db"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            subprocess.run(
                [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"],
                env=dict(os.environ) | {"PREFECT_HOME": str(folder), "DO_NOT_TRACK": "1"},
                check=True,
                capture_output=True,
            )
            (folder / "prefect.db").rename(made)
    return made


def place(database: Path, prefect_home: Path) -> None:
    """Put a database where a server that starts with this home finds it."""
    prefect_home.mkdir(parents=True, exist_ok=True)
    shutil.copy(database, prefect_home / "prefect.db")


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(folder, f"http://127.0.0.1:{port}/api")
    extra = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with Tied(
        command, log=folder / "server.log", environment=dict(os.environ) | server.environment | extra
    ) as process:
        end = time.monotonic() + 180
        while not _answers(server.url):
            assert process.exit_status() is None, process.output()
            assert time.monotonic() < end, process.output()
            time.sleep(0.2)
        yield server


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def worker(server: Server, pool: str, *options: str, environment: dict[str, str] | None = None) -> Tied:
    """A process worker of a pool, as `fleet init` says to start it."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--pool", pool]
    whole = dict(os.environ) | server.environment | (environment or {})
    return Tied([*command, *options], log=server.folder / f"worker-{pool}.log", environment=whole)
