"""A Prefect server, a process worker and the ``validate`` deployment, all on loopback and in one folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from quantgate.model.home import ROOT
from tests.stub_engine.make import make
from tests.support.command import hear_ctrl_c, own_processes

PREFECT = str(Path(sys.executable).with_name("prefect"))
POOL = "kills"
PARTS = {
    "server": ("server start", "prefect.server"),
    "worker": ("worker start",),
    "supervisor": ("_workspace_supervisor",),
    "flow run": ("_workspace_runtime_bootstrap", "prefect.engine", "prefect.flow_engine"),
    "engine": ("vllm.entrypoints.openai.api_server",),
}
"""Marks of a process's part on its command line; the first part that fits decides."""
CHECKPOINTS = ROOT / "demo" / "checkpoints"
PARAMETERS = {
    "baseline": str(CHECKPOINTS / "quantgate-demo-BF16"),
    "candidates": [str(CHECKPOINTS / "quantgate-demo-NVFP4")],
    "tasks": str(ROOT / "demo" / "tasks" / "arithmetic.yaml"),
    "limit": 24,
    "workload": "demo",
    "concurrency": [2],
    "policy": "demo",
}
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Place:
    """The server's API, a home, and the environment that all processes share."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        port = _free_port()
        self.api = f"http://127.0.0.1:{port}/api"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        self.environment = kept | {
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "DO_NOT_TRACK": "1",
            "QUANTGATE_ENGINES_FILE": str(make(folder / "engine")),
            "QUANTGATE_HOME": str(self.home),
            "QUANTGATE_LOCKS": str(folder / "locks"),
        }

    def ask(self, path: str, body: Any = None) -> Any:
        """One call of Prefect's REST API."""
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.api + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def prefect(self, *arguments: str) -> None:
        """Run a command of Prefect's."""
        done = subprocess.run(
            [PREFECT, "--no-prompt", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, log: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command of Prefect's."""
        with (self.folder / log).open("ab") as out:
            return subprocess.Popen(
                [PREFECT, *arguments],
                cwd=ROOT,
                env=self.environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=hear_ctrl_c,  # noqa: PLW1509 - no threads here
            )

    def worker(self, name: str) -> subprocess.Popen[bytes]:
        """A process worker of the pool."""
        return self.start(
            "worker.log", "worker", "start", "--pool", POOL, "--type", "process", "--name", name
        )

    def deploy(self) -> None:
        """The pool, and the deployment as prefect.yaml has it."""
        file = self.folder / "prefect.yaml"
        deployment = {
            "name": POOL,
            "entrypoint": "flows/validate.py:validate",
            "work_pool": {"name": POOL},
            "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
            "parameters": {"parameters": PARAMETERS},
        }
        step = {"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}
        file.write_text(yaml.safe_dump({"name": "q", "pull": [step], "deployments": [deployment]}))
        self.prefect("work-pool", "create", "--type", "process", POOL)
        self.prefect("deploy", "--all", "--prefect-file", str(file))

    def submit(self) -> str:
        """A run of the deployment; its id."""
        found = self.ask(f"/deployments/name/validate/{POOL}")
        return str(
            self.ask(f"/deployments/{found['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"]
        )

    def state(self, run: str) -> str:
        """The run's state type."""
        return str(self.ask(f"/flow_runs/{run}")["state_type"])

    def await_final(self, run: str, within_s: float) -> str:
        """The run's state once it is final, or as it is when time is over."""
        end = time.monotonic() + within_s
        while (found := self.state(run)) not in FINAL and time.monotonic() < end:
            time.sleep(0.5)
        return found

    def processes(self) -> dict[str, list[int]]:
        """Process ids of this home by part."""
        found: dict[str, list[int]] = {}
        for pid, line in own_processes(self.home):
            part = next((p for p, marks in PARTS.items() if any(m in line for m in marks)), "other")
            found.setdefault(part, []).append(pid)
        return found

    def await_engine(self, within_s: float = 120) -> None:
        """Return when an engine runs."""
        end = time.monotonic() + within_s
        while not self.processes().get("engine"):
            assert time.monotonic() < end, "no engine came up"
            time.sleep(0.1)

    def nothing_left(self, within_s: float) -> dict[str, list[int]]:
        """What of a run is still there after a while, the server and workers aside."""
        end = time.monotonic() + within_s
        while True:
            left = {part: pids for part, pids in self.processes().items() if part not in {"server", "worker"}}
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.2)


@contextlib.contextmanager
def place(folder: Path) -> Iterator[Place]:
    """A server with the deployment; all processes of the place are ended afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    found = Place(folder)
    port = found.api.split(":")[2].split("/")[0]
    found.start("server.log", "server", "start", "--host", "127.0.0.1", "--port", port)
    try:
        end = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError):
                found.ask("/health")
                break
            assert time.monotonic() < end, (folder / "server.log").read_text()
            time.sleep(0.3)
        found.deploy()
        yield found
    finally:
        for pids in found.processes().values():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
