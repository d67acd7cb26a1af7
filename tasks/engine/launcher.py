"""Run a command so that nothing of it outlives the process that asked for it.

Used as a script: ``python launcher.py LOG -- COMMAND…``; its standard input is a pipe that the asking
process holds. When that process ends, however it ends, the pipe closes and the whole group is stopped.
Watching a pipe rather than PR_SET_PDEATHSIG alone: that signal fires when the *thread* that started the
child ends. The launcher is a child subreaper, so grandchildren that lose their parent come to it.

It is two processes, since one can be killed itself: the inner one runs the command; the outer one, a subreaper
too, ends what the inner one leaves, and the inner one ends everything when the outer one is gone. Both hold
the standard output, by whose end the asking process knows that both are through. Standard library only: it must
run under any interpreter.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 5.0
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _prctl(option: int, value: int) -> None:
    """Set a process option on Linux; elsewhere the pipe alone has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _die_with_launcher() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _reap() -> None:
    """Collect whatever has ended, orphans that were adopted included."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def _children() -> list[int]:
    """Return processes below the launcher that left the group (own session) but were adopted by it."""
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    try:
        return [int(pid) for pid in path.read_text().split()]
    except OSError:
        return []


def stop_group(group: int) -> None:
    """Send SIGTERM to the group, and SIGKILL to what is left after `GRACE_S` seconds."""
    for sent, wait_s in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 2.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, sent)
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            _reap()
            if not _group_alive(group):
                break
            time.sleep(0.01)
    _end_adopted()


def _end_adopted() -> None:
    """Send SIGKILL to every adopted orphan, and to those that are adopted as they end."""
    end = time.monotonic() + 2.0
    while (left := _children()) and time.monotonic() < end:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap()
        time.sleep(0.01)


def _run(log: str, command: list[str]) -> int:
    """Start the command, watch the pipe and the command, stop everything when either ends."""
    stopping: list[int] = []
    for number in _STOPPING:
        signal.signal(number, lambda received, _: stopping.append(received))
    with Path(log).open("ab", buffering=0) as out:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_launcher,  # noqa: PLW1509 - no threads here
        )
    while not stopping and child.poll() is None:
        try:
            readable, _, _ = select.select([0], [], [], 0.2)
            if readable and not os.read(0, 1):
                break
        except InterruptedError:
            continue
    status = child.returncode
    stop_group(child.pid)
    if status is None:
        return 128 + stopping[0] if stopping else 1
    return status if status >= 0 else 128 - status  # as a shell reports a signal


def _guard(inner: int) -> int:
    """Wait for the inner process, passing on signals to stop; then end what it left."""
    for number in _STOPPING:
        signal.signal(number, lambda received, _: os.kill(inner, received))
    _, ended = os.waitpid(inner, 0)
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
    _end_adopted()
    status = os.waitstatus_to_exitcode(ended)
    return status if status >= 0 else 128 - status


def _size(log: str) -> int:
    return Path(log).stat().st_size if Path(log).exists() else 0


def _mask(log: str, begin: int) -> None:
    """Strike secrets out of what the command has written; the folder of logs is its owner's alone meanwhile."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from quantgate.model.secrets import mask_file  # needs the standard library alone

    mask_file(Path(log), begin)


def main() -> int:
    """Fork into the process that guards and the one that runs the command."""
    log, command = sys.argv[1], sys.argv[3:]
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    outer, begin = os.getpid(), _size(log)
    inner = os.fork()
    if inner:
        status = _guard(inner)
        _mask(log, begin)
        return status
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != outer:
        return 1
    return _run(log, command)


if __name__ == "__main__":
    raise SystemExit(main())
