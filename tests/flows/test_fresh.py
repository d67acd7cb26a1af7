"""When measuring anew is over: with its table, so that a kill before it measures nothing once more.

What is declared and the checkpoints are the demo's own; neither an engine nor a server is started.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import validate as steps
from flows import validation
from flows.load import LoadReport
from flows.parameters import ValidateParameters
from flows.planning.runs import PlannedRuns
from quantgate.bundles.staging import fresh_after
from quantgate.model.errors import ConfigError, QuantgateError, RunError
from quantgate.model.home import Home
from tasks.engine import environment
from tasks.engine.environment import EngineEnvironment

FRESH = ValidateParameters(model="quantgate-demo", fresh=True)


def after(latest_order: int) -> int:
    """Return the number after which runs count, for the command; the latest one where measuring anew was over."""
    what = FRESH.model_dump(mode="json", exclude={"update_pins", "fresh"})
    return fresh_after(Home.current(), what, latest_order)


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int | None]]:
    """Checkpoints that were to be measured, and since when, a pair for each time; nothing is."""
    asked: list[tuple[list[str], int | None]] = []

    def measure_all(planned: PlannedRuns, *_: Any, **__: Any) -> Any:
        asked.append(([run.plan.checkpoint.name for run in planned.runs], planned.fresh_after))
        return [], []

    monkeypatch.setenv("HF_TOKEN", "a token: no Secret is asked for, which would take a server")
    monkeypatch.setattr(
        environment,
        "prepare",
        lambda name, config, *_: EngineEnvironment(name, config, tmp_path / "python", "1"),
    )
    monkeypatch.setattr(validation, "measure_all", measure_all)
    return asked


def test_measuring_anew_is_over_when_its_table_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[tuple[list[str], int | None]]
) -> None:
    begun = after(5)

    def killed() -> None:
        raise RunError("killed while it loads")

    monkeypatch.setattr(steps, "load", killed)
    with pytest.raises(RunError, match="killed while it loads"):
        steps.validate.fn(FRESH)
    assert after(9) == begun

    def loaded() -> LoadReport:
        return LoadReport(loaded=(), present=3, judged=(), problems=(), swapped=False)

    def unpublished(_: Any) -> None:
        raise RunError("killed while it publishes")

    monkeypatch.setattr(steps, "load", loaded)
    monkeypatch.setattr(steps, "publish", unpublished)
    with pytest.raises(RunError, match="killed while it publishes"):
        steps.validate.fn(FRESH)

    monkeypatch.setattr(steps, "publish", lambda _: tmp_path)
    state: Any = steps.validate.fn(FRESH)
    assert state.data.published == str(tmp_path)
    names = [f"quantgate-demo-{precision}" for precision in ("BF16", "FP8", "NVFP4")]
    assert measured == [(names, begun)] * 3
    assert after(9) > begun, "over: the next one measures anew"


def test_what_is_not_measured_anew_asks_for_runs_of_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[tuple[list[str], int | None]]
) -> None:
    monkeypatch.setattr(
        steps, "load", lambda: LoadReport(loaded=(), present=3, judged=(), problems=(), swapped=False)
    )
    monkeypatch.setattr(steps, "publish", lambda _: tmp_path)
    steps.validate.fn(FRESH.model_copy(update={"fresh": False}))
    assert [asked for _, asked in measured] == [None]


def test_a_refused_candidate_keeps_no_old_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command, whenever it is given again, measures the others anew; one that died goes on."""
    failures: list[QuantgateError] = [ConfigError("on its way elsewhere", where="fp8")]
    monkeypatch.setenv("HF_TOKEN", "a token: no Secret is asked for, which would take a server")
    monkeypatch.setattr(
        environment,
        "prepare",
        lambda name, config, *_: EngineEnvironment(name, config, tmp_path / "python", "1"),
    )
    monkeypatch.setattr(validation, "measure_all", lambda *_, **__: ([], failures))
    monkeypatch.setattr(steps, "_finish", lambda *_: ([], None))
    begun = after(5)
    with pytest.raises(RunError, match="on its way elsewhere"):
        steps.validate.fn(FRESH)
    assert after(9) > begun
    begun = after(5)
    failures.append(RunError("died", where="nvfp4"))
    with pytest.raises(RunError, match="died"):
        steps.validate.fn(FRESH)
    assert after(9) == begun


def test_measuring_anew_is_over_when_the_plain_command_has_completed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[tuple[list[str], int | None]]
) -> None:
    """An abandoned --fresh must not make a later one believe that its runs are new."""
    monkeypatch.setattr(
        steps, "load", lambda: LoadReport(loaded=(), present=3, judged=(), problems=(), swapped=False)
    )
    monkeypatch.setattr(steps, "publish", lambda _: tmp_path)
    begun = after(5)
    steps.validate.fn(FRESH.model_copy(update={"fresh": False}))
    assert after(9) == 9 > begun


def test_measuring_anew_is_not_over_while_something_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch, measured: list[tuple[list[str], int | None]]
) -> None:
    monkeypatch.setattr(steps, "_finish", lambda *_: (["run 1 was left out"], None))
    begun = after(5)
    with pytest.raises(RunError, match=r"not all loaded.*the same command tries the rest again"):
        steps.validate.fn(FRESH)
    assert after(9) == begun
