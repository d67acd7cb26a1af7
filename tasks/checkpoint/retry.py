"""Wait for a hub that is busy or broken, within bounds, and report each wait."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tasks.progress import Reporter

Result = TypeVar("Result")

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that another try may help; 401, 403 and 404 stay what they are."""

RATE_LIMIT = re.compile(r";\s*r=0\s*;\s*t=(\d+)")
"""Nothing remaining, and the seconds until there is (IETF draft "RateLimit header fields", as the hub sends it)."""


@dataclass(frozen=True)
class Patience:
    """Bounds on waiting: a nightly run must neither fail at a hiccup nor hang for hours."""

    tries: int = 6
    """Of one request in a row that bring no byte further."""
    first_wait_s: float = 1.0
    """Before the second try; doubled each time, unless the hub says how long."""
    longest_wait_s: float = 300.0
    """A hub that asks for more is given up at once."""
    total_wait_s: float = 900.0
    """Of all waits of one pull together."""


class GaveUpError(Exception):
    """The hub did not recover within the bounds; the cause is the last failure."""

    def __init__(self, error: Exception, tries: int, asked_wait_s: float | None) -> None:
        """Keep the last failure, the tries, and the wait that the hub asked for."""
        super().__init__(str(error))
        self.error, self.tries, self.asked_wait_s = error, tries, asked_wait_s


class StoppedError(Exception):
    """Another part of the same pull failed, or the user stopped it."""


class Waiting:
    """The waits of one pull, counted together over its threads.

    Args:
        patience: their bounds.
        where: the checkpoint as lines name it.
        report: where they are announced.
    """

    def __init__(self, patience: Patience, where: str, report: Reporter) -> None:
        """Begin with nothing waited."""
        self.patience, self.where, self._report = patience, where, report
        self._waited_s = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def stop(self) -> None:
        """Wake every thread that waits; none goes on."""
        self._stop.set()

    def is_stopped(self) -> bool:
        """Return True once ``stop`` was called."""
        return self._stop.is_set()

    def check(self) -> None:
        """Raise StoppedError once ``stop`` was called."""
        if self.is_stopped():
            raise StoppedError

    def pause(self, error: Exception, tries: int) -> None:
        """Wait before the next try, with a line that says why.

        Raises:
            GaveUpError: enough tries, or enough waited.
            Exception: the error itself, where another try can't help.
        """
        reason = transient(error)
        if reason is None:
            raise error
        asked_s = asked_wait_s(error)
        wait_s = min(self.patience.first_wait_s * 2 ** (tries - 1), self.patience.longest_wait_s)
        wait_s = wait_s if asked_s is None else asked_s
        with self._lock:
            over = self._waited_s + wait_s > self.patience.total_wait_s
            if tries >= self.patience.tries or wait_s > self.patience.longest_wait_s or over:
                raise GaveUpError(error, tries, asked_s)
            self._waited_s += wait_s
        self._report.line(
            f"{self.where}: {reason}; waiting {wait_s:.3g} s, then try {tries + 1} of {self.patience.tries}"
        )
        if self._stop.wait(wait_s):
            raise StoppedError

    def call(self, function: Callable[[], Result]) -> Result:
        """Return the function's result; try again if that may help.

        A hub that can't be reached at all is not waited for here: it is as likely a mistyped endpoint.
        """
        tries = 0
        while True:
            try:
                return function()
            except Exception as error:
                if any(is_called(cause, "ConnectError") for cause in causes(error)):
                    raise
                tries += 1
                self.pause(error, tries)


def causes(error: BaseException) -> list[BaseException]:
    """Return the error and the errors it was raised from, outermost first."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__
    return chain


def is_called(error: BaseException, name: str) -> bool:
    """Return True if an error is of a class, by name: the hub's client brings httpx or httpx2 by its version."""
    return any(kind.__name__ == name for kind in type(error).__mro__)


def response_of(error: BaseException) -> Any:
    """Return the hub's answer that the error is about, or None."""
    answers = (getattr(cause, "response", None) for cause in causes(error))
    return next((answer for answer in answers if answer is not None), None)


def transient(error: BaseException) -> str | None:
    """Say in a few words why another try may help; None if it can't."""
    response = response_of(error)
    if response is not None:
        status = int(response.status_code)
        return f"the hub answers HTTP {status}" if status in TRANSIENT else None
    for cause in causes(error):
        if is_called(cause, "TransportError") and not is_called(cause, "ProxyError"):
            words = (str(cause).strip() or type(cause).__name__).splitlines()[0].partition(" (")[0]
            return f"the connection failed ({words[:80]})"
    return None


def asked_wait_s(error: BaseException) -> float | None:
    """Return the seconds that the hub asks to wait (``Retry-After``, or ``ratelimit`` with none remaining)."""
    response = response_of(error)
    if response is None:
        return None
    limit = RATE_LIMIT.search(response.headers.get("ratelimit", ""))
    if limit is not None:
        return float(limit[1])
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() else None
