"""Estimate how long a validation still takes, from what it has measured of itself so far.

The work is a list of parts for each run: starts of the engine, tasks, the fixed text, load levels. What a part takes is
that of the same kind of part before: in this run, else in the other runs, times how much slower this one has been. A
kind that was not measured yet is assumed, in proportion to what was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

LEAST_LEFT = 0.1
"""Share of a part that is still to come at least, where it lasts longer than was expected."""


START_KEY, FIDELITY_KEY, AGAIN = "start", "fidelity", "again "
"""Keys of parts; those of the A/A repeat have a word before them."""


def task_key(task: str) -> str:
    """Return the key of a suite's task."""
    return f"task {task}"


def level_key(concurrency: int) -> str:
    """Return the key of a load level."""
    return f"level c{concurrency}"


LEAST_SHARE = 0.1
"""Share of a part from which it says how fast the rest is: the first answers come late, with many others under way."""
PRIOR_SHARE = 0.1
"""Weight of the assumed slowdown of a run, as a share of the other runs' work."""


@dataclass(frozen=True)
class Part:
    """A piece of a run that is still to be done."""

    key: str
    """Names it within its run."""
    kind: str
    """Parts of one kind take the same time for the same size, in any run of the validation."""
    size: float
    """Documents, or 1."""
    boot_s: float
    """Assumed seconds before its work begins, where no part measured them."""
    work_s: float
    """Assumed seconds of its work, which only its proportion to others counts of."""
    may_stop: bool = False
    """True if interim looks may end it earlier."""
    begins: int = 1
    """Steps that it is done in, such as one for each interim look."""

    @property
    def family(self) -> str:
        """Return the first word of its kind: parts of one family begin alike."""
        return self.kind.partition(" ")[0]


@dataclass(frozen=True)
class _Measure:
    """What a part took."""

    run: str
    part: Part
    """Its size is what was done."""
    boot_s: float
    work_s: float


@dataclass
class _Active:
    """The step that is under way: one part, or several that end one after the other."""

    parts: list[Part]
    began_s: float
    boot_until_s: float | None = None
    finished: int = 0
    share: float = 0.0
    """Of its work that is done, where it is one part."""
    moved_s: float = 0.0


class TimeLeft:
    """What is left of a validation; times are seconds of any one clock."""

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self._left: dict[str, list[Part]] = {}
        self._slowdowns: dict[str, float] = {}
        self._measures: list[_Measure] = []
        self._run = ""
        self._active: _Active | None = None

    def plan(self, run: str, parts: Iterable[Part], slowdown: float = 1.0) -> None:
        """Say what a run will do.

        Args:
            run: its name.
            parts: in order.
            slowdown: how many times longer its work takes than that of other runs, as assumed before any run with
                the same figure was measured.
        """
        self._left[run], self._slowdowns[run] = list(parts), slowdown

    def begin_run(self, run: str) -> None:
        """Say which run the following steps belong to."""
        self._run, self._active = run, None

    def end_run(self, run: str) -> None:
        """Say that a run needs nothing more: it ended, failed or was reused."""
        self._left.pop(run, None)
        self._active = None

    def done(self, key: str) -> None:
        """Say that a part needs nothing more: it was finished before, or stopped early."""
        parts = self._left.get(self._run, [])
        planned = next((part for part in parts if part.key == key), None)
        if planned:
            parts.remove(planned)

    def begin(self, keys: Sequence[str], now: float, size: float | None = None) -> None:
        """Say that a step begins.

        Args:
            keys: of its parts.
            now: the clock.
            size: how much of its part it does; all if None.
        """
        parts = [p for key in keys for p in [self._find(key)] if p]
        if size is not None and len(parts) == 1:
            parts = [_part_of(parts[0], min(size, parts[0].size))]
        self._active = _Active(parts, now) if parts else None

    def progress(self, done: int, total: int | None, now: float) -> None:
        """Say how far the step is.

        Args:
            done: units finished; where the step has several parts, these.
            total: units in all; None until that is known.
            now: the clock.
        """
        active = self._active
        if active is None or not total:
            return
        if active.boot_until_s is None:
            active.boot_until_s = active.moved_s = now
        if len(active.parts) > 1:
            while active.finished < min(done, len(active.parts)):
                self._finish(active, now)
        elif done / total > active.share:
            active.share, active.moved_s = done / total, now

    def end(self, now: float, *, completed: bool = True) -> None:
        """Say that the step is over; nothing is learned of one that failed."""
        active, self._active = self._active, None
        while completed and active and active.finished < len(active.parts):
            self._finish(active, now)

    def seconds(self, now: float) -> tuple[float, float] | None:
        """Return the seconds left, and how many of them rest on assumptions; None before any work was measured.

        Args:
            now: the clock.
        """
        measures = [*self._measures, *self._provisional()]
        if all(measure.part.family == "start" for measure in measures):
            return None
        left = assumed = 0.0
        for run, parts in self._left.items():
            for part in parts:
                part_s, is_assumed = _expected(part, run, measures, self._slowdowns)
                part_s = self._unfinished(part, run, part_s, now)
                left += part_s
                assumed += part_s if is_assumed else 0.0
        return left, assumed

    @property
    def may_stop(self) -> bool:
        """Return True if interim looks may end something of it earlier."""
        return any(part.may_stop for parts in self._left.values() for part in parts)

    def _find(self, key: str) -> Part | None:
        return next((part for part in self._left.get(self._run, []) if part.key == key), None)

    def _finish(self, active: _Active, now: float) -> None:
        """Measure the first unfinished part of the step, and take it off what is left."""
        part = active.parts[active.finished]
        boot_until = now if active.boot_until_s is None else active.boot_until_s
        began = active.began_s
        self._measures.append(
            _Measure(self._run, part, max(0.0, boot_until - began), now - max(boot_until, began))
        )
        active.finished += 1
        active.began_s = active.boot_until_s = now
        parts = self._left.get(self._run, [])
        planned = self._find(part.key)
        if planned:
            parts.remove(planned)
            if part.size < planned.size:
                rest = _part_of(planned, planned.size - part.size)
                parts.insert(0, replace(rest, begins=max(1, planned.begins - 1)))

    def _provisional(self) -> list[_Measure]:
        """Return what the step under way shows so far."""
        active = self._active
        if active is None or active.boot_until_s is None or len(active.parts) != 1:
            return []
        if active.share < LEAST_SHARE:
            return []
        part = _part_of(active.parts[0], active.share * active.parts[0].size)
        boot_s = active.boot_until_s - active.began_s
        return [_Measure(self._run, part, boot_s, active.moved_s - active.boot_until_s)]

    def _unfinished(self, part: Part, run: str, part_s: float, now: float) -> float:
        """Return what is left of a part's seconds, as the step under way may have done some of it."""
        active = self._active
        if active is None or run != self._run or active.finished >= len(active.parts):
            return part_s
        current = active.parts[active.finished]
        if part.key != current.key:
            return part_s
        share = min(1.0, current.size / part.size)
        spent = now - active.began_s
        return part_s * (1 - share) + max(
            part_s * share - spent, LEAST_LEFT * part_s * share * (1 - active.share)
        )


