"""Fetch large files of a hub's repository so that a kill costs seconds, not the file; check the disk's room first.

The hub's own client (huggingface_hub 2.4) writes to a temporary file of its process and deletes it when it fails: a
killed download begins again, however large. So files that the hub stores by their SHA-256 are fetched here, into
the client's own cache at the path that it reads, and are checked against that hash.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from huggingface_hub import constants, get_session, hf_raise_for_status

from quantgate.model.errors import ConfigError
from tasks.checkpoint.retry import StoppedError, Waiting
from tasks.progress import Step

PARALLEL_FILES = 4
READ_TIMEOUT_S = 30.0
"""A connection without a byte for so long counts as lost."""

RESERVE_BYTES = 1_000_000_000
"""Bytes left free on the cache's disk: a full disk stops whatever else runs on the host."""

BUFFER_BYTES = 1 << 20


class RemoteFile(NamedTuple):
    """A file of a repository as the hub lists it; ``sha256`` where it is stored by its hash (LFS, Xet)."""

    name: str
    size_bytes: int
    sha256: str | None

    @property
    def resumable(self) -> bool:
        """Return True if it is fetched here: its hash is known, and the hub serves its size over plain HTTP."""
        return self.sha256 is not None and self.size_bytes <= constants.MAX_HTTP_DOWNLOAD_SIZE


class DamagedError(Exception):
    """A file arrived whole, but isn't the one that the hub lists."""


@dataclass(frozen=True)
class RepositoryCache:
    """One repository's folder in the hub's cache."""

    cache: Path
    repo: str

    @property
    def folder(self) -> Path:
        """Return the folder, ``models--org--name``."""
        return self.cache / f"models--{self.repo.replace('/', '--')}"

    def blob(self, sha256: str) -> Path:
        """Return the path of a file with that content."""
        return self.folder / "blobs" / sha256

    def partial(self, sha256: str) -> Path:
        """Return the path of that file until it is whole."""
        return self.folder / "blobs" / f"{sha256}.quantgate.incomplete"

    def fetched_bytes(self, sha256: str) -> int:
        """Return the bytes that the cache has of the file with that content, whole or not yet."""
        stored = (path for path in (self.blob(sha256), self.partial(sha256)) if path.is_file())
        return next((path.stat().st_size for path in stored), 0)

    def missing_bytes(self, file: RemoteFile, commit: str) -> int:
        """Return the bytes of a file that are still to fetch."""
        if (self.folder / "snapshots" / commit / file.name).is_file():
            return 0
        return max(0, file.size_bytes - (self.fetched_bytes(file.sha256) if file.sha256 else 0))

    def remember_ref(self, revision: str, commit: str) -> None:
        """Write down which commit a branch or tag names, for a time when the hub can't be reached."""
        path = self.folder / "refs" / revision
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{threading.get_native_id()}.new")
        new.write_text(commit)
        new.replace(path)


def check_room(needed_bytes: int, cache: Path, where: str) -> None:
    """Refuse a pull that the cache's disk has no room for.

    Args:
        needed_bytes: what is still to fetch.
        cache: the hub's cache folder, which need not exist yet.
        where: the checkpoint as messages name it.

    Raises:
        ConfigError: too little is free.
    """
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    if needed_bytes and needed_bytes + RESERVE_BYTES > free_bytes:
        what = (
            f"pulling it takes {needed_bytes / 1e9:,.2f} GB (and {RESERVE_BYTES / 1e9:.0f} GB to spare), "
            f"but {free_bytes / 1e9:,.2f} GB are free in {cache}"
        )
        raise ConfigError(
            what, where=where, hint="Free some space there, or set HF_HOME to a folder on a larger disk."
        )


def fetch(
    files: list[RemoteFile],
    repository: RepositoryCache,
    *,
    url: Callable[[str], str],
    token: str | None,
    waiting: Waiting,
    step: Step,
) -> None:
    """Fetch files into the cache, several at once; go on from what an earlier attempt fetched.

    Args:
        files: those that are resumable.
        repository: the repository's folder in the cache.
        url: the address of a file by its name.
        token: the hub's token, where there is one.
        waiting: waits for a hub in trouble.
        step: progress in MB.

    Raises:
        GaveUpError: the hub or the network failed for longer than the patience lasts.
        DamagedError: a file isn't what the hub lists.
    """
    headers = {"User-Agent": "quantgate", "Accept-Encoding": "identity"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    total_bytes = sum(file.size_bytes for file in files)
    pool = ThreadPoolExecutor(PARALLEL_FILES)
    try:
        pending: set[Future[None]] = {
            pool.submit(_bring, url(file.name), file, repository, headers, waiting) for file in files
        }
        while pending:
            done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            have_bytes = sum(repository.fetched_bytes(file.sha256) for file in files if file.sha256)
            step.update(have_bytes // 1_000_000, total_bytes // 1_000_000)
    except BaseException:
        waiting.stop()
        raise
    finally:
        # Not waited for: one that hangs in a read ends within its time-out, and a spot host has 30 s.
        pool.shutdown(wait=False, cancel_futures=True)


def _bring(
    url: str, file: RemoteFile, repository: RepositoryCache, headers: dict[str, str], waiting: Waiting
) -> None:
    """Fetch one file from where its partial file ends, and move it to the blobs once it is whole."""
    assert file.sha256 is not None
    blob, partial = repository.blob(file.sha256), repository.partial(file.sha256)
    blob.parent.mkdir(parents=True, exist_ok=True)
    with _locked(
        repository.cache / ".locks" / repository.folder.name / f"{file.sha256}.quantgate.lock", waiting
    ):
        tries = 0
        while not blob.is_file():
            before = partial.stat().st_size if partial.is_file() else 0
            try:
                _stream(url, file, partial, headers, waiting)
            except Exception as error:
                grown = partial.is_file() and partial.stat().st_size > before
                tries = 1 if grown else tries + 1
                waiting.pause(error, tries)
                continue
            _check_content(file, partial, waiting)
            partial.replace(blob)


def _stream(url: str, file: RemoteFile, partial: Path, headers: dict[str, str], waiting: Waiting) -> None:
    """Append what is still missing to the partial file."""
    have = partial.stat().st_size if partial.is_file() else 0
    if have > file.size_bytes:
        partial.unlink()
        have = 0
    if have == file.size_bytes and partial.is_file():
        return
    asked = {**headers, "Range": f"bytes={have}-"} if have else headers
    with get_session().stream("GET", url, headers=asked, timeout=READ_TIMEOUT_S) as response:
        hf_raise_for_status(response)
        goes_on = have > 0 and response.status_code == 206
        with partial.open("ab" if goes_on else "wb", buffering=BUFFER_BYTES) as out:
            for chunk in response.iter_bytes():
                waiting.check()
                out.write(chunk)


def _check_content(file: RemoteFile, partial: Path, waiting: Waiting) -> None:
    """Compare a whole file with the hash that the hub lists."""
    digest = hashlib.sha256()
    with partial.open("rb") as content:
        os.fsync(content.fileno())
        while chunk := content.read(1 << 24):
            waiting.check()
            digest.update(chunk)
    if digest.hexdigest() != file.sha256:
        partial.unlink()
        raise DamagedError(f"{file.name} arrived damaged: its SHA-256 is not the one that the hub lists")


def _locked(path: Path, waiting: Waiting) -> AbstractContextManager[object]:
    """Lock a file against a second process; the kernel frees the lock of a killed one."""
    try:
        return FileLock(path).acquire(poll_interval=0.2, cancel_check=waiting.is_stopped)
    except Timeout:
        raise StoppedError from None
