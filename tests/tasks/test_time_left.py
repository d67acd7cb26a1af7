"""How long a validation still takes: from its own events, on a clock that the test moves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from flows.planning.parts import slowdown_of
from quantgate.model.home import ROOT
from quantgate.model.records import RunPlan
from tasks import progress
from tasks.progress import Reporter
from tasks.time_left import AGAIN, START_KEY, Part, TimeLeft, level_key, task_key
from tests.support.demo_bundles import manifests
from tests.tasks.test_progress import Clock

RECORDED = ROOT / "tests" / "fixtures" / "time_left"
"""Every event of real validations of the demo in a fresh home, on a CPU with other work and on one with little."""
LAST_S = 20
"""Seconds at the end in which a second more or less is much."""
A, B = task_key("a"), task_key("b")


def task(key: str, size: float = 100, work_s: float = 10, **own: Any) -> Part:
    return Part(f"{own.pop('prefix', '')}{key}", key, size, 3, work_s, **own)


START = Part(START_KEY, START_KEY, 1, 20, 0)


def step(
    left: TimeLeft, key: str, began: float, boot: float, ended: float, size: float | None = None
) -> None:
    left.begin([key], began, size)
    if boot:
        left.progress(0, 10, began + boot)
    left.end(ended)


def replayed(events: list[dict[str, Any]], left: TimeLeft) -> Iterator[float]:
    """Replay recorded events; yield every 10 s after the first minute, once all events before it were given.

    What a run is assumed to take of its baseline's time is today's assumption.
    """
    slowdowns = {
        run.checkpoint.name: slowdown_of(
            RunPlan.model_construct(checkpoint=run.checkpoint, hardware=run.hardware, inputs=run.inputs), ()
        )
        for run in manifests()
    }
    moment = next(e["at"] for e in events if e["call"] == "begin") + 60
    for event in events:
        while event["at"] >= moment:
            yield moment
            moment += 10
        arguments = event["args"]
        if event["call"] == "plan":
            run, parts, _ = arguments
            arguments = [run, [Part(**part) for part in parts], slowdowns[run]]
        getattr(left, event["call"])(*arguments, **event["kw"])


@pytest.mark.parametrize("recording", ["demo-idle", "demo-busy"])
def test_a_recorded_validation_is_foreseen_from_its_first_minute(recording: str) -> None:
    events = [json.loads(line) for line in (RECORDED / f"{recording}.jsonl").read_text().splitlines()]
    end = events[-1]["at"]
    left = TimeLeft()
    ratios = {}
    for moment in replayed(events, left):
        seconds = left.seconds(moment)
        assert seconds is not None, "nothing was measured in a minute"
        if end - moment > LAST_S:
            ratios[round(moment)] = seconds[0] / (end - moment)
    assert len(ratios) >= 15
    assert {at: ratio for at, ratio in ratios.items() if not 1 / 1.5 <= ratio <= 1.5} == {}
    assert left.seconds(end) == (0, 0)


def test_nothing_is_said_before_any_work_was_measured() -> None:
    left = TimeLeft()
    left.plan("base", [START, task(A)])
    left.begin_run("base")
    assert left.seconds(0) is None
    step(left, START_KEY, 0, 0, 20)
    assert left.seconds(20) is None
    left.begin([A], 20)
    left.progress(0, 100, 24)
    assert left.seconds(25) is None
    left.progress(1, 100, 29)
    assert left.seconds(29) is None, "the first of many at once"
    left.progress(25, 100, 30)
    assert left.seconds(30) == (pytest.approx(18), 0), "a quarter took 6 s"
    assert left.seconds(34)[0] == pytest.approx(14)  # type: ignore[index]


def test_kinds_that_were_measured_count_in_other_runs_and_what_is_slower_slows_the_rest() -> None:
    left = TimeLeft()
    left.plan("base", [START, task(A), task(B), task(A, 20, prefix=AGAIN)])
    left.plan("fp8", [START, task(A), task(B)])
    left.begin_run("base")
    step(left, START_KEY, 0, 0, 20)
    step(left, A, 20, 2, 32)  # 2 s and 10 s
    step(left, B, 32, 2, 74)  # 2 s and 40 s
    again, fp8 = 2 + 2, 20 + 12 + 42
    assert left.seconds(74) == (pytest.approx(again + fp8), 0)
    left.end_run("base")
    left.begin_run("fp8")
    step(left, START_KEY, 80, 0, 100)
    step(left, A, 100, 2, 122)  # twice as slow
    slower = (5 + 20) / (5 + 10)  # a tenth of the other run's 50 s says that it is as fast
    assert left.seconds(122) == (pytest.approx(2 + 40 * slower), 0)


def test_an_assumed_slowdown_holds_until_a_run_like_it_was_measured() -> None:
    left = TimeLeft()
    left.plan("base", [task(A)])
    for run in ("fp8", "nvfp4"):
        left.plan(run, [task(A), task(B, work_s=20)], slowdown=2)
    left.begin_run("base")
    step(left, A, 0, 1, 11)
    left.end_run("base")
    each = (1 + 20) + (1 + 40)  # B is assumed: 20 s in proportion, at half the speed
    assert left.seconds(11) == (pytest.approx(2 * each), pytest.approx(2 * 41))
    left.begin_run("fp8")
    step(left, A, 11, 1, 42)
    step(left, B, 42, 1, 73)
    left.end_run("fp8")
    assert left.seconds(73) == (pytest.approx(62), 0), "as long as the other one took"


def test_what_was_not_measured_is_assumed_in_proportion() -> None:
    left = TimeLeft()
    left.plan("base", [task(A, work_s=10), task(B, work_s=30), Part("fidelity", "fidelity", 1, 0, 5)])
    left.begin_run("base")
    step(left, A, 0, 1, 21)  # 20 s where 10 are assumed
    assert left.seconds(21) == (pytest.approx(1 + 60 + 10), pytest.approx(71))


def test_what_is_kept_or_stopped_or_failed_takes_no_time() -> None:
    left = TimeLeft()
    left.plan("base", [task(A), task(B)])
    left.plan("fp8", [task(A, may_stop=True), task(B)])
    left.begin_run("base")
    step(left, A, 0, 1, 10)
    left.done(B)  # finished before
    assert left.seconds(10)[0] == pytest.approx(10 + 10)  # type: ignore[index]
    left.end_run("base")
    left.begin_run("fp8")
    assert left.may_stop
    step(left, A, 10, 1, 12, size=20)  # an interim look
    assert left.seconds(12)[0] == pytest.approx(1 + 4 + 1 + 5)  # type: ignore[index]
    left.done(A)  # it stopped there
    assert not left.may_stop
    left.begin([B], 12)
    left.end(14, completed=False)
    left.end_run("fp8")
    assert left.seconds(14) == (0, 0)


def test_each_interim_look_begins_anew() -> None:
    left = TimeLeft()
    left.plan("base", [task(A)])
    left.plan("fp8", [task(A, may_stop=True, begins=3)])
    left.begin_run("base")
    step(left, A, 0, 2, 12)
    left.end_run("base")
    assert left.seconds(12) == (pytest.approx(3 * 2 + 10), 0)
    left.begin_run("fp8")
    step(left, A, 12, 2, 16, size=20)
    assert left.seconds(16) == (pytest.approx(2 * 2 + 8), 0)


def test_load_levels_of_one_step_end_one_after_the_other() -> None:
    left = TimeLeft()
    keys = [level_key(concurrency) for concurrency in (1, 8, 32)]
    parts = [Part(key, key, 1, 0, work_s) for key, work_s in zip(keys, (4, 1, 3), strict=True)]
    left.plan("base", parts)
    left.plan("fp8", parts)
    left.begin_run("base")
    left.begin(keys, 0)
    for now in range(41):
        left.progress(now // 20, 3, now)
    assert left.seconds(40)[0] == pytest.approx(24 + 20 + 20 + 24)  # type: ignore[index]
    left.end(50)
    left.end_run("base")
    assert left.seconds(50) == (pytest.approx(50), 0)


def test_the_reporter_says_it_every_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    lines: list[str] = []
    report = Reporter(lines.append)
    report.time_left = TimeLeft()
    report.time_left.plan("base", [task(A, may_stop=True), task(B)])
    report.time_left.begin_run("base")
    with report.step("a", unit="requests", parts=[A]) as step:
        for second in range(101):
            step.update(second, 200)
            clock.now += 1
    said = [line for line in lines if line.startswith("validate")]
    assert said == ["validate: at most about 5 min 40 s left in all, 3 min 20 s of it assumed"]
