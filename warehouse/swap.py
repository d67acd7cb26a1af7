"""One writer that never blocks readers: the next state is a copy that a rename puts in place.

docs/decisions/0003-warehouse-swap-by-rename.md says why.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from quantgate.model.disk import writing_to
from quantgate.model.errors import RunError


@contextmanager
def exclusive(target: Path, wait_s: float = 600) -> Iterator[None]:
    """Lock ``target`` for one writer; a second writer waits up to ``wait_s`` seconds.

    The kernel frees the lock when its owner dies, however it dies.

    Raises:
        RunError: another process kept the lock all that time.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        locked = FileLock(target.with_name(f".{target.name}.lock"), timeout=wait_s).acquire()
    except Timeout:
        raise RunError(
            f"another process has been writing it for {wait_s:.0f} s",
            where=target.name,
            hint="Wait for that load to end, then try again.",
        ) from None
    with locked:
        yield


def remove_leftovers(target: Path) -> None:
    """Remove temporary files that a killed writer of ``target`` left. Call it only under the lock."""
    for path in target.parent.glob(f".{target.name}.next-*"):
        if path.is_dir():  # DuckDB's spill folder
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target``; when the block succeeds, rename that file to ``target``.

    The file keeps the permissions of the one before. A block that removes the temporary file leaves ``target`` as it
    is. The content is synced to disk before the rename, and the rename is synced too: a kill or a power cut at any
    moment leaves the old file or the new one, whole.

    Raises:
        RunError: the disk is full, or takes nothing more for another reason; ``target`` is as it was.
    """
    temporary = target.with_name(f".{target.name}.next-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with writing_to(target):
            yield temporary
            if temporary.exists():
                _put_in_place(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
        temporary.with_name(temporary.name + ".wal").unlink(missing_ok=True)


def _put_in_place(temporary: Path, target: Path) -> None:
    if target.exists():
        temporary.chmod(stat.S_IMODE(target.stat().st_mode))
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def next_state(warehouse: Path) -> Iterator[Path]:
    """Yield a copy of the warehouse that replaces it as in `replacing`; the path is empty before the first load.

    Raises:
        RunError: another program opened the warehouse for writing and left a write-ahead log, which would be
            applied to the wrong file.
    """
    log = warehouse.with_name(warehouse.name + ".wal")
    if log.exists():
        raise RunError(
            "another program opened it for writing",
            where=str(warehouse),
            hint=f"End that program; if {log.name} stays, open the file with DuckDB once and close it.",
        )
    with replacing(warehouse) as temporary:
        if warehouse.exists():
            shutil.copyfile(warehouse, temporary)
        yield temporary
