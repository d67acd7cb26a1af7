"""Fidelity and load levels that earlier bundles hold: what is reused, what is measured, and whose it is said to be."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from quantgate.bundles import seal
from quantgate.bundles.history import RunHistory
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.staging import Staging, open_staging
from quantgate.bundles.store import BundleStore
from quantgate.model.home import Home
from quantgate.model.records import RunPlan
from tasks.progress import Reporter
from tasks.resume.chains import Evidence
from tasks.resume.decision import Measure, Reuse, decide_all
from tasks.resume.parts import Parts, _is_new_enough, begin_parts, measured_parts
from tasks.throughput import bench
from tests.quantgate.bundles.test_seal import finished, load_of, plan
from tests.quantgate.bundles.test_staging import start
from tests.tasks.throughput.test_bench import finish

DAYS = 90


def another(stale_after_days: int = DAYS, **inputs: object) -> RunPlan:
    """The same checkpoint on the same engine, under another policy."""
    policy = plan().policy.model_copy(update={"stale_after_days": stale_after_days})
    changed = {"policy_fingerprint": "another"} | inputs
    return plan().model_copy(update={"policy": policy, "inputs": plan().inputs.model_copy(update=changed)})


@pytest.fixture
def store() -> BundleStore:
    return BundleStore(Home.current().bundles)


@pytest.fixture
def first(store: BundleStore) -> Manifest:
    """A bundle with fidelity and the level c1, measured a moment ago."""
    return sealed(store)


def sealed(store: BundleStore) -> Manifest:
    """Write the bundle, its level's load as the plan has it."""
    staging = finished(Home.current())
    (level,) = bench.levels(plan().workload, staging.load_dir)
    own = {name: level[name] for name in ("requests", "warmup_requests", "seed")}
    finish(staging.load_dir, 1, **own, engine_start_id="s1")
    return seal.seal(staging, store.url, plan(), load_of(staging))


def begun(plan: RunPlan, store: BundleStore, lines: list[str]) -> Staging:
    """A run in progress that was given what the bundles hold."""
    staging = open_staging(Home.current(), plan.inputs, {"checkpoint": "x"})
    parts = measured_parts(plan, RunHistory.read(store).runs)
    begin_parts(plan, parts, staging, store, Reporter(lines.append))
    return staging


def levels(staging: Staging) -> list[str]:
    return sorted(file.name for file in staging.load_dir.glob("c*.json"))


def test_under_another_policy_fidelity_and_load_are_those_of_the_first(
    first: Manifest, store: BundleStore
) -> None:
    lines: list[str] = []
    staging = begun(another(), store, lines)
    assert bench.unfinished(plan().workload, staging.load_dir) == []
    again = seal.seal(staging, store.url, another(), bench.rows(plan().workload, staging.load_dir))
    assert again.run_id != first.run_id
    assert again.reused == {"fidelity": first.run_id, "load c1": first.run_id}
    assert again.fidelity == first.fidelity
    for name in ("load_points.parquet", "requests.parquet", "fidelity.parquet"):
        assert store.read_table(again, name).equals(store.read_table(first, name))
    assert store.read(again.run_id).tables["telemetry.parquet"].num_rows == 0, "it is the first run's"
    (line,) = lines
    assert f"in run {first.run_id} of" in line
    assert line.endswith("and reused: fidelity, 1 load level (c1); --fresh measures anew")

    third = begun(another(policy_fingerprint="a third"), store, lines)
    reused = bench.rows(plan().workload, third.load_dir).reused
    assert reused == {"c1": first.run_id}, "of two bundles that hold it, the run that measured it is named"
    assert third.fidelity_reused() == first.run_id


@pytest.mark.parametrize("name", ["checkpoint_revision", "gpu", "device_name", "engine_version", "serving"])
def test_another_checkpoint_engine_or_device_measures_its_own(
    first: Manifest, store: BundleStore, name: str
) -> None:
    value = {"arguments": {"kv-cache-dtype": "fp8"}} if name == "serving" else "another"
    assert measured_parts(another(**{name: value}), RunHistory.read(store).runs) == Parts()


