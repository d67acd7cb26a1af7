"""An inconclusive run with a limit goes on with new documents; what is decided is not drawn again."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from quantgate.bundles.manifest import Manifest
from quantgate.model.config.policy import FamilyPolicy
from quantgate.model.enums import Family
from quantgate.model.home import Home
from tasks.run import ActiveRun
from tasks.throughput import bench
from tests.support import flow_runs
from tests.support.looked_runs import ALL, LOOKS, LookedRuns, looked_runs

__all__ = ["looked_runs"]


def samples(manifest: Manifest) -> dict[int, dict[str, Any]]:
    """Rows of a run's bundle by position, each there once."""
    rows = pq.read_table(f"{Home.current().bundles}/{manifest.run_id}/samples.parquet").to_pylist()
    found = {row["position"]: row for row in rows}
    assert len(found) == len(rows)
    return found


def test_an_inconclusive_run_goes_on_and_then_its_verdict_stands(looked_runs: LookedRuns) -> None:
    """It asks only what is new, of baseline and candidate alike; once it is decided nobody asks anything."""
    first = looked_runs.validate(looked_runs.good, limit=60)
    assert [run.tasks[0].documents for run in first] == [60, 60]
    second = looked_runs.validate(looked_runs.good)
    assert looked_runs.asked == [("checkpoints", 60, None), ("good", 60, 120)]
    assert [run.continues for run in second] == [run.run_id for run in first]
    baseline, candidate = second
    assert candidate.tasks[0].looks == (60, 120)
    assert samples(baseline).keys() == set(range(ALL))
    for before, after in zip(first, second, strict=True):
        kept = samples(after)
        assert {position: kept[position] for position in range(60)} == samples(before)
        assert [start.engine_start_id for start in before.engine_starts] == [
            after.engine_starts[0].engine_start_id
        ]
    verdicts = looked_runs.verdicts()
    assert verdicts[first[1].run_id]["verdict"] == "INCONCLUSIVE"
    assert verdicts[candidate.run_id]["verdict"] == "VALIDATED"
    assert {verdicts[run.run_id]["decided_by"] for run in (first[1], candidate)} == {candidate.run_id}
    assert verdicts[first[1].run_id]["verdict_key"] == verdicts[candidate.run_id]["verdict_key"]

    for parameters in ({"limit": 250}, {"limit": 100}, {"full": True}):
        again = looked_runs.validate(looked_runs.good, **parameters)
        assert looked_runs.asked == []
        assert [run.run_id for run in again] == [run.run_id for run in second]
    assert looked_runs.lines[-1].startswith(
        f"quantgate-demo-BF16: VALIDATED by run {candidate.run_id}, nothing to do: a verdict is not drawn again"
    )
    assert list(Home.current().staging.glob("[!.]*")) == []


def test_a_candidate_whose_baseline_somebody_removed_is_told(looked_runs: LookedRuns) -> None:
    baseline, candidate = looked_runs.validate(looked_runs.bad)
    shutil.rmtree(Path(Home.current().bundles) / baseline.run_id)
    assert looked_runs.validate(looked_runs.bad)[1] == candidate
    assert looked_runs.asked_of(looked_runs.bad) == []
    assert (
        f"bad: run {baseline.run_id} of its baseline, which it is compared with, has no bundle"
        in looked_runs.lines[-1]
    )


def test_with_other_kernels_it_is_a_run_of_its_own(looked_runs: LookedRuns) -> None:
    first = looked_runs.validate(looked_runs.good, limit=60)
    looked_runs.engine(STUB_KERNEL="AnotherKernel")
    second = looked_runs.validate(looked_runs.good, limit=130)
    assert looked_runs.asked_of(looked_runs.good) == [(0, 60), (60, 120)]
    assert second[1].continues is None
    assert second[0].continues == first[0].run_id, "the baseline's kernel has no name in the stub's log"
    assert any("its engine chose other kernels than in run" in line for line in looked_runs.lines)
    verdicts = looked_runs.verdicts()
    assert verdicts[first[1].run_id]["verdict_key"] != verdicts[second[1].run_id]["verdict_key"]


