"""Planned runs against real bundles: the same inputs are found, any part that changed is named."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flows.planning.measured import (
    NOTHING_REUSED,
    Reusable,
    duration_s,
    measured_run,
    measured_start_s,
    new_gpu_hours,
    reusable,
    similar_runs,
    why_missing,
)
from quantgate.bundles.identity import Expected, differences
from quantgate.bundles.manifest import Manifest
from quantgate.model.config.workloads import Workload
from tests.support.demo_bundles import manifests

BASELINE, FP8, NVFP4 = manifests()


def expected(manifest: Manifest) -> Expected:
    inputs = manifest.inputs
    return Expected(
        checkpoint=inputs.checkpoint_revision,
        baseline=inputs.baseline_revision,
        gpu=inputs.gpu,
        gpus=inputs.gpu_count,
        engine=inputs.engine,
        engine_version=inputs.engine_version,
        arguments=inputs.serving["arguments"],
        environment={"OMP_WAIT_POLICY": "PASSIVE"},
        plugins=inputs.serving["plugins"],
        suite=inputs.suite or {},
        workload=inputs.workload or {},
        policy=inputs.policy_fingerprint,
    )


@pytest.mark.parametrize("manifest", [BASELINE, FP8, NVFP4])
def test_the_same_inputs_are_known(manifest: Manifest) -> None:
    assert measured_run(expected(manifest), manifests()) == (manifest, "")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("gpus", 2),
        ("baseline", "sha256:other"),
        ("engine", "vllm"),
        ("engine_version", "0.33.0"),
        ("arguments", {"max-model-len": 1024}),
        ("environment", {"OMP_WAIT_POLICY": "ACTIVE"}),
        ("environment", {"VLLM_USE_SOMETHING": "1"}),
        ("plugins", {}),
        ("suite", {"tasks": []}),
        ("workload", {"name": "demo"}),
        ("policy", "0" * 64),
    ],
)
def test_a_part_that_changed_is_measured_again_and_named(part: str, value: Any) -> None:
    changed = replace(expected(FP8), **{part: value})
    assert measured_run(changed, manifests()) == (
        None,
        f"{part.replace('_', ' ')} changed since it was measured",
    )


@pytest.mark.parametrize("change", [{"checkpoint": "sha256:new"}, {"checkpoint": None}, {"gpu": "h100"}])
def test_another_checkpoint_or_gpu_was_never_measured(change: dict[str, Any]) -> None:
    assert measured_run(replace(expected(FP8), **change), manifests()) == (None, "")


def test_any_version_where_none_is_declared_but_no_slice() -> None:
    assert differences(replace(expected(FP8), engine_version=None), FP8.inputs) == ()
    assert differences(expected(FP8), FP8.inputs.model_copy(update={"mig_slice": "1g.10gb"})) == ("gpu",)


def test_a_pool_that_names_no_engine_takes_any_of_the_expected_version() -> None:
    """A host's own, as an image sets it, counts; another version, or another one that the pool names, doesn't."""
    image = FP8.model_copy(update={"inputs": FP8.inputs.model_copy(update={"engine": "image"})})
    unnamed = replace(expected(FP8), engine=None)
    assert measured_run(unnamed, [image]) == (image, "")
    assert measured_run(expected(FP8), [image]) == (None, "engine changed since it was measured")
    newer = replace(unnamed, engine_version="9.9.9")
    assert measured_run(newer, [image]) == (None, "engine version changed since it was measured")


def test_what_a_completed_run_left_nowhere_is_told() -> None:
    assert why_missing(expected(FP8), manifests(), "s3://bundles") == ""
    gone = why_missing(expected(FP8), [BASELINE], "s3://bundles")
    assert gone.endswith("its bundle isn't at s3://bundles: do all hosts share QUANTGATE_BUNDLES?")
    other = why_missing(replace(expected(FP8), engine_version="9.9.9"), manifests(), "s3://bundles")
    assert "(the nearest: engine version changed since it was measured)" in other


def limited(documents: int, *, looks: tuple[float, ...] = (0.2,), limit: int | None = 200) -> Manifest:
    """FP8's bundle as it would be of a run with a limit, or one that stopped early, of tasks of 1,000 documents."""
    result = {"documents": documents, "documents_available": 1000, "looks": (documents,)}
    return FP8.model_copy(
        update={
            "policy": FP8.policy.model_copy(update={"looks": looks}),
            "inputs": FP8.inputs.model_copy(update={"suite": {**(FP8.inputs.suite or {}), "limit": limit}}),
            "tasks": tuple(task.model_copy(update=result) for task in FP8.tasks),
        }
    )


