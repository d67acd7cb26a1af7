"""What makes two runs the same, purpose by purpose."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from quantgate.bundles.identity import (
    COUNTS,
    VERDICT_KEYS,
    Expected,
    Purpose,
    Run,
    compared,
    comparison_id,
    comparison_key,
    may_continue,
    question_id,
    run_fingerprint,
    same_engine,
    setting_differences,
    verdict_key,
)
from quantgate.bundles.manifest import Manifest
from quantgate.model.records import RunInputs
from tests.support.demo_bundles import manifests

BASELINE, FP8, NVFP4 = manifests()
OTHER: dict[str, Any] = {
    "checkpoint_revision": "sha256:other",
    "baseline_revision": "sha256:another",
    "gpu": "h100",
    "gpu_count": 2,
    "mig_slice": "1g.10gb",
    "sm_arch": "sm_90",
    "device_name": "another device",
    "cpu_cores": 64,
    "engine": "vllm",
    "engine_version": "9.9.9",
    "serving": {"arguments": {"max-model-len": 4096}},
    "workload": {"name": "other"},
}
"""Another value of each input that counts whole or not at all."""


def changed(run: Manifest, **inputs: Any) -> Manifest:
    suite = {"tasks": [{"task": "a"}], "lm_eval": "0"} if run.inputs.suite is None else run.inputs.suite
    given = run.inputs.model_copy(update={"suite": suite} | inputs)
    return run.model_copy(update={"inputs": given})


def same(first: Run, second: Run) -> set[Purpose]:
    return {purpose for purpose in Purpose if compared(first, purpose) == compared(second, purpose)}


def test_every_input_of_a_run_has_a_row() -> None:
    assert set(RunInputs.model_fields) | {"kv_cache_dtype"} == set(COUNTS)
    assert {len(row) for row in COUNTS.values()} == {len(Purpose)}


@pytest.mark.parametrize("name", OTHER)
def test_an_input_separates_runs_for_the_purposes_that_its_row_names(name: str) -> None:
    other = changed(FP8, **{name: OTHER[name]})
    separates = {purpose for purpose, part in zip(Purpose, COUNTS[name], strict=True) if part is not False}
    assert same(FP8, other) == set(Purpose) - separates
    compares = same(FP8, other) >= {Purpose.COMPARISON}
    assert (comparison_id(other) == comparison_id(FP8)) is compares


def test_a_verdict_s_key_has_every_input_that_counts_for_comparison() -> None:
    column = list(Purpose).index(Purpose.COMPARISON)
    counting = [name for name, row in COUNTS.items() if row[column] is not False]
    assert len(comparison_key(FP8)) == len(counting) - 1  # engine and version are a pair
    # A warehouse computes its keys anew only where VERDICT_KEYS changes: raise it with this list.
    assert (VERDICT_KEYS, counting) == (
        "6",
        [
            "checkpoint_revision",
            "baseline_revision",
            "sm_arch",
            "engine",
            "engine_version",
            "serving",
            "suite",
            "policy_fingerprint",
            "kv_cache_dtype",
        ],
    )


def test_a_plan_knows_every_input_of_a_fingerprint_but_a_host_s_own() -> None:
    """The matrix would call a run unchanged that a new input has changed."""
    expected = {
        "checkpoint": "checkpoint_revision",
        "baseline": "baseline_revision",
        "gpus": "gpu_count",
        "policy": "policy_fingerprint",
    } | dict.fromkeys(("arguments", "environment", "plugins"), "serving")
    planned = {expected.get(field.name, field.name) for field in fields(Expected)}
    column = list(Purpose).index(Purpose.FINGERPRINT)
    fingerprinted = {name for name, row in COUNTS.items() if row[column]}
    # "gpu" has the MIG slice in it; the rest is known on the measuring host alone.
    assert fingerprinted - planned == {"mig_slice", "sm_arch", "device_name", "cpu_cores"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"limit": 5}, {Purpose.CONTINUATION, Purpose.SETTING, Purpose.SERVING}),
        ({"full": True}, set(Purpose) - {Purpose.FINGERPRINT}),
        ({"tasks": []}, {Purpose.SETTING, Purpose.SERVING}),
        ({"lm_eval": "0.0.1"}, {Purpose.SERVING}),
    ],
    ids=["a limit too small to decide", "everything asked at once", "other tasks", "another lm-eval"],
)
def test_of_a_suite_each_purpose_counts_its_part(change: dict[str, Any], expected: set[Purpose]) -> None:
    assert FP8.inputs.suite is not None
    assert same(FP8, changed(FP8, suite=FP8.inputs.suite | change)) == expected


def test_the_order_of_tasks_and_the_policy_s_words_are_no_other_question() -> None:
    assert FP8.inputs.suite is not None
    turned = FP8.inputs.suite | {"tasks": list(reversed(FP8.inputs.suite["tasks"]))}
    policy = FP8.policy.model_copy(update={"description": "In other words.", "planned_power": 0.5})
    other = changed(FP8, suite=turned, policy_fingerprint="other").model_copy(update={"policy": policy})
    assert same(FP8, other) == set(Purpose) - {Purpose.FINGERPRINT}
    assert verdict_key(other) == verdict_key(FP8)
    looser = other.model_copy(update={"policy": policy.model_copy(update={"alpha": 0.1})})
    assert same(FP8, looser) == {Purpose.SETTING, Purpose.SERVING}


def test_more_gpus_and_another_device_of_the_same_architecture_ask_the_same_question() -> None:
    serving = FP8.inputs.serving
    arguments = serving["arguments"] | {"tensor-parallel-size": 2}
    environment = serving["environment"] | {"CUDA_VISIBLE_DEVICES": "1"}
    other = changed(FP8, serving=serving | {"arguments": arguments, "environment": environment}, gpu_count=2)
    assert same(FP8, other) == {Purpose.COMPARISON}
    assert comparison_id(other) == comparison_id(FP8)


def test_the_kernel_of_the_experts_and_the_attention_backend_belong_to_a_verdict_and_to_a_start() -> None:
    start = FP8.engine_starts[0]
    for change in (
        {"kernels": start.kernels | {"NvFp4 MoE": "MARLIN"}},
        {"attention_backend": "FLASHINFER"},
    ):
        other = start.model_copy(update=change)
        assert not same_engine(start, other)
        assert question_id(FP8, [start]) != question_id(FP8, [other])


def test_kernels_belong_to_a_verdict_and_not_to_the_question() -> None:
    start = FP8.engine_starts[0].model_copy(update={"kernels": {"QKVParallelLinear": "Another"}})
    other = FP8.model_copy(update={"engine_starts": (start,)})
    assert comparison_id(other) == comparison_id(FP8)
    assert verdict_key(other) != verdict_key(FP8)


def test_fingerprints_are_those_of_the_stored_bundles() -> None:
    for manifest in (BASELINE, FP8, NVFP4):
        assert run_fingerprint(manifest.inputs) == manifest.fingerprint


def test_runs_of_before_the_order_was_recorded_cannot_be_continued() -> None:
    tasks = tuple(task.model_copy(update={"documents_available": 1000}) for task in FP8.tasks)
    ordered = FP8.model_copy(update={"tasks": tasks})
    plan: Any = FP8  # a plan's fields are a manifest's
    assert may_continue(plan, ordered)
    assert not may_continue(plan, FP8)
    moved = changed(ordered, device_name="another CPU")
    assert setting_differences(plan, ordered) == ""
    assert f"device name (another CPU in that run, {FP8.inputs.device_name} now)" in setting_differences(
        plan, moved
    )
