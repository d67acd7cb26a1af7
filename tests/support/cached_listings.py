"""A file system that remembers its listings, as those of object stores do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.dirfs import DirFileSystem


class CachedListings(DirFileSystem):
    """A file system that remembers its listings, as s3fs does."""

    protocol = "cached"
    cachable = True

    def __init__(self, **options: Any) -> None:
        super().__init__(path="/", fs=fsspec.filesystem("file"), **options)
        self.listings: dict[tuple[str, bool], Any] = {}

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        key = (path.rstrip("/"), detail)
        if key not in self.listings:
            self.listings[key] = super().ls(path, detail=detail, **options)
        return self.listings[key]

    def exists(self, path: str, **_: Any) -> bool:
        try:
            names = self.ls(str(Path(path).parent), detail=False)
        except FileNotFoundError:
            return False
        return Path(path).name in {Path(name).name for name in names}

    def isdir(self, path: str) -> bool:
        return self.exists(path)

    def invalidate_cache(self, path: str | None = None) -> None:
        self.listings.clear()


def cached_url(folder: Path) -> str:
    """Make a folder and return the URL under which its listings are remembered."""
    fsspec.register_implementation(CachedListings.protocol, CachedListings, clobber=True)
    folder.mkdir()
    return f"{CachedListings.protocol}://{folder}"