def test_a_run_that_its_limit_did_not_cut_answers_for_any_limit() -> None:
    """One that was cut may be decided all the same: its host knows, and then nothing is absent."""
    for stopped in (limited(100), limited(100, limit=None), limited(1000, limit=2000)):
        assert measured_run(expected(FP8), [stopped]) == (stopped, "")
        assert new_gpu_hours([expected(FP8)], [stopped], ()).keys() == {0}
    cut = limited(200)
    assert measured_run(expected(FP8), [cut]) == (None, "suite changed since it was measured")
    assert why_missing(expected(FP8), [cut], "s3://bundles") == ""
    once = limited(200, looks=())
    assert "(the nearest: suite changed" in why_missing(expected(FP8), [once], "s3://bundles")


def test_durations_are_those_of_the_bundles() -> None:
    (found,) = similar_runs(expected(FP8), "quantgate-demo", "fp8", manifests())
    assert (round(duration_s(found), 1), found.checkpoint.precision) == (75.5, "fp8")
    (other,) = similar_runs(expected(FP8), "quantgate-demo", "int4", manifests())
    assert other.checkpoint.precision == "nvfp4", "the last one, where none has its precision"
    assert similar_runs(expected(FP8), "another-model", "fp8", manifests()) == []
    longer = replace(expected(FP8), workload={})
    assert similar_runs(longer, "quantgate-demo", "fp8", manifests()) == []
    assert measured_start_s("cpu", manifests()) == pytest.approx(18.04, abs=0.01)
    assert measured_start_s("h100", manifests()) is None


def test_a_run_that_was_killed_in_between_tells_less() -> None:
    twice = FP8.model_copy(
        update={
            "engine_starts": FP8.engine_starts * 2,
            "measured_at": FP8.measured_at + timedelta(days=1),
        }
    )
    (found,) = similar_runs(expected(FP8), "quantgate-demo", "fp8", [FP8, twice])
    assert duration_s(found) < 100


def test_several_runs_of_the_same_precision_are_a_range() -> None:
    later = FP8.model_copy(update={"measured_at": FP8.measured_at + timedelta(seconds=30)})
    found = similar_runs(expected(FP8), "quantgate-demo", "fp8", [FP8, NVFP4, later])
    assert [round(duration_s(run), 1) for run in found] == [75.5, 105.5]


def test_what_it_took_counts_only_what_is_new() -> None:
    planned = [expected(BASELINE), None, expected(FP8)]
    found = new_gpu_hours(planned, manifests(), {BASELINE.run_id})
    assert list(found) == [2]
    assert found[2] == pytest.approx(75.5 / 3600, rel=0.01)


def test_another_policy_leaves_a_baseline_its_levels_and_answers_and_a_candidate_its_levels() -> None:
    tasks = tuple(task.model_copy(update={"documents_available": task.documents}) for task in BASELINE.tasks)
    runs = [BASELINE.model_copy(update={"tasks": tasks}), FP8]
    workload = BASELINE.workload
    assert workload is not None
    levels, names = frozenset(workload.concurrency), frozenset(task.task for task in tasks)

    def reused(run: Manifest, workload: Workload, **change: Any) -> Reusable:
        return reusable(replace(expected(run), **change), workload, runs, is_baseline=run is BASELINE)

    assert reused(BASELINE, workload, policy="0" * 64) == (levels, names)
    assert reused(FP8, workload, policy="0" * 64) == (levels, frozenset())
    other = workload.model_copy(update={"osl_tokens": 64})
    assert reused(BASELINE, other, suite={"tasks": []}) == NOTHING_REUSED
    assert reused(BASELINE, workload, arguments={"max-model-len": 1024}) == NOTHING_REUSED
