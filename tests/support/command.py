"""Run the real command as a user would, and look for what it leaves behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

QUANTGATE = Path(sys.executable).with_name("quantgate")


@dataclass
class Ended:
    """End of a command."""

    status: int
    out: str
    err: str


def hear_ctrl_c() -> None:
    """For ``preexec_fn``: a child of a shell's background job would ignore SIGINT, and so would all below it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def quantgate(*arguments: str, timeout_s: float = 400) -> Ended:
    """Run the command to its end."""
    done = subprocess.run(
        [QUANTGATE, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        env=dict(os.environ),
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def at_terminal(command: list[str], columns: int = 80) -> str:
    """Run a program whose output is a terminal's, and return what it prints."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment):
        os.close(its)
        printed = b""
        with contextlib.suppress(OSError):  # the terminal's other end is closed
            while part := os.read(ours, 65536):
                printed += part
    os.close(ours)
    return printed.decode().replace("\r\n", "\n")


def kill_when(
    arguments: list[str],
    condition: Callable[[str], bool],
    log: Path,
    *,
    sent: signal.Signals = signal.SIGKILL,
    timeout_s: float = 300,
) -> str:
    """Start the command and kill it as soon as the condition on its progress lines (or anything else) holds.

    Returns:
        Its output, once it has ended with the signal's exit status.
    """
    with log.open("w") as out:
        process = subprocess.Popen(
            [QUANTGATE, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=out,
            env=dict(os.environ),
            preexec_fn=hear_ctrl_c,  # noqa: PLW1509 - no threads here
        )
        end = time.monotonic() + timeout_s
        try:
            while not condition(log.read_text()):
                assert process.poll() is None, f"ended by itself: {log.read_text()}"
                assert time.monotonic() < end, f"the moment never came: {log.read_text()}"
                time.sleep(0.02)
            process.send_signal(sent)
            expected = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}[sent]
            assert process.wait(timeout=30) == expected, log.read_text()  # a spot host is gone after 30 s
        finally:
            process.kill()
            process.wait()
    return log.read_text()


def own_processes(home: Path) -> Iterator[tuple[int, str]]:
    """Process id and command line of what runs with this home, whoever its parent is; this process excepted."""
    for process in psutil.process_iter(["cmdline", "status"]):
        try:
            ours = process.environ().get("QUANTGATE_HOME") == str(home)
        except (psutil.Error, OSError):
            continue
        if ours and process.pid != os.getpid() and process.info["status"] != psutil.STATUS_ZOMBIE:
            yield process.pid, " ".join(process.info["cmdline"] or [])


def processes_of(home: Path) -> list[str]:
    """Command lines of processes that run with this home."""
    return [line[:300] for _, line in own_processes(home)]


def nothing_left(home: Path, within_s: float = 15) -> list[str]:
    """Return the processes still running with this home after a while; empty is good."""
    end = time.monotonic() + within_s
    while (left := processes_of(home)) and time.monotonic() < end:
        time.sleep(0.1)
    return left
