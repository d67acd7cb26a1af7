"""``quantgate status``: what was measured, what is unfinished and how it goes on, what waits for a load."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from quantgate.bundles.staging import Staging, unfinished, write_json
from quantgate.model.home import Home
from tests.support.command import Ended
from tests.support.command_in_process import run
from tests.support.demo_bundles import BUNDLES, manifests
from warehouse.load import load_bundles

STATE = {
    "run_id": "run-1",
    "started_at": datetime(2026, 4, 1, 12, tzinfo=UTC),
    "checkpoint": "toy-FP8",
    "precision": "fp8",
}
NEWER = {
    "model": "toy",
    "gpu": "h100",
    "suite": "own",
    "tasks": ["a", "b", "c", "d", "e", "f"],
    "levels": 3,
    "policy": "standard",
    "command": "quantgate validate toy --precision fp8",
}


@pytest.fixture
def status(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[], str]:
    def shown() -> str:
        ended: Ended = run(monkeypatch, capfd, "status")
        assert ended.status == 0
        return ended.out

    return shown


def begun(home: Path, **state: object) -> Staging:
    """A run in progress, with two finished tasks and one load level."""
    folder = home / "staging" / "f1"
    write_json(folder / "state.json", STATE | state)
    for task in ("a", "b"):
        write_json(folder / "quality" / task / "result.json", answered(task, 100))
    write_json(folder / "load" / "c1.json", {})
    ((staging, _),) = unfinished(Home.current())
    return staging


def answered(task: str, documents: int) -> dict[str, object]:
    """The result of a part of so many documents, of a task that has 1,000."""
    result = (
        manifests()[1]
        .tasks[0]
        .model_copy(update={"task": task, "documents": documents, "documents_available": 1000})
    )
    return result.model_dump(mode="json")


def test_the_runs_by_model_tasks_and_policy(home: Path, status: Callable[[], str]) -> None:
    load_bundles(home / "warehouse.duckdb", BUNDLES)
    lines = status().splitlines()
    assert max(map(len, lines[1:])) <= 100
    assert lines[2] == (
        "quantgate-demo on cpu: suite demo (qg_demo_arithmetic, qg_demo_chain, qg_demo_cloze), policy demo"
    )
    rows = [line.split() for line in lines[5:8]]
    assert [(row[0], row[2], row[3], row[-1]) for row in rows] == [
        (m.checkpoint.name, verdict, "3/3,000", m.run_id)
        for m, verdict in zip(manifests(), ("BASELINE", "INCONCLUSIVE", "REJECTED"), strict=True)
    ]
    assert lines[-1] == "nothing is unfinished"


def test_an_unfinished_run_says_how_it_goes_on(
    home: Path, status: Callable[[], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    staging = begun(home, **NEWER, folder=str(folder))
    shown = (
        "toy-FP8 (fp8) of toy on h100, suite own (a, b, c, d and 2 more), policy standard, begun 2026-04-01 12:00: "
        "2 of 6 tasks (200 documents) and 1 of 3 load levels are kept; unfinished\n"
        f"  goes on with: cd '{folder}' && quantgate validate toy --precision fp8\n"
        f"  log: {home / 'logs' / 'run-1'}\n"
    )
    assert status().endswith(shown)
    monkeypatch.chdir(folder)
    assert "  goes on with: quantgate validate toy --precision fp8\n" in status(), "from where it was given"
    staging.fail("the engine ended", Path("/logs/x"))
    assert "are kept; failed: the engine ended\n" in status()
    assert "  log: /logs/x\n" in status()


def test_documents_of_interim_batches_are_counted(home: Path, status: Callable[[], str]) -> None:
    """Tasks a and b have ended, c is between its looks, d has not begun."""
    sizes = {"a": None, "b": None, "c": 1000, "d": 300}
    staging = begun(home, **NEWER | {"tasks": [*sizes]}, documents=sizes)
    for start, documents in ((0, 50), (50, 100)):
        write_json(
            staging.quality_dir / ".batches" / "c" / f"{start:09d}" / "result.json", answered("c", documents)
        )
    (staging.quality_dir / ".batches" / "c" / ".000000150.partial").mkdir()
    assert "2 of 4 tasks (350 of 3,300 documents) and 1 of 3 load levels are kept" in status()
    begun(home, **NEWER | {"tasks": [*sizes]}, documents=sizes, documents_most=200)
    assert "(350 of 800 documents)" in status(), "as many as the limit lets it ask"
    begun(home, **NEWER | {"tasks": [*sizes]}, documents=sizes | {"d": None})
    assert "(350 documents)" in status(), "nobody knows yet how many d has"


def test_the_state_of_an_earlier_version_says_what_is_known(home: Path, status: Callable[[], str]) -> None:
    begun(home)
    assert status().endswith(
        "toy-FP8 (fp8), begun 2026-04-01 12:00: 2 tasks and 1 load levels are kept; unfinished\n"
        "  goes on with: the command that began it (an earlier version did not keep it)\n"
        f"  log: {home / 'logs' / 'run-1'}\n"
    )


def test_finished_bundles_that_wait_for_a_load(
    home: Path, status: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTGATE_BUNDLES", str(BUNDLES))
    ids = [manifest.run_id for manifest in manifests()]
    assert f"3 finished bundles wait for `quantgate load`: {', '.join(ids)}\n" in status()
    load_bundles(home / "warehouse.duckdb", BUNDLES)
    assert "wait" not in status()
    monkeypatch.setenv("QUANTGATE_BUNDLES", "nosuch://bucket")
    assert "finished bundles can't be listed: " in status()


def test_what_a_load_left_out_is_named_with_its_reason_and_waits_for_none(
    home: Path, status: Callable[[], str]
) -> None:
    (home / "bundles" / "run-odd").mkdir(parents=True)
    (home / "bundles" / "run-odd" / "manifest.json").write_text("{")
    assert "1 finished bundle waits for `quantgate load`: run-odd" in status()
    load_bundles(home / "warehouse.duckdb", home / "bundles")
    shown = status()
    assert "left out of the warehouse: bundle run-odd: manifest.json is not JSON. It was skipped; " in shown
    assert "waits for" not in shown
