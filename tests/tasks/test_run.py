"""One run from finished parts: what is reused, what is measured anew. (No engine is started.)"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from quantgate.bundles import seal as bundle
from quantgate.bundles.history import RunHistory
from quantgate.bundles.identity import run_fingerprint
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.staging import Staging, end_fresh, fresh_after, open_staging, staged
from quantgate.bundles.store import BundleStore
from quantgate.model.errors import RunError
from quantgate.model.home import Home
from tasks import run
from tasks.progress import Reporter
from tasks.resume.chains import Evidence
from tasks.resume.decision import decide_all
from tasks.resume.second_try import unfinished_runs
from tasks.run import Context
from tests.quantgate.bundles.test_seal import finished, plan


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def context(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> Context:
    def no_engine(*_: object, **__: object) -> None:
        raise RunError("an engine would have been started")

    monkeypatch.setattr(run, "_measure_parts", no_engine)
    return Context(Home.current(), None, None, Reporter(lines.append), RunHistory([]))  # type: ignore[arg-type]


def latest_order(context: Context) -> int:
    return RunHistory.read(BundleStore(context.home.bundles)).latest_order


def measure(context: Context, fresh: int | None = None) -> tuple[Manifest, bool]:
    """Decide and measure, as a validation does."""
    store = BundleStore(context.home.bundles)
    history = RunHistory.read(store)
    decided = decide_all([plan()], Evidence(history, store), unfinished_runs(context.home), fresh_after=fresh)
    (decision,) = decided.values()
    return run.measure(plan(), decision, replace(context, history=history, fresh_after=fresh))


def finish(context: Context) -> Staging:
    """Leave every part of a run that was declared, as a kill before its bundle does."""
    store = BundleStore(context.home.bundles)
    open_staging(context.home, plan().inputs, {"checkpoint": "x"}, store.declare)
    return finished(context.home)


def test_finished_parts_become_a_bundle_without_an_engine(context: Context) -> None:
    finish(context)
    manifest, now = measure(context)
    assert now
    assert [m.run_id for m in BundleStore(context.home.bundles).manifests()] == [manifest.run_id]


def test_what_was_measured_and_is_unchanged_is_found(context: Context, lines: list[str]) -> None:
    finish(context)
    first, _ = measure(context)
    again, now = measure(context)
    assert (again, now) == (first, False)
    assert lines[-1].endswith("UTC and unchanged, nothing to do")
    assert list(context.home.staging.glob("[!.]*")) == []


def test_an_engine_that_fails_leaves_its_reason_and_the_parts(context: Context) -> None:
    staging = finish(context)
    (staging.load_dir / "c1.json").unlink()
    with pytest.raises(RunError, match="an engine would have been started"):
        measure(context)
    assert "an engine would have been started" in (staging.path / "failure.json").read_text()
    assert staging.task_result("a") is not None


def test_measuring_anew_goes_on_after_a_kill(context: Context) -> None:
    """--fresh: the old bundle does not count, parts since it began do, and what it sealed is not measured twice."""
    finish(context)
    old, _ = measure(context)
    after = fresh_after(context.home, {"x": 1}, latest_order(context))
    assert after == old.declared_order
    with pytest.raises(RunError, match="would have been started"):
        measure(context, after)
    new = finish(context)  # killed after its last part, before its bundle
    assert fresh_after(context.home, {"x": 1}, latest_order(context)) == after
    sealed, now = measure(context, after)
    assert (sealed.run_id, now) == (new.run_id, True)
    assert measure(context, after) == (sealed, False)
    end_fresh(context.home, {"x": 1})
    assert fresh_after(context.home, {"x": 1}, latest_order(context)) > after


def test_a_plain_run_leaves_the_parts_of_one_that_measures_anew(context: Context) -> None:
    finish(context)
    old, _ = measure(context)
    new = finish(context)
    assert measure(context) == (old, False)
    assert new.task_result("a") is not None


def test_parts_from_before_are_discarded_when_measuring_anew(context: Context) -> None:
    staging = finish(context)
    with pytest.raises(RunError, match="would have been started"):
        measure(context, latest_order(context))
    reopened = staged(context.home, run_fingerprint(plan().inputs))
    assert reopened is not None
    assert reopened.declared_order > staging.declared_order
    assert reopened.task_result("a") is None


def test_two_processes_on_one_run_take_turns(
    context: Context, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(context)
    sealing, go_on = threading.Event(), threading.Event()
    seal = bundle.seal

    def slow(staging: Staging, place: str, planned: object, *more: object, **how: object) -> object:
        sealing.set()
        assert go_on.wait(10)
        return seal(staging, place, planned, *more, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(run.seal, "seal", slow)
    results: list[tuple[object, bool]] = []
    workers = [threading.Thread(target=lambda: results.append(measure(context))) for _ in range(2)]
    workers[0].start()
    assert sealing.wait(10)
    workers[1].start()
    workers[1].join(0.7)
    assert workers[1].is_alive()
    assert any(line.startswith("waiting for x, locked by process") for line in lines)
    go_on.set()
    for worker in workers:
        worker.join(10)
    assert sorted(now for _, now in results) == [False, True]
    assert len(BundleStore(context.home.bundles).manifests()) == 1


def test_a_bundle_that_cannot_be_read_does_not_stop_a_measurement(context: Context) -> None:
    for name, text in (
        ("20260101T000000Z-" + "0" * 12, "{"),
        ("x-" + run_fingerprint(plan().inputs)[:12], '{"schema_version": 2}'),
    ):
        folder = Path(context.home.bundles) / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(text)
    finish(context)
    assert measure(context)[1]
