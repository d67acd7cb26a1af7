"""The parts of a validation's runs: what a plan lists is what the steps of a run do, on the stub engine."""

from __future__ import annotations

from typing import Any

import pytest

from flows.planning.answers import TaskSize
from flows.planning.parts import parts_of, slowdown_of
from flows.planning.runs import PlannedRun
from quantgate.bundles.manifest import Manifest
from quantgate.model.records import Hardware, RunPlan
from tasks.quality.requirements import DocumentRequests
from tasks.time_left import TimeLeft
from tests.support.demo_bundles import manifests
from tests.support.stub_runs import StubRuns, stub_runs

__all__ = ["stub_runs"]


def test_a_run_does_every_part_of_its_plan_and_no_other(
    stub_runs: StubRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts_of_run: dict[str, list[str]] = {}
    slowdowns: dict[str, float] = {}
    begun: list[str] = []
    left_over: list[str] = []
    plan, begin, end_run = TimeLeft.plan, TimeLeft.begin, TimeLeft.end_run

    def planning(self, run, parts, slowdown=1.0):  # type: ignore[no-untyped-def]
        parts_of_run[run], slowdowns[run] = [part.key for part in parts], slowdown
        plan(self, run, parts, slowdown)

    def beginning(self, keys, now, size=None):  # type: ignore[no-untyped-def]
        begun.extend(keys)
        begin(self, keys, now, size)

    def ending(self, run):  # type: ignore[no-untyped-def]
        left_over.extend(part.key for part in self._left.get(run, []))
        end_run(self, run)

    monkeypatch.setattr(TimeLeft, "plan", planning)
    monkeypatch.setattr(TimeLeft, "begin", beginning)
    monkeypatch.setattr(TimeLeft, "end_run", ending)
    manifest = stub_runs.baseline(concurrency=[2, 4])
    (keys,) = parts_of_run.values()
    assert begun == keys
    assert keys == [
        "start",
        "task qg_demo_arithmetic",
        "fidelity",
        "level c2",
        "level c4",
        "start",
        "again fidelity",
        "again task qg_demo_arithmetic",
    ]
    assert left_over == []
    assert slowdowns == {manifest.checkpoint.name: 1.0}
    stub_runs.baseline(concurrency=[2, 4])
    assert len(begun) == len(keys), "a run that is reused has no parts"


def planned(manifest: Manifest, engine: str | None = None, **hardware: Any) -> RunPlan:
    own = Hardware.model_validate(manifest.hardware.model_dump() | hardware)
    inputs = manifest.inputs.model_copy(update={"engine": engine or manifest.inputs.engine})
    return RunPlan.model_construct(checkpoint=manifest.checkpoint, hardware=own, inputs=inputs)


def test_a_quantized_checkpoint_is_assumed_slower_on_a_cpu_alone_and_more_so_with_fewer_bits() -> None:
    baseline, fp8, nvfp4 = manifests()
    assert [slowdown_of(planned(run), ()) for run in (baseline, fp8, nvfp4)] == [1, 2, 3]
    assert slowdown_of(planned(nvfp4, uuids=("GPU-1",)), ()) == 1


def test_earlier_runs_of_the_weight_format_on_such_a_device_say_how_much_slower_it_is() -> None:
    baseline, fp8, nvfp4 = manifests()
    earlier = [baseline, fp8]
    pace = [sum(task.duration_s for task in run.tasks) for run in earlier]
    assert fp8.baseline is not None
    assert [task.documents for task in fp8.tasks] == [task.documents for task in baseline.tasks]
    assert slowdown_of(planned(fp8), earlier) == pytest.approx(pace[1] / pace[0])
    assert slowdown_of(planned(nvfp4), earlier) == 3, "another format says nothing of it"
    assert slowdown_of(planned(fp8, cpu_cores=64), earlier) == 2, "nor another device"
    assert slowdown_of(planned(fp8, engine="another"), earlier) == 2, "nor another engine"
    assert slowdown_of(planned(fp8), [fp8]) == 2, "nor a run whose baseline is gone"
    assert slowdown_of(planned(baseline), earlier) == 1


def test_a_candidate_begins_a_task_once_for_each_interim_look() -> None:
    _, fp8, _ = manifests()
    assert fp8.suite is not None
    sizes = {
        task.task: TaskSize(task.task, 10_000, DocumentRequests(1, 0, 0), 1, 1) for task in fp8.suite.tasks
    }
    for looks, begins in (((), 1), ((0.05, 0.2, 0.5), 3)):
        plan = RunPlan.model_construct(
            **{name: getattr(fp8, name) for name in ("baseline", "inputs", "suite", "workload")},
            policy=fp8.policy.model_copy(update={"looks": looks}),
        )
        parts = parts_of(PlannedRun(plan, decision=None, served=None), sizes)  # type: ignore[arg-type]
        tasks = [part for part in parts if part.family == "task"]
        assert [part.begins for part in tasks] == [begins] * 3, "5 % are too few to judge"
        assert {part.may_stop for part in tasks} == {bool(looks)}
