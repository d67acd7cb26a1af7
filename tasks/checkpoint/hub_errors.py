"""Turn errors of the hub's client into one line with a hint, never with a token in it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from quantgate.model.errors import ConfigError
from quantgate.model.secrets import redact
from tasks.checkpoint.download import DamagedError
from tasks.checkpoint.retry import GaveUpError, causes, response_of
from tasks.progress import Reporter

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


class ReportedWaits(logging.Handler):
    """Reports the waits of the hub's client as progress; its other warnings quote the server."""

    def __init__(self, where: str, report: Reporter) -> None:
        """Handle warnings only."""
        super().__init__(logging.WARNING)
        self._where, self._report = where, report

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on if it is about waiting."""
        text = redact(record.getMessage()).splitlines()[0]
        if "Retrying in" in text or "Waiting" in text:
            self._report.line(f"{self._where}: the hub is busy. {text}")


@contextmanager
def quiet_client(where: str, report: Reporter) -> Iterator[None]:
    """Silence the hub's client, except that its waits are reported as progress."""
    log = logging.getLogger("huggingface_hub")
    kept = log.handlers[:], log.propagate
    log.handlers[:], log.propagate = [ReportedWaits(where, report)], False
    try:
        yield
    finally:
        log.handlers[:], log.propagate = kept


def refusal(error: Exception, revision: str | None, where: str, *, offline: bool) -> ConfigError:
    """Return the one-line error for whatever stopped a pull.

    Args:
        error: as the hub's client, the network or the disk raised it.
        revision: what was asked for.
        where: the checkpoint as messages name it.
        offline: True if the hub must not be asked.
    """
    tried, kept = "", ""
    if isinstance(error, GaveUpError):
        tried = f", after {error.tries} tries" if error.tries > 1 else ""
        if error.asked_wait_s is not None:
            tried += f"; it asks to wait {error.asked_wait_s:,.0f} s"
        error, kept = error.error, " What has arrived is kept."
    response = response_of(error)
    if response is not None:
        what, hint = _refused(error, int(response.status_code), revision, tried)
    else:
        what, hint = _failed(error, tried, offline=offline)
    return ConfigError(what, where=where, hint=hint + kept)


def _refused(error: Exception, status: int, revision: str | None, tried: str) -> tuple[str, str]:
    """Return what the hub answered, and a hint."""
    answer = f"(HTTP {status}{tried})"
    if isinstance(error, GatedRepoError):
        what = f"the hub grants no access to this gated repository {answer}"
        return what, "Accept its terms on the hub, and set HF_TOKEN to a token that may read it."
    if isinstance(error, RepositoryNotFoundError):
        what = f"neither a folder here nor a repository the hub shows {answer}"
        return what, "Check the id; for a private repository set HF_TOKEN."
    if isinstance(error, RevisionNotFoundError):
        what = f"the repository has no revision '{revision}' {answer}"
        return what, "Give a branch, a tag or a commit; a pin that is gone is replaced by `--update-pins`."
    if status in {401, 403}:
        return f"the hub refused {answer}", "Renew HF_TOKEN or unset it."
    return f"the hub refused {answer}", "Try again later."


def _failed(error: Exception, tried: str, *, offline: bool) -> tuple[str, str]:
    """Return what went wrong without an answer of the hub, and a hint."""
    full = next((cause for cause in causes(error) if getattr(cause, "errno", None) in DISK_FULL), None)
    if isinstance(error, DamagedError):
        return str(error), "Run the same command again; if it stays so, a proxy changes what passes."
    if isinstance(full, OSError):
        what = f"the disk of the hub's cache is full ({full.strerror})"
        return what, "Free some space or set HF_HOME to a larger disk; the same command goes on from there."
    if offline:
        what = "not a folder here, and not in the hub's cache while HF_HUB_OFFLINE is set"
        return what, "Unset HF_HUB_OFFLINE to pull it, or give a local folder."
    cause = error.__cause__ or error
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0][:160]
    what = f"not a folder here, and pulling it from the hub failed ({reason}{tried})"
    return what, "Check the network and HF_ENDPOINT, or give a local folder."
