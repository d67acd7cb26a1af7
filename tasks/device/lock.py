"""Lock devices and runs between processes: one measurement a device at a time, one process a run."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from quantgate.model.bounded import named_path
from quantgate.model.errors import ConfigError
from quantgate.model.home import Home
from quantgate.model.records import Hardware
from tasks.progress import Reporter

_NOTE_BYTES = 80
_OURS = re.compile(rb"(process \d+)?")


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_for_all(path: Path) -> int:
    """Open a lock file so that another user can lock it next.

    Anyone may have put something else under its name: a link, a pipe, a second name of somebody's file. An existing
    file is opened without O_CREAT, which the kernel refuses for a file of another user (fs.protected_regular).

    Raises:
        ConfigError: it is no lock file.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            pass
        except OSError as error:
            raise _no_lock(path, error.strerror or str(error)) from None
        else:
            os.fchmod(descriptor, 0o666)
            return descriptor
        try:
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            continue  # removed since
        except OSError as error:
            raise _no_lock(path, error.strerror or str(error)) from None
        facts = os.fstat(descriptor)
        if (
            stat.S_ISREG(facts.st_mode)
            and facts.st_nlink <= 1
            and facts.st_size < _NOTE_BYTES
            and _OURS.fullmatch(os.pread(descriptor, _NOTE_BYTES, 0))
        ):
            return descriptor
        os.close(descriptor)
        raise _no_lock(path, "it holds something else")


def _no_lock(path: Path, why: str) -> ConfigError:
    hint = "Remove it, or name a folder of your own with QUANTGATE_LOCKS."
    return ConfigError(f"is no lock that can be used ({why})", where=str(path), hint=hint)


def _shared_folder() -> Path:
    """Return the folder of the devices' locks, which every user can write to.

    Raises:
        ConfigError: the folder in the shared temporary folder is a link, or no folder.
    """
    named = os.environ.get("QUANTGATE_LOCKS")
    folder = named_path(named) if named else Path(tempfile.gettempdir()) / "quantgate-locks"
    for_all = not named
    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            for_all = True
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | (0 if named else os.O_NOFOLLOW))
    except OSError as error:
        raise _no_lock(folder, error.strerror or str(error)) from None
    try:
        with contextlib.suppress(PermissionError):
            if for_all:
                os.fchmod(descriptor, 0o1777)
    finally:
        os.close(descriptor)
    return folder


@contextmanager
def _locked(path: Path, what: str, report: Reporter) -> Iterator[None]:
    """Lock a file; wait for its holder, and say so. A killed holder's lock is free at once."""
    with os.fdopen(_open_for_all(path), "r+") as file:
        if not _try_lock(file):
            holder = file.read(_NOTE_BYTES)
            holder = holder if holder and _OURS.fullmatch(holder.encode()) else "another run"
            with report.step(f"waiting for {what}, locked by {holder}") as step:
                while not _try_lock(file):
                    step.update()
                    time.sleep(0.5)
        os.ftruncate(file.fileno(), 0)
        with contextlib.suppress(OSError):  # on a full disk the lock holds without a note of its holder
            os.pwrite(file.fileno(), f"process {os.getpid()}".encode(), 0)
        yield


def lock_files(hardware: Hardware) -> list[Path]:
    """Return one lock file per device, in a fixed order so that two runs over several can't deadlock."""
    folder = _shared_folder()
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
