"""Which commit of a hub's repository is meant, without pulling it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from quantgate.model.config.models import Allowed
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from tasks.checkpoint import hub
from tasks.checkpoint.hub import HUB_ID
from tasks.checkpoint.pins import Pins
from tasks.checkpoint.resolve import look
from tasks.checkpoint.retry import Patience


def is_folder(source: str) -> bool:
    """Whether a source is a folder here, from the working directory or the project's root."""
    return any(path.is_dir() for path in (Path(source), Path(source).expanduser(), ROOT / source))


def commit_of(
    source: str,
    declared: str | None = None,
    *,
    pins: Pins | None = None,
    keep: bool = False,
    cache: Path | None = None,
    patience: Patience | None = None,
) -> str:
    """The full SHA of the commit that all hosts are to measure.

    Args:
        source: ``org/name`` or ``org/name@revision``; without a revision the home's pin counts.
        declared: the precision that it is expected to have.
        pins: the home's.
        keep: whether an id without a pin is pinned now, once its configuration was found good; a plan that is
            only shown pins nothing.
        cache: the hub's cache folder, its own default where there is none.
        patience: how long a hub in trouble is waited for.

    Raises:
        NotAskedError: the hub can't be reached, and nothing is pinned.
        ConfigError: it is no hub id, the hub says no, or what it holds can't be served.
    """
    identity = HUB_ID.fullmatch(source)
    if identity is None:
        raise ConfigError(
            "neither a folder here nor a hub id", where=source, hint="Correct it in configs/models."
        )
    return hub.commit_of(
        identity["repo"],
        identity["revision"],
        where=source,
        pins=pins,
        keep=keep,
        cache=cache,
        patience=patience,
        look=partial(look, source, declared, Allowed()),
    )
