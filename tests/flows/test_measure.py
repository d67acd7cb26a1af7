"""One run from finished parts: what is taken up, what is measured anew, what is refused. (No engine is started.)"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows import measure as steps
from flows.measure import Context, measure
from quantgate.bundles import seal as bundle
from quantgate.bundles.staging import Staging, end_fresh, fresh_since, open_staging
from quantgate.bundles.store import BundleStore
from quantgate.model.errors import RunError
from quantgate.model.home import Home
from tasks.progress import Reporter
from tests.quantgate.bundles.test_seal import finished, plan


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def context(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> Context:
    def no_engine(*_: object, **__: object) -> None:
        raise RunError("an engine would have been started")

    monkeypatch.setattr(steps, "_measure_parts", no_engine)
    return Context(Home.current(), None, {}, Reporter(lines.append))  # type: ignore[arg-type]


def test_finished_parts_become_a_bundle_without_an_engine(context: Context) -> None:
    finished(context.home)
    manifest, now = measure.fn(plan(), context)
    assert now
    assert [m.run_id for m in BundleStore(context.home.bundles).manifests()] == [manifest.run_id]


def test_what_was_measured_and_is_unchanged_is_found(context: Context, lines: list[str]) -> None:
    finished(context.home)
    first, _ = measure.fn(plan(), context)
    again, now = measure.fn(plan(), context)
    assert (again, now) == (first, False)
    assert lines[-1].endswith("UTC and unchanged, nothing to do")
    assert list(context.home.staging.glob("[!.]*")) == []


def test_an_engine_that_fails_leaves_its_reason_and_the_parts(context: Context) -> None:
    staging = finished(context.home)
    (staging.load_dir / "c1.json").unlink()
    with pytest.raises(RunError, match="an engine would have been started"):
        measure.fn(plan(), context)
    assert "an engine would have been started" in (staging.path / "failure.json").read_text()
    assert staging.task_result("a") is not None


def test_measuring_anew_goes_on_after_a_kill(context: Context) -> None:
    """--fresh: the old bundle does not count, parts since it began do, and what it sealed is not measured twice."""
    finished(context.home)
    old, _ = measure.fn(plan(), context)
    since = fresh_since(context.home, {"x": 1})
    assert since > old.started_at
    with pytest.raises(RunError, match="would have been started"):
        measure.fn(plan(), context, since=since)
    new = finished(context.home)  # killed after its last part, before its bundle
    assert fresh_since(context.home, {"x": 1}) == since
    sealed, now = measure.fn(plan(), context, since=since)
    assert (sealed.run_id, now) == (new.run_id, True)
    assert measure.fn(plan(), context, since=since) == (sealed, False)
    end_fresh(context.home, {"x": 1})
    assert fresh_since(context.home, {"x": 1}) > since


def test_a_plain_run_leaves_the_parts_of_one_that_measures_anew(context: Context) -> None:
    finished(context.home)
    old, _ = measure.fn(plan(), context)
    new = finished(context.home)
    assert measure.fn(plan(), context) == (old, False)
    assert new.task_result("a") is not None


def test_parts_from_before_are_discarded_when_measuring_anew(context: Context) -> None:
    staging = finished(context.home)
    with pytest.raises(RunError, match="would have been started"):
        measure.fn(plan(), context, since=datetime.now(UTC) + timedelta(seconds=1))
    reopened = open_staging(context.home, plan().inputs, {})
    assert reopened.started_at > staging.started_at
    assert reopened.task_result("a") is None


def test_two_processes_on_one_run_take_turns(
    context: Context, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(context.home)
    sealing, go_on = threading.Event(), threading.Event()
    seal = bundle.seal

    def slow(staging: Staging, place: str, planned: object, *more: object, **how: object) -> object:
        sealing.set()
        assert go_on.wait(10)
        return seal(staging, place, planned, *more, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(steps.seal, "seal", slow)
    results: list[tuple[object, bool]] = []
    workers = [threading.Thread(target=lambda: results.append(measure.fn(plan(), context))) for _ in range(2)]
    workers[0].start()
    assert sealing.wait(10)
    workers[1].start()
    workers[1].join(0.7)
    assert workers[1].is_alive()
    assert any(line.startswith("waiting for x, held by process") for line in lines)
    go_on.set()
    for worker in workers:
        worker.join(10)
    assert sorted(now for _, now in results) == [False, True]
    assert len(BundleStore(context.home.bundles).manifests()) == 1


def test_a_bundle_that_cannot_be_read_does_not_stop_a_measurement(context: Context) -> None:
    for name, text in (
        ("20260101T000000Z-" + "0" * 12, "{"),
        ("x-" + plan().inputs.fingerprint()[:12], '{"schema_version": 2}'),
    ):
        folder = Path(context.home.bundles) / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(text)
    finished(context.home)
    assert measure.fn(plan(), context)[1]
