"""Find a user's data: QUANTGATE_HOME and the paths below it."""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout or image that the application runs from."""

OTHERS = stat.S_IRWXG | stat.S_IRWXO
"""Permissions of everybody but the owner."""


def _absolute(path: str | Path) -> Path:
    # Path's own functions raise where there is no such user, and at a loop of links.
    return Path(os.path.realpath(os.path.expanduser(path)))  # noqa: PTH111


@dataclass(frozen=True)
class Home:
    """Paths below QUANTGATE_HOME (default ``.quantgate`` in the checkout)."""

    path: Path

    @classmethod
    def current(cls) -> Home:
        """Return the home that the environment names."""
        return cls(_absolute(os.environ.get("QUANTGATE_HOME") or ROOT / ".quantgate"))

    @property
    def warehouse(self) -> Path:
        """The DuckDB file."""
        return self.path / "warehouse.duckdb"

    @property
    def bundles(self) -> str:
        """Folder or fsspec URL of the bundles (QUANTGATE_BUNDLES)."""
        return os.environ.get("QUANTGATE_BUNDLES") or str(self.path / "bundles")

    @property
    def published(self) -> Path:
        """Folder of the published table."""
        return self.path / "published"

    @property
    def staging(self) -> Path:
        """Finished parts of unfinished runs, by fingerprint."""
        return self.path / "staging"

    @property
    def logs(self) -> Path:
        """Logs of engines and tools."""
        return self.path / "logs"

    @property
    def prefect(self) -> Path:
        """PREFECT_HOME of runs in this process."""
        return self.path / "prefect"

    def private(self, folder: Path) -> Path:
        """Return a folder that its owner alone can read: made so, or narrowed to that with all that it holds."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & OTHERS:
            for parent, folders, files in os.walk(folder):
                for name in (".", *folders, *files):
                    with contextlib.suppress(FileNotFoundError, PermissionError):
                        path = Path(parent, name)
                        mode = path.lstat().st_mode
                        if not stat.S_ISLNK(mode):
                            path.chmod(stat.S_IMODE(mode) & ~OTHERS)
        return folder

    @property
    def engines(self) -> Path:
        """Engine environments (QUANTGATE_ENGINES); homes may share them."""
        return _absolute(os.environ.get("QUANTGATE_ENGINES") or self.path / "engines")