def test_a_level_of_another_load_and_another_text_are_measured(
    first: Manifest, store: BundleStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    longer = plan().workload.model_copy(update={"osl_tokens": 64})
    assert measured_parts(another().model_copy(update={"workload": longer}), [first]).load == {}
    more = another().model_copy(
        update={"workload": plan().workload.model_copy(update={"concurrency": (1, 2)})}
    )
    assert measured_parts(more, [first]).load == {"c1": first.run_id}, "the level that is new is measured"
    text = tmp_path / "other.txt"
    text.write_text("other words")
    monkeypatch.setattr("tasks.fidelity.text.DEFAULT_TEXT", str(text))
    assert measured_parts(another(), [first]).fidelity is None


def test_what_is_stale_is_measured_by_its_own_age(store: BundleStore) -> None:
    """The bundle is of today, its level and its engine start of 91 days ago, as of a run that reused them."""
    old = datetime.now(UTC) - timedelta(days=DAYS + 1)
    staging = finished(Home.current())
    staging.add_start(start(1).model_copy(update={"started_at": old}))
    (level,) = bench.levels(plan().workload, staging.load_dir)
    own = {name: level[name] for name in ("requests", "warmup_requests", "seed")}
    finish(staging.load_dir, 1, **own, engine_start_id="s1")
    os.utime(staging.load_dir / "c1.json", (old.timestamp(), old.timestamp()))
    run = seal.seal(staging, store.url, plan(), load_of(staging))
    assert measured_parts(another(), [run]) == Parts(run.run_id, {"c1": run.run_id})
    lines: list[str] = []
    begun_now = begun(another(), store, lines)
    assert (levels(begun_now), begun_now.fidelity_result(), lines) == ([], None, [])
    assert levels(begun(another(stale_after_days=DAYS + 2, policy_fingerprint="patient"), store, [])) == [
        "c1.json"
    ]


@pytest.mark.parametrize("age_days", [DAYS - 1, DAYS + 1])
def test_a_part_is_reused_while_it_is_not_stale(age_days: int) -> None:
    at = datetime.now(UTC) - timedelta(days=age_days)
    assert _is_new_enough(another(), at) is (age_days < DAYS)


def test_a_part_of_an_engine_with_other_kernels_does_not_join(first: Manifest, store: BundleStore) -> None:
    staging = open_staging(Home.current(), another().inputs, {"checkpoint": "x"})
    other = start(2, kernel="B")
    staging.add_start(other)
    assert levels(begun(another(), store, [])) == []
    assert [known.engine_start_id for known in staging.starts()] == [other.engine_start_id]


def test_a_quarantined_level_is_measured_anew(store: BundleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_reasons", lambda *_: ["client_saturated"])
    sealed(store)
    assert levels(begun(another(), store, [])) == []


def test_what_a_run_has_measured_itself_stays(first: Manifest, store: BundleStore) -> None:
    staging = open_staging(Home.current(), another().inputs, {"checkpoint": "x"})
    staging.load_dir.mkdir()
    (staging.load_dir / "c1.json").write_text("its own")
    lines: list[str] = []
    begun(another(), store, lines)
    assert (staging.load_dir / "c1.json").read_text() == "its own"
    assert lines[0].endswith("and reused: fidelity; --fresh measures anew")


def test_a_damaged_bundle_gives_nothing_and_is_named(first: Manifest, store: BundleStore) -> None:
    (Path(store.url) / first.run_id / "load_points.parquet").write_bytes(b"damaged")
    lines: list[str] = []
    staging = begun(another(), store, lines)
    assert levels(staging) == []
    assert f"from run {first.run_id}: " in lines[0]


@pytest.fixture
def decided(store: BundleStore) -> Callable[..., object]:
    def decide(planned: RunPlan, fresh_after: int | None = None) -> object:
        history = RunHistory.read(store)
        (decision,) = decide_all([planned], Evidence(history, store), fresh_after=fresh_after).values()
        return decision

    return decide


def test_parts_are_decided_with_the_run(first: Manifest, decided: Callable[..., object]) -> None:
    held = Parts(first.run_id, {"c1": first.run_id})
    decision = decided(another())
    assert isinstance(decision, Measure)
    assert decision.parts == held
    assert isinstance(decided(plan()), Reuse), "nothing changed: nothing is measured"
    fresh = decided(another(), fresh_after=first.declared_order)
    assert fresh == Measure(), "--fresh measures everything anew"
