"""What SIGTERM raises in a command."""

from __future__ import annotations


class Terminated(BaseException):
    """Raised by SIGTERM. It unwinds like Ctrl-C, so that engines stop and finished parts stay."""
