"""Several commands in one process, each as ``quantgate`` runs it, with one private Prefect server for all of them.

Reads a JSON list of cases from standard input, writes a JSON list of how each ended. A case may set variables of the
environment and say how much of the disk is free (fault injection); TEST_MODELS stands in for configs/models.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from commands import main as cli
from commands import runtime
from quantgate.model.config.models import load_models
from quantgate.model.home import Home
from quantgate.model.yaml_file import choose


class Left(BaseException):
    """The command ended, with its exit status."""


def leave(code: int) -> None:
    """In place of ending the process."""
    raise Left(code)


def run(case: dict[str, Any], servers: list[Home]) -> dict[str, Any]:
    """End of one command."""
    out, err = io.StringIO(), io.StringIO()
    kept, usage = dict(os.environ), shutil.disk_usage
    os.environ.update(case.get("environment", {}))
    if "free_bytes" in case:
        full = usage("/")._replace(free=case["free_bytes"])
        shutil.disk_usage = lambda _: full  # type: ignore[assignment]
    sys.argv = ["quantgate", *case["arguments"]]
    servers.clear()
    status: Any = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except Left as left:
            status = left.args[0]
    shutil.disk_usage = usage
    os.environ.clear()
    os.environ.update(kept)
    return {"status": status, "out": out.getvalue(), "err": err.getvalue(), "server": bool(servers)}


def main() -> None:
    """All cases in turn."""
    cases = json.load(sys.stdin)
    servers: list[Home] = []

    @contextlib.contextmanager
    def shared(home: Home) -> Iterator[None]:
        servers.append(home)
        yield

    with runtime.in_process(Home.current()):
        import flows.planning.request

        models = os.environ.get("TEST_MODELS")
        if models:
            flows.planning.request.load_model = lambda name: choose(
                load_models(Path(models)), name, "configs/models"
            )
        runtime.in_process = shared
        cli._leave = leave  # type: ignore[assignment]
        ended = [run(case, servers) for case in cases]
    json.dump(ended, sys.stdout)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