def test_full_asks_everything_and_judges_once(looked_runs: LookedRuns) -> None:
    _, candidate = looked_runs.validate(looked_runs.good, full=True)
    assert looked_runs.asked_of(looked_runs.good) == [(0, ALL)]
    assert (candidate.tasks[0].documents, candidate.tasks[0].looks) == (ALL, (ALL,))
    assert candidate.inputs.suite is not None
    assert candidate.inputs.suite["full"] is True
    row = looked_runs.verdicts()[candidate.run_id]
    assert row["verdict"] == "VALIDATED", row["reason"]


def test_without_looks_a_limited_run_has_spent_its_alpha(looked_runs: LookedRuns) -> None:
    """The first run answers the question, unless it was too small to; the baseline goes on all the same."""
    looked_runs.policy = looked_runs.policy.model_copy(update={"looks": ()})
    first = looked_runs.validate(looked_runs.good, limit=50)
    second = looked_runs.validate(looked_runs.good, limit=100)
    assert looked_runs.asked == [("checkpoints", 50, 100), ("good", 0, 100)]
    assert [run.continues for run in second] == [first[0].run_id, None]
    told = (
        f"policy looks judges once, at the end, and run {first[1].run_id} with its limit has spent its alpha"
    )
    assert any(told in line and "a check, which decides nothing" in line for line in looked_runs.lines)
    verdicts = looked_runs.verdicts()
    assert verdicts[first[1].run_id]["verdict"] == "INCONCLUSIVE"
    assert verdicts[second[1].run_id]["decided_by"] == first[1].run_id


def test_without_looks_a_run_too_small_to_validate_anything_spends_nothing(looked_runs: LookedRuns) -> None:
    looked_runs.policy = looked_runs.policy.model_copy(update={"looks": ()})
    _, first = looked_runs.validate(looked_runs.good, limit=39)
    _, second = looked_runs.validate(looked_runs.good)
    told = f"run {first.run_id} with its limit asked too few documents to decide anything"
    assert any(told in line for line in looked_runs.lines)
    row = looked_runs.verdicts()[second.run_id]
    assert (row["verdict"], row["decided_by"]) == ("VALIDATED", second.run_id)


def test_a_policy_in_other_words_asks_no_new_question(looked_runs: LookedRuns) -> None:
    _, first = looked_runs.validate(looked_runs.good, limit=60)
    words = {"description": "In other words.", "planned_power": 0.9, "stale_after_days": 30}
    looked_runs.policy = looked_runs.policy.model_copy(update=words)
    _, second = looked_runs.validate(looked_runs.good)
    assert second.continues == first.run_id
    assert looked_runs.asked_of(looked_runs.good) == [(60, 120)]
    looked_runs.policy = looked_runs.policy.model_copy(update={"description": "In yet others."})
    assert looked_runs.validate(looked_runs.good)[1] == second
    assert looked_runs.asked == []
    looked_runs.policy = looked_runs.policy.model_copy(update={"alpha": 0.04})
    _, other = looked_runs.validate(looked_runs.good)
    assert other.continues is None, "another error rate is another question"


