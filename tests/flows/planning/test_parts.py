"""The parts of a validation's runs: what a plan lists is what the steps of a run do, on the stub engine."""

from __future__ import annotations

import pytest

from flows.planning.parts import EMULATED_SLOWDOWN, slowdown_of
from quantgate.model.records import Hardware, RunPlan
from tasks.time_left import TimeLeft
from tests.support.demo_bundles import manifests
from tests.support.stub_runs import StubRuns, stub_runs

__all__ = ["stub_runs"]


def test_a_run_does_every_part_of_its_plan_and_no_other(
    stub_runs: StubRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: dict[str, list[str]] = {}
    slowdowns: dict[str, float] = {}
    begun: list[str] = []
    left_over: list[str] = []
    plan, begin, end_run = TimeLeft.plan, TimeLeft.begin, TimeLeft.end_run

    def planning(self, run, parts, slowdown=1.0):  # type: ignore[no-untyped-def]
        planned[run], slowdowns[run] = [part.key for part in parts], slowdown
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
    (keys,) = planned.values()
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


def test_a_quantized_checkpoint_is_slower_on_a_cpu_alone() -> None:
    baseline, fp8, _ = manifests()

    def plan(manifest, **hardware):  # type: ignore[no-untyped-def]
        own = Hardware.model_validate(manifest.hardware.model_dump() | hardware)
        return RunPlan.model_construct(checkpoint=manifest.checkpoint, hardware=own)

    assert slowdown_of(plan(baseline)) == 1.0
    assert slowdown_of(plan(fp8)) == EMULATED_SLOWDOWN
    assert slowdown_of(plan(fp8, uuids=("GPU-1",))) == 1.0
