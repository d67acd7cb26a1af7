"""Progress: plain lines in a pipe, one moving line at a terminal."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from quantgate.model.home import ROOT
from tasks import progress
from tasks.progress import Reporter


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_plain_lines_tell_what_how_far_and_how_long_still(clock: Clock) -> None:
    lines: list[str] = []
    with Reporter(lines.append).step("quality a", unit="requests", expected_s=90) as step:
        clock.now += 14
        step.update(10, 100)
        clock.now += 2
        step.update(20, 100)
        clock.now += 8
        step.update(50, 100)
        clock.now += 8
        step.update(70, 100)
        clock.now += 48
    assert lines == [
        "quality a …, about 1 min 30 s",
        "quality a 20/100 requests, 16 s, about 16 s left",
        "quality a 70/100 requests, 32 s, about 9 s left",
        "quality a: done in 1 min 20 s",
    ]


def test_a_step_that_fails_says_so(clock: Clock) -> None:
    lines: list[str] = []

    def fails() -> None:
        with Reporter(lines.append).step("x"):
            clock.now += 3
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert lines == ["x …", "x: stopped after 3 s"]


def test_at_a_terminal_one_line_moves(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    reporter = Reporter()
    reporter.moving = True
    with reporter.step("a longer title") as step:
        clock.now += 1
        step.update(1, 2)
    reporter.line("end")
    told = capsys.readouterr().err
    assert told.count("\n") == 2
    assert told.split("\r")[1:3] == ["a longer title, 0 s", "a longer title 1/2 , 1 s"]
    assert told.splitlines()[-1].endswith("end")


def test_a_reader_that_went_away_stops_no_work() -> None:
    code = (
        "import sys, time\nfrom tasks.progress import Reporter\nsys.stdin.read()\n"
        "with Reporter().step('work') as step:\n    step.update(1, 2)\nprint('done')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stderr.close()
    process.stdin.close()
    assert process.stdout.read() == "done\n"
    process.wait()


def test_what_is_used_is_current_until_it_ends() -> None:
    outer, inner = list[str](), list[str]()
    terminal = Reporter.current()

    def fails() -> None:
        with Reporter(inner.append).used():
            Reporter.current().line("b")
            raise KeyError

    with Reporter(outer.append).used():
        Reporter.current().line("a")
        with pytest.raises(KeyError):
            fails()
        Reporter.current().line("c")
    assert (outer, inner) == (["a", "c"], ["b"])
    assert Reporter.current() is terminal


def test_a_step_tells_its_reporter_from_any_thread(clock: Clock) -> None:
    lines: list[str] = []
    with Reporter(lines.append).used(), Reporter.current().step("pulling", unit="MB") as step:
        clock.now += 20
        with ThreadPoolExecutor(1) as pool:
            pool.submit(step.update, 1, 2).result()
    assert lines == ["pulling …", "pulling 1/2 MB, 20 s", "pulling: done in 20 s"]
