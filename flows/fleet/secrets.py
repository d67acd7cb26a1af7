"""Find the hub's token: in the environment, or in a Prefect Secret, which the server keeps encrypted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from prefect.blocks.system import Secret

SECRET, VARIABLE = "hf-token", "HF_TOKEN"


@contextmanager
def hub_token() -> Iterator[None]:
    """Put the Secret ``hf-token`` into HF_TOKEN while a flow runs, where the environment has none.

    It is neither a parameter nor a result, so Prefect never shows it, and the engine's environment does not have it.
    """
    token = None if os.environ.get(VARIABLE) else _secret()
    if token is None:
        yield
        return
    os.environ[VARIABLE] = token
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)


def _secret() -> str | None:
    try:
        block = cast("Secret[str]", Secret.load(SECRET))
    except ValueError:  # no such block
        return None
    return str(block.get()) or None
