"""Run a child process that cannot outlive us: started through the launcher, stopped as a whole group."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from quantgate.model.errors import RunError
from quantgate.model.secrets import is_secret
from tasks.engine import launcher

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
"""Variables that a child needs to fetch something, with the passwords that they may hold."""
ENGINE_ENDS_WITHIN_S = 10.0
"""Time from an engine's first broken connection until the last process of it is gone."""

_PIPELINES = ("PREFECT_", "PYTHONPATH", "VIRTUAL_ENV")


def child_environment(keep: tuple[str, ...] = ()) -> dict[str, str]:
    """Return our environment without secrets and the pipeline's variables, for a child that may run foreign code.

    It keeps secrets from code that looks at its environment; it is no sandbox: a child of the same user can read
    that user's files.

    Args:
        keep: beginnings of names that the child needs all the same, in upper case.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.upper().startswith(keep) or not (name.startswith(_PIPELINES) or is_secret(name, value))
    }
    return kept | direct_loopback()


def direct_loopback() -> dict[str, str]:
    """Return the variables with which a server on loopback is asked directly: no proxy can reach it."""
    direct = ",".join(filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1"]))
    return {"no_proxy": direct, "NO_PROXY": direct}


class OutOfTimeError(RunError):
    """A command that was stopped because its time was over."""


class Tied:
    """A command running in a session of its own, tied to this process.

    Args:
        command: the command and its arguments.
        log: file that receives its output (appended).
        environment: its whole environment.
        cwd: its working directory.
    """

    def __init__(
        self, command: Sequence[str], *, log: Path, environment: Mapping[str, str], cwd: Path | None = None
    ) -> None:
        """Start the command."""
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        self._process = subprocess.Popen(
            [sys.executable, "-S", launcher.__file__, str(log), "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,  # nothing is written to it; it closes when the launcher has ended
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            cwd=cwd,
            start_new_session=True,  # Ctrl-C reaches us alone; we then stop the command in order
        )

    @property
    def pid(self) -> int:
        """Return the launcher's process id."""
        return self._process.pid

    def exit_status(self) -> int | None:
        """Return the command's exit status, or None while it runs; a signal is 128 and its number, as in a shell."""
        status = self._process.poll()
        return 128 - status if status is not None and status < 0 else status

    def wait(self, most_s: float) -> None:
        """Return when the command has ended, or after so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=most_s)

    def output(self) -> str:
        """Return what the command has printed since it was started."""
        with self.log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode("utf-8", "replace")

    def stop(self) -> None:
        """Stop the whole group; returns when nothing of it is left."""
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=launcher.GRACE_S + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout and not self._process.stdout.closed:
            # A launcher that was killed itself leaves a second process, which ends the command.
            select.select([self._process.stdout], [], [], launcher.GRACE_S + 5)
            self._process.stdout.close()

    def __enter__(self) -> Tied:
        """Use as a context: stopped at the end, however it ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the group."""
        self.stop()


def run_tied(
    command: Sequence[str],
    *,
    what: str,
    log: Path,
    environment: Mapping[str, str],
    timeout_s: float,
    cwd: Path | None = None,
    poll: Callable[[], None] = lambda: None,
    poll_s: float = 0.5,
) -> str:
    """Run a command to its end, within its time.

    Args:
        command: the command and its arguments.
        what: what runs, for messages.
        log: file that receives its output.
        environment: its whole environment.
        timeout_s: seconds until it is stopped.
        cwd: its working directory.
        poll: called about every ``poll_s`` seconds while it runs; may raise to stop it.
        poll_s: seconds between polls.

    Returns:
        What it printed.

    Raises:
        OutOfTimeError: it ran out of time; with its last words and the log's place.
        RunError: it failed; likewise.
    """
    started = time.monotonic()
    with Tied(command, log=log, environment=environment, cwd=cwd) as process:
        while (status := process.exit_status()) is None:
            if time.monotonic() - started > timeout_s:
                raise OutOfTimeError(
                    f"did not end within {timeout_s:.0f} s; {last_words(process.output())}",
                    where=what,
                    hint=f"Its log: {log}",
                )
            poll()
            process.wait(poll_s)
        output = process.output()
    if status != 0:
        raise RunError(f"{how_ended(status)}; {last_words(output)}", where=what, hint=f"Its log: {log}")
    return output


def await_end(check_alive: Callable[[], None], goes_on: Callable[[], object] = lambda: False) -> None:
    """Give an engine whose connections broke the time to end, so that its own reason comes before its client's.

    Args:
        check_alive: raises where it has ended.
        goes_on: true where it has shown that it does, which ends the wait.

    Raises:
        RunError: it has ended; with its last words.
    """
    end = time.monotonic() + ENGINE_ENDS_WITHIN_S
    while not goes_on() and time.monotonic() < end:
        check_alive()
        time.sleep(0.2)
    check_alive()


def how_ended(status: int) -> str:
    """Describe an exit status; above 128 it stands for a signal."""
    try:
        name = signal.Signals(status - 128).name
    except ValueError:
        return f"ended with status {status}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"


_NOISE = ("nanobind", "leaked", "warnings.warn", "resource_tracker", "skipped remainder", "See https://")


def last_words(output: str) -> str:
    """Return the first and the last error of a log, or its last three lines if it has none.

    A traceback's final line says more than what a dying process prints after it.
    """
    kept = [line.strip() for line in output.splitlines() if line.strip()]
    kept = [line for line in kept if not any(noise in line for noise in _NOISE)]
    errors = [line for line in kept if _is_error(line)]
    chosen = list(dict.fromkeys(errors[:1] + errors[-1:])) or kept[-3:]
    return "its last words: " + " | ".join(line[-300:] for line in chosen) if chosen else "it said nothing"


def _is_error(line: str) -> bool:
    """Return True if a line looks like the last line of a traceback, or a fatal message."""
    text = line.rsplit("] ", maxsplit=1)[-1].strip()
    head = text.split(":", maxsplit=1)[0]
    named = head.split(".")[-1]
    return (named.endswith(("Error", "Exception")) and " " not in head and ":" in text) or "FATAL" in text
