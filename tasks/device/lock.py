"""Lock devices and runs between processes: one measurement a device at a time, one process a run."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from quantgate.model.home import Home
from quantgate.model.records import Hardware
from tasks.progress import Reporter


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_for_all(path: Path) -> int:
    """Open a lock file so that another user can lock it next."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    with contextlib.suppress(PermissionError):
        os.fchmod(descriptor, 0o666)
    return descriptor


@contextmanager
def _locked(path: Path, what: str, report: Reporter) -> Iterator[None]:
    """Lock a file; wait for its holder, and say so. A killed holder's lock is free at once."""
    with os.fdopen(_open_for_all(path), "r+") as file:
        if not _try_lock(file):
            holder = file.read().strip() or "another run"
            with report.step(f"waiting for {what}, locked by {holder}") as step:
                while not _try_lock(file):
                    step.update()
                    time.sleep(0.5)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()}")
        file.flush()
        yield


def lock_files(hardware: Hardware) -> list[Path]:
    """Return one lock file per device, in a fixed order so that two runs over several can't deadlock."""
    folder = Path(os.environ.get("QUANTGATE_LOCKS") or Path(tempfile.gettempdir()) / "quantgate-locks")
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(PermissionError):
        folder.chmod(0o1777)
    devices = sorted(hardware.uuids) or [hardware.gpu]
    return [folder / f"{hashlib.sha256(device.encode()).hexdigest()[:16]}.lock" for device in devices]


@contextmanager
def locked_devices(hardware: Hardware, report: Reporter) -> Iterator[None]:
    """Lock the devices of a measurement."""
    with ExitStack() as stack:
        for path in lock_files(hardware):
            stack.enter_context(_locked(path, hardware.device_name, report))
        yield


@contextmanager
def locked_run(home: Home, fingerprint: str, what: str, report: Reporter) -> Iterator[None]:
    """Lock a run: two processes on one fingerprint would remove each other's parts."""
    folder = home.staging / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / fingerprint, what, report):
        yield