def _part_of(part: Part, size: float) -> Part:
    """Return some of a part."""
    return replace(part, size=size, work_s=part.work_s * size / part.size)


def _expected(
    part: Part, run: str, measures: Sequence[_Measure], slowdowns: Mapping[str, float]
) -> tuple[float, bool]:
    """Return the seconds that a part takes, and whether they are assumed."""
    same = [measure for measure in measures if measure.part.kind == part.kind]
    own = [measure for measure in same if measure.run == run]
    if own:
        boot_s, rate = _rate(own)
        return boot_s * part.begins + rate * part.size, False
    alike = [measure for measure in same if slowdowns[measure.run] == slowdowns[run]]
    if same:
        boot_s, rate = _rate(alike or same)
        return boot_s * part.begins + rate * part.size * _slowdown(
            run, measures, slowdowns, among=alike or same
        ), False
    family = [measure for measure in measures if measure.part.family == part.family]
    boot_s = sum(m.boot_s for m in family) / len(family) if family else part.boot_s
    of_run = [measure for measure in measures if measure.run == run and measure.part.work_s]
    counted = of_run or [measure for measure in measures if measure.part.work_s]
    assumed_s = sum(m.part.work_s * (1.0 if of_run else slowdowns[m.run] / slowdowns[run]) for m in counted)
    measured_s = sum(measure.work_s for measure in counted)
    scale = measured_s / assumed_s if measured_s and assumed_s else slowdowns[run]
    return boot_s * part.begins + part.work_s * scale, True


def _rate(measures: Sequence[_Measure]) -> tuple[float, float]:
    """Return the mean seconds before the work, and the seconds of work for each unit of size."""
    boot_s = sum(measure.boot_s for measure in measures) / len(measures)
    return boot_s, sum(m.work_s for m in measures) / sum(m.part.size for m in measures)


def _slowdown(
    run: str, measures: Sequence[_Measure], slowdowns: Mapping[str, float], among: Sequence[_Measure]
) -> float:
    """Return how many times longer a run's work takes than that of the runs that some measures are of.

    What is assumed counts as much as `PRIOR_SHARE` of their work, so that the first requests of a run, which are slow,
    do not count for all of it.
    """
    runs = {measure.run for measure in among}
    assumed = slowdowns[run] * len(runs) / sum(slowdowns[other] for other in runs)
    prior_s = PRIOR_SHARE * sum(m.work_s for m in measures if m.run in runs) / len(runs)
    own_s, others_s = prior_s * assumed, prior_s
    for measure in measures:
        others = [m for m in measures if m.run in runs and m.part.kind == measure.part.kind]
        if measure.run == run and others:
            own_s += measure.work_s
            others_s += _rate(others)[1] * measure.part.size
    return own_s / others_s if others_s > 0 else assumed
