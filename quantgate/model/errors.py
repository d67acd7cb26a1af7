"""Errors that a user can fix: one line each that says what, where and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from quantgate.model.secrets import redact
from quantgate.model.text import inert


class QuantgateError(Exception):
    """An expected failure, shown as one line without a traceback.

    Args:
        what: what is wrong, in a few words.
        where: the file, key, task or engine concerned; empty where ``what`` says it.
        hint: how to fix it.
    """

    exit_status = 1

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        """Compose the one line, without secrets and without control characters: it goes to many places."""
        self.what, self.where, self.hint = (_shown(part) for part in (what, where, hint))
        line = f"{self.where}: {self.what}" if where else self.what
        super().__init__(f"{line.removesuffix('.')}. {self.hint}" if hint else line)


class ConfigError(QuantgateError):
    """Bad usage or configuration; exit status 2."""

    exit_status = 2


class RunError(QuantgateError):
    """A run that failed, with the engine's or the tool's own last words; exit status 1."""

    exit_status = 1


def _shown(text: str) -> str:
    return inert(" ".join(redact(text).split()))


def nearest_hint(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return the hint for an unknown name: the nearest of the known ones, or another hint if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean '{near[0]}'?" if near else otherwise
