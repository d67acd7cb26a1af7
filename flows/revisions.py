"""Which commit of a hub's repository is meant, without pulling it."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from quantgate.model.config import ROOT
from quantgate.model.errors import ConfigError
from tasks.checkpoint_hub import HUB_ID
from tasks.pins import Pins

OFFLINE = {"1", "ON", "YES", "TRUE"}


class NotAskedError(ConfigError):
    """The hub didn't answer: whether the checkpoint is there isn't known."""


def is_folder(source: str) -> bool:
    """Whether a source is a folder here, from the working directory or the project's root."""
    return any(path.is_dir() for path in (Path(source), Path(source).expanduser(), ROOT / source))


def pinned_commit_of(source: str, pins: Pins, *, keep: bool) -> str:
    """The commit that all hosts are to measure: the home's pin where the id names no revision, or the newest.

    Args:
        source: ``org/name`` or ``org/name@revision``.
        pins: the home's.
        keep: whether an id without a pin is pinned now; a plan that is only shown pins nothing.

    Raises:
        NotAskedError: the hub can't be reached, and nothing is pinned.
        ConfigError: it is no hub id, or the hub says no.
    """
    identity = HUB_ID.fullmatch(source)
    if identity is None or identity["revision"]:
        return commit_of(source)
    pin = pins.pin_of(source)
    try:
        newest = commit_of(source)
    except NotAskedError:
        if pin is None:
            raise
        return pin.commit
    if not keep:
        return pin.commit if pin else newest
    return pins.settle(source, newest, lambda _: None)


def commit_of(source: str) -> str:
    """The full SHA of the commit that a hub id stands for now.

    Args:
        source: ``org/name`` or ``org/name@revision``.

    Raises:
        NotAskedError: the hub can't be reached, or is in trouble.
        ConfigError: it is no hub id, or the hub says no.
    """
    identity = HUB_ID.fullmatch(source)
    if identity is None:
        raise ConfigError(
            "neither a folder here nor a hub id", where=source, mend="Correct it in configs/models."
        )
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in OFFLINE
    try:
        api = HfApi(endpoint=endpoint)
        return api.resolve_revision(
            identity["repo"], revision=identity["revision"], local_files_only=offline
        ).resolved
    except Exception as error:  # a service of others and three network libraries
        response = error.response if isinstance(error, HfHubHTTPError) else None
        if response is not None and response.status_code in {401, 403, 404}:
            raise ConfigError(
                f"the hub shows no such repository or revision (HTTP {response.status_code})",
                where=source,
                mend="Check the id; for a gated or private one accept its terms and set HF_TOKEN.",
            ) from None
        raise NotAskedError(
            f"the hub could not be asked for its commit ({type(error).__name__})",
            where=source,
            mend="Check the network and HF_ENDPOINT, or write the commit to 'revision' in configs/models.",
        ) from None
