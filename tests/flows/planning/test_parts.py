"""The parts of a validation's runs: what a plan lists is what the steps of a run do, on the stub engine."""

from __future__ import annotations

from typing import Any

import pytest

from flows.planning.parts import slowdown_of
from quantgate.bundles.manifest import Manifest
from quantgate.model.records import Hardware, RunPlan
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


def planned(manifest: Manifest, **hardware: Any) -> RunPlan:
    own = Hardware.model_validate(manifest.hardware.model_dump() | hardware)
    return RunPlan.model_construct(checkpoint=manifest.checkpoint, hardware=own)


def test_a_quantized_checkpoint_is_assumed_slower_on_a_cpu_alone_and_more_so_with_fewer_bits() -> None:
    baseline, fp8, nvfp4 = manifests()
    assert [slowdown_of(planned(run), ()) for run in (baseline, fp8, nvfp4)] == [1, 2, 3]
    assert slowdown_of(planned(nvfp4, uuids=("GPU-1",)), ()) == 1


def test_an_earlier_run_of_the_same_weight_format_on_such_a_device_says_how_much_slower_it_is() -> None:
    baseline, fp8, nvfp4 = manifests()
    earlier = [baseline, fp8]
    pace = [sum(task.duration_s for task in run.tasks) for run in earlier]
    assert fp8.baseline is not None
    assert [task.documents for task in fp8.tasks] == [task.documents for task in baseline.tasks]
    assert slowdown_of(planned(fp8), earlier) == pytest.approx(pace[1] / pace[0])
    assert slowdown_of(planned(nvfp4), earlier) == 3, "another format says nothing of it"
    assert slowdown_of(planned(fp8, cpu_cores=64), earlier) == 2, "nor another device"
    assert slowdown_of(planned(fp8), [fp8]) == 2, "nor a run whose baseline is gone"
    assert slowdown_of(planned(baseline), earlier) == 1
