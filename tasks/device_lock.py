"""One measurement a device at a time: a file lock on the host, whoever starts it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from quantgate.model.records import Hardware
from tasks.progress import Reporter


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock_files(hardware: Hardware) -> list[Path]:
    """One lock per device, in a fixed order so that two runs over several devices can't deadlock."""
    folder = Path(os.environ.get("QUANTGATE_LOCKS") or Path(tempfile.gettempdir()) / "quantgate-locks")
    folder.mkdir(mode=0o777, parents=True, exist_ok=True)
    devices = sorted(hardware.uuids) or [hardware.gpu]
    return [folder / f"{hashlib.sha256(device.encode()).hexdigest()[:16]}.lock" for device in devices]


@contextmanager
def held(hardware: Hardware, report: Reporter) -> Iterator[None]:
    """Hold the devices; wait for whoever holds them, saying so. A killed holder's lock is free at once."""
    with ExitStack() as stack:
        for path in lock_files(hardware):
            file = stack.enter_context(path.open("a+"))
            if not _try_lock(file):
                file.seek(0)
                holder = file.read().strip() or "another run"
                with report.step(f"waiting for {hardware.device_name}, held by {holder}") as step:
                    while not _try_lock(file):
                        step.update()
                        time.sleep(0.5)
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()}")
            file.flush()
        yield
