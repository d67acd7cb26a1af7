"""Manifests of every layout that ever was, read as today's record."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import fsspec

from quantgate.model.config import parse_record
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.records import SCHEMA_VERSION, Manifest

MANIFEST = "manifest.json"
"""A bundle's manifest; written last, a folder without one is not a bundle."""


def _as_it_is(data: dict[str, Any], where: str) -> Manifest:
    return parse_record(Manifest, data, where)


READERS: dict[int, Callable[[dict[str, Any], str], Manifest]] = {1: _as_it_is, 2: _as_it_is}
"""How a manifest of each schema_version becomes today's record."""


def damaged(run_id: str, what: str) -> RunError:
    """A bundle that can't be used."""
    return RunError(
        what,
        where=f"bundle {run_id}",
        mend="It was skipped; restore its files, or measure again with --fresh.",
    )


def parse_manifest(raw: bytes, run_id: str) -> Manifest:
    """Read a manifest.

    Args:
        raw: the file's bytes.
        run_id: the bundle's folder, for messages; the manifest must name it.

    Raises:
        RunError: it is damaged, or of an unknown version.
    """
    try:
        data = json.loads(raw)
    except (ValueError, UnicodeDecodeError):
        raise damaged(run_id, f"{MANIFEST} is not JSON") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    reader = READERS.get(version) if isinstance(version, int) else None
    if reader is None:
        raise RunError(
            f"schema_version {version} is unknown (this Quantgate reads 1 to {SCHEMA_VERSION})",
            where=f"bundle {run_id}",
            mend="Update Quantgate, or remove the bundle.",
        )
    try:
        return reader(data, MANIFEST)
    except ConfigError as error:
        raise damaged(run_id, str(error)) from None


def open_place(place: str) -> tuple[Any, str]:
    """The file system of a place of bundles, and its path there.

    Args:
        place: a folder or an fsspec URL.

    Raises:
        ConfigError: no file system serves such a URL here.
    """
    try:
        filesystem, root = fsspec.core.url_to_fs(place)
    except (ValueError, ImportError, OSError) as error:
        raise ConfigError(
            f"can't be opened ({error})",
            where=place,
            mend="Set QUANTGATE_BUNDLES to a folder or an fsspec URL whose package is installed.",
        ) from None
    return filesystem, str(root)
