"""Report what runs, how far it is and how long it needs: one moving line at a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from quantgate.model.secrets import redact
from quantgate.model.text import inert
from tasks.time_left import TimeLeft

PLAIN_EVERY_S = 15.0
TIME_LEFT_EVERY_S = 60.0
ASSUMED_MOST = 0.2
"""Share of the time left up to which nobody needs to know that it rests on an assumption."""


def _duration(seconds: float) -> str:
    seconds = max(0, round(seconds))
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"


class Step:
    """One piece of work being watched; ``update`` moves it."""

    def __init__(self, reporter: Reporter, title: str, unit: str, expected_s: float | None) -> None:
        """Begin the clock."""
        self._reporter, self._title, self._unit, self._expected_s = reporter, title, unit, expected_s
        self.started = time.monotonic()
        self._reported_at = self.started
        self._first_at: float | None = None
        self._first_done = 0

    def _remaining(self, done: int, total: int | None) -> str:
        now = time.monotonic()
        if total and self._first_at is not None and done > self._first_done:
            rate = (done - self._first_done) / (now - self._first_at)
            return f", about {_duration((total - done) / rate)} left"
        if self._expected_s:
            left = self._expected_s - (now - self.started)
            return f", about {_duration(left)} left" if left > 0 else ""
        return ""

    def update(self, done: int = 0, total: int | None = None) -> None:
        """Report how far the work is.

        Args:
            done: units finished.
            total: units in all, where known.
        """
        now = time.monotonic()
        self._reporter.advance(done, total, now)
        if done and self._first_at is None:
            self._first_at, self._first_done = now, done
        moving = self._reporter.moving
        if not moving and now - self._reported_at < PLAIN_EVERY_S:
            return
        self._reported_at = now
        amount = f" {done}/{total} {self._unit}" if total else ""
        text = f"{self._title}{amount}, {_duration(now - self.started)}{self._remaining(done, total)}"
        self._reporter.show(text, moving=moving)


class Reporter:
    """Where progress goes.

    Args:
        write: receives finished lines; standard error if empty.
    """

    @classmethod
    def current(cls) -> Reporter:
        """Return the reporter in use, else the terminal's.

        A new thread has none; the code that starts the thread passes the reporter on.
        """
        global _TERMINAL  # noqa: PLW0603 - a terminal has one moving line
        used = _USED.get()
        if used is not None:
            return used
        _TERMINAL = _TERMINAL or cls()
        return _TERMINAL

    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        """Use moving lines only when writing to a terminal ourselves."""
        self._write = write
        self.moving = write is None and sys.stderr.isatty()
        self._width = 0
        self.time_left: TimeLeft | None = None
        """What is left of a validation; None where nothing is planned."""
        self._time_left_at = time.monotonic()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Make this reporter ``current`` for a while, also in tasks that Prefect starts meanwhile."""
        token = _USED.set(self)
        try:
            yield
        finally:
            _USED.reset(token)

    def show(self, text: str, *, moving: bool = False) -> None:
        """Print a line, without secrets and control characters; a moving one is overwritten by the next.

        A reader that has gone away stops no measurement: of a worker that was killed its flow goes on.
        """
        text = inert(redact(text))
        if self._write:
            self._write(text)
            return
        end = "\n"
        if self.moving:
            if moving:
                text = text[: shutil.get_terminal_size().columns - 1]  # a wrapped line can't be overwritten
                end = ""
            padded = text.ljust(self._width)
            self._width = len(text) if moving else 0
            text = "\r" + padded
        with contextlib.suppress(BrokenPipeError):
            print(text, end=end, file=sys.stderr, flush=True)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.show(text)

    def advance(self, done: int, total: int | None, now: float) -> None:
        """Pass a step's progress to the time left, and report that every minute."""
        if self.time_left is None:
            return
        self.time_left.progress(done, total, now)
        if now - self._time_left_at >= TIME_LEFT_EVERY_S:
            self.show_time_left(now)

    def show_time_left(self, now: float | None = None) -> None:
        """Report how long the validation still takes, once it has measured enough of itself to say so."""
        now = time.monotonic() if now is None else now
        left = self.time_left and self.time_left.seconds(now)
        if not self.time_left or not left:
            return
        self._time_left_at = now
        left_s, assumed_s = left
        most = "at most about" if self.time_left.may_stop else "about"
        rests = f", {_duration(assumed_s)} of it assumed" if assumed_s > ASSUMED_MOST * left_s else ""
        self.line(f"validate: {most} {_duration(left_s)} left in all{rests}")

    @contextmanager
    def step(
        self,
        title: str,
        unit: str = "",
        expected_s: float | None = None,
        *,
        parts: Sequence[str] = (),
        size: float | None = None,
    ) -> Iterator[Step]:
        """Watch a piece of work: a line at its start in a pipe, a last line with its duration.

        Args:
            title: what runs.
            unit: what is counted.
            expected_s: how long it should take in all, if that was measured before.
            parts: keys of the run's parts that it does (`tasks.time_left.Part`).
            size: how much of its part it does; all if None.
        """
        step = Step(self, title, unit, expected_s)
        if self.time_left and parts:
            self.time_left.begin(parts, step.started, size)
        if self.moving:
            step.update()
        else:
            expected = f", about {_duration(expected_s)}" if expected_s else ""
            self.show(f"{title} …{expected}")
        try:
            yield step
        except BaseException:
            self._end_parts(parts, completed=False)
            self.line(f"{title}: stopped after {_duration(time.monotonic() - step.started)}")
            raise
        self._end_parts(parts, completed=True)
        self.line(f"{title}: done in {_duration(time.monotonic() - step.started)}")

    def _end_parts(self, parts: Sequence[str], *, completed: bool) -> None:
        if self.time_left and parts:
            self.time_left.end(time.monotonic(), completed=completed)


_TERMINAL: Reporter | None = None
_USED: ContextVar[Reporter | None] = ContextVar("reporter", default=None)
