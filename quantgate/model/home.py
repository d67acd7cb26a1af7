"""Find a user's data: QUANTGATE_HOME and the paths below it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout or image that the application runs from."""


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

    @property
    def engines(self) -> Path:
        """Engine environments (QUANTGATE_ENGINES); homes may share them."""
        return _absolute(os.environ.get("QUANTGATE_ENGINES") or self.path / "engines")