@pytest.fixture
def loads(looked_runs: LookedRuns, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Load levels that were measured, a tuple for each run; a file stands for them."""
    measured: list[tuple[int, ...]] = []

    def load(_: Any, run: ActiveRun) -> None:
        measured.append(tuple(run.plan.workload.concurrency))
        run.staging.load_dir.mkdir()

    def unfinished(_: Any, folder: Path) -> list[dict[str, Any]]:
        return [] if folder.exists() else [{"operating_point": "c1"}]

    monkeypatch.setattr(flow_runs, "STEPS", replace(flow_runs.STEPS, load=load))
    monkeypatch.setattr(bench, "unfinished", unfinished)
    return measured


def test_another_load_keeps_no_chain_from_going_on_and_is_measured_alone_where_all_is_decided(
    looked_runs: LookedRuns, loads: list[tuple[int, ...]]
) -> None:
    first = looked_runs.validate(looked_runs.good, limit=60, concurrency=[1])
    second = looked_runs.validate(looked_runs.good, concurrency=[2])
    assert looked_runs.asked == [("checkpoints", 60, None), ("good", 60, 120)]
    assert second[1].continues == first[1].run_id
    assert loads == [(1,), (1,), (2,), (2,)]

    _, back = looked_runs.validate(looked_runs.good, concurrency=[1])
    assert looked_runs.asked == []
    assert back == first[1], "its load is there, and the chain has decided"
    assert "VALIDATED by run " + second[1].run_id in looked_runs.lines[-1]

    del loads[:]
    third = looked_runs.validate(looked_runs.good, concurrency=[3])
    assert looked_runs.asked == []
    assert loads == [(3,), (3,)]
    assert third[1].continues == second[1].run_id
    assert third[1].tasks == second[1].tasks
    assert "another load is measured, and no document is asked again" in "\n".join(looked_runs.lines)
    verdicts = looked_runs.verdicts()
    for run in (first[1], second[1], third[1]):
        assert verdicts[run.run_id]["decided_by"] == second[1].run_id


def test_fewer_documents_under_another_load_are_a_run_of_their_own(
    looked_runs: LookedRuns, loads: list[tuple[int, ...]]
) -> None:
    first = looked_runs.validate(looked_runs.good)
    second = looked_runs.validate(looked_runs.good, limit=50, concurrency=[2])
    assert second[1].continues is None
    assert looked_runs.asked == [("good", 0, 50)]
    assert len(loads) == 4
    told = f"VALIDATED by run {first[1].run_id}; this run is one of its own, which decides nothing"
    assert f"quantgate-demo-BF16: {told}" in looked_runs.lines


def test_a_chain_goes_on_while_any_use_is_inconclusive(looked_runs: LookedRuns) -> None:
    """The first task is lost, and with it `all`; half of the points lost in the second are near its margin.

    So it is in the order of this seed: which documents come first decides what 60 of them show.
    """
    families = {Family.MATH: FamilyPolicy(margin=0.05, min_documents=40)}
    families[Family.REASONING] = FamilyPolicy(margin=0.45, min_documents=40)
    uses = {"all": (), "math": (Family.MATH,), "reasoning": (Family.REASONING,), "code": (Family.CODE,)}
    looked_runs.policy = LOOKS.model_copy(
        update={"families": families, "uses": uses, "looks": (0.06, 0.12, 0.18), "seed": 2}
    )
    declared = [
        {"task": f"qg_demo_{task}", "path": "demo/tasks", "family": family}
        for task, family in (("arithmetic", "math"), ("chain", "reasoning"))
    ]
    suite = looked_runs.folder / "two.yaml"
    suite.write_text(yaml.safe_dump({"name": "two", "tasks": declared}))
    asked: dict[str, Any] = {"tasks": str(suite), "family": None}
    _, first = looked_runs.validate(looked_runs.bad, **asked, limit=60)
    _, second = looked_runs.validate(looked_runs.bad, **asked, limit=120)
    assert looked_runs.asked_of(looked_runs.bad) == [(60, 120)]
    assert second.continues == first.run_id
    assert [task.documents for task in second.tasks] == [60, 120]
    verdicts = looked_runs.verdicts()
    assert {verdicts[run.run_id]["verdict"] for run in (first, second)} == {"REJECTED"}
    assert {verdicts[run.run_id]["decided_by"] for run in (first, second)} == {first.run_id}

    _, third = looked_runs.validate(looked_runs.bad, **asked, limit=110)
    assert looked_runs.asked == []
    assert third == second
    assert f"run {second.run_id} has answered all that is asked, nothing to do" in looked_runs.lines[-1]
