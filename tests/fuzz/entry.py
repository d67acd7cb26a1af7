"""The command's entry in this process: how it ends, whatever it is given."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from commands import main as cli
from commands import runtime
from quantgate.model.config.engines import EngineConfig
from quantgate.model.errors import RunError
from quantgate.model.home import Home
from tasks.engine import arguments as engine_arguments
from tasks.engine import environment as engines
from tasks.progress import Reporter
from tasks.quality.content import describe

FLOW_BEGINS = "a flow would begin"
STATUSES = (0, 1, 2, 3)
WITHIN_S = 30
MEMORY_BYTES = 3 << 30


class _Left(BaseException):
    pass


class Stuck(BaseException):
    """It took longer than any refusal does."""


@dataclass(frozen=True)
class Ended:
    """End of a command."""

    status: int | None
    out: str
    err: str
    fault: str
    """Why this is no proper end; empty where it is one."""


@contextlib.contextmanager
def _no_flow(home: Home) -> Iterator[None]:
    raise RunError(FLOW_BEGINS)
    yield


def _no_engine(name: str, config: EngineConfig, _home: Home, _report: Reporter) -> engines.EngineEnvironment:
    return engines.EngineEnvironment(name, config, Path(sys.executable), "0.25.0")


def _stuck(*_: object) -> None:
    raise Stuck


def _fault(status: int | None, out: str, err: str, trace: str) -> str:
    if trace:
        return trace
    if status not in STATUSES:
        return f"status {status}"
    if "Traceback" in err:
        return err[err.index("Traceback") :]
    if status == 2 and not err.splitlines():
        return "no word of what is wrong"
    if status == 2 and not err.splitlines()[-1].startswith("quantgate: "):
        return f"no line of ours: {err[-300:]}"
    return ""


def command(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Ended:
    """Run ``quantgate ARGUMENTS`` in this process up to where a flow would begin."""
    out, err = io.StringIO(), io.StringIO()
    kept, status, trace = dict(os.environ), None, ""
    left: list[int] = []

    def leave(code: int) -> None:
        left.append(code)
        raise _Left

    previous = signal.signal(signal.SIGALRM, _stuck)
    signal.alarm(WITHIN_S)
    patches: list[Any] = [
        mock.patch.object(cli, "_leave", leave),
        mock.patch.object(cli.signal, "signal"),
        mock.patch.object(engines, "prepare", _no_engine),
        mock.patch.object(describe, "_run", return_value="no task is read in another process"),
        mock.patch.object(engine_arguments, "_help", return_value=""),
        mock.patch.object(runtime, "in_process", _no_flow),
        mock.patch.object(sys, "argv", ["quantgate", *arguments]),
        mock.patch.dict(os.environ, environment or {}),
    ]
    try:
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            cli.main()
    except _Left:
        status = left[0]
    except (Exception, Stuck, SystemExit) as error:
        trace = "".join(traceback.format_exception(error))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        os.environ.clear()
        os.environ.update(kept)
        cli._received.clear()
    return Ended(
        status, out.getvalue(), err.getvalue(), _fault(status, out.getvalue(), err.getvalue(), trace)
    )


def in_child(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Ended:
    """Run a command as `command` does, in a child of little memory, whose crash is a fault as well."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
            with os.fdopen(writer, "w") as pipe:
                json.dump(asdict(command(arguments, environment)), pipe)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        written = pipe.read()
    _, status = os.waitpid(child, 0)
    if not written:
        return Ended(None, "", "", f"the process ended with {status}")
    return Ended(**json.loads(written))
