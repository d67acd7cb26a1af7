"""What a bundle's manifest says, as rows of the warehouse's tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantgate.bundles.manifest import Manifest
from quantgate.model.config.policy import Policy
from quantgate.model.records import RunPlan, UseVerdict, question_of
from quantgate.model.yaml_file import fingerprint_of

_BY_GPU_COUNT = frozenset({"tensor-parallel-size", "tensor_parallel_size"})
"""Serving arguments that follow from gpu_count, in which a baseline and its candidate may differ."""
_WHERE = frozenset({"CUDA_VISIBLE_DEVICES"})
"""Of the engine's environment, what says on which of a host's GPUs it ran: earlier bundles have it."""

Row = dict[str, Any]


def verdict_key(manifest: Manifest) -> str:
    """What a verdict belongs to, as a SHA-256 (hex).

    Runs of one key ask the same question, so the first that was declared answers it: judging again until it
    passes would validate anything. A run with a limit asks what one without asks, unless its documents are too few to
    validate anything and there are no looks.
    """
    used = {task.engine_start_id for task in manifest.tasks}
    kernels = {
        layer: kernel
        for start in manifest.engine_starts
        if start.engine_start_id in used
        for layer, kernel in start.kernels.items()
    }
    return fingerprint_of(question(manifest) | {"kernels": kernels})


def question(run: Manifest | RunPlan) -> Row:
    """What a run's verdict belongs to, but for the kernels that its engine chooses when it starts."""
    inputs = run.inputs
    return {
        "candidate": inputs.checkpoint_revision,
        "baseline": inputs.baseline_revision,
        "suite": question_of(inputs.suite) if _could_decide(run) else inputs.suite,
        "sm_arch": inputs.sm_arch,
        "kv_cache_dtype": _kv_cache_dtype(run),
        "engine": [inputs.engine, inputs.engine_version],
        "serving": _without(inputs.serving, _BY_GPU_COUNT | _WHERE),
        "policy": deciding(run.policy),
    }


KEYS = "2"
"""Changes with what makes a verdict's key, so that a warehouse of before takes its runs' keys anew."""


def deciding(policy: Policy) -> Row:
    """Of a policy what decides a verdict: with another description, say, it is the same question, not a new one."""
    return policy.model_dump(mode="json", include={"alpha", "looks", "families", "uses", "min_clusters"})


def _could_decide(run: Manifest | RunPlan) -> bool:
    """Whether a run may validate anything, which spends its alpha, or asks too few documents for that."""
    limit, tasks = (run.inputs.suite or {}).get("limit"), run.suite.tasks if run.suite else ()
    families = run.policy.families
    least = [families[task.family].min_documents for task in tasks if task.family in families]
    return bool(run.policy.looks) or limit is None or limit >= min(least, default=0)


def _without(value: Any, names: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {name: _without(item, names) for name, item in value.items() if name not in names}
    return value


def _kv_cache_dtype(run: Manifest | RunPlan) -> str:
    """What the KV cache was served in: the engine's argument where there is one, else as the files declare."""
    arguments = run.inputs.serving.get("arguments") or {}
    served = arguments.get("kv-cache-dtype", "auto")
    return run.checkpoint.kv_cache_dtype if served == "auto" else str(served)


def run_row(manifest: Manifest) -> Row:
    """The run's row of ``store.runs``."""
    checkpoint, hardware, baseline = manifest.checkpoint, manifest.hardware, manifest.baseline
    return {
        **checkpoint.model_dump(exclude={"name", "source", "path"}),
        **hardware.model_dump(exclude={"uuids"}),
        "run_id": manifest.run_id,
        "fingerprint": manifest.fingerprint,
        "verdict_key": verdict_key(manifest),
        "kv_cache_dtype": _kv_cache_dtype(manifest),
        "checkpoint": checkpoint.name,
        "checkpoint_source": checkpoint.source,
        "baseline": baseline.name if baseline else None,
        "baseline_revision": baseline.revision if baseline else None,
        "baseline_run_id": baseline.run_id if baseline else None,
        "engine": manifest.inputs.engine,
        "engine_version": manifest.inputs.engine_version,
        "suite": manifest.suite.name if manifest.suite else None,
        "workload": manifest.workload.name if manifest.workload else None,
        "policy": manifest.policy_name,
        "policy_fingerprint": manifest.policy.fingerprint(),
        "evidence": manifest.evidence,
        "validity": manifest.validity,
        "validity_reasons": list(manifest.validity_reasons),
        "continues": manifest.continues,
        "started_at": manifest.started_at,
        "measured_at": manifest.measured_at,
        "schema_version": manifest.schema_version,
        "manifest": manifest.model_dump_json(),
    }


def engine_start_rows(manifest: Manifest) -> list[Row]:
    """Rows of ``store.engine_starts``; maps as lists of pairs, as Arrow takes them."""
    return [
        {
            **start.model_dump(),
            "run_id": manifest.run_id,
            "kernels": list(start.kernels.items()),
            "environment": list(start.environment.items()),
            "command": list(start.command),
        }
        for start in manifest.engine_starts
    ]


def task_rows(manifest: Manifest) -> list[Row]:
    """Rows of ``store.run_tasks``."""
    return [{**task.model_dump(), "run_id": manifest.run_id} for task in manifest.tasks]


def policy_row(name: str, policy: Policy) -> Row:
    """A row of ``store.policies``."""
    return {
        **policy.model_dump(exclude={"families", "uses"}),
        "policy": name,
        "policy_fingerprint": policy.fingerprint(),
        "families": [(str(family), rule.model_dump()) for family, rule in policy.families.items()],
        "uses": [(use, [str(family) for family in families]) for use, families in policy.uses.items()],
    }


def verdict_rows(manifest: Manifest, baseline_run_id: str, verdicts: Sequence[UseVerdict]) -> list[Row]:
    """Rows of ``store.verdicts``."""
    common = _judged_under(manifest, baseline_run_id)
    return [{**verdict.model_dump(exclude={"tasks"}), **common} for verdict in verdicts]


def task_verdict_rows(manifest: Manifest, baseline_run_id: str, verdicts: Sequence[UseVerdict]) -> list[Row]:
    """Rows of ``store.task_verdicts``."""
    common = _judged_under(manifest, baseline_run_id)
    return [
        {**task.model_dump(), **common, "use": verdict.use} for verdict in verdicts for task in verdict.tasks
    ]


def _judged_under(manifest: Manifest, baseline_run_id: str) -> Row:
    return {
        "run_id": manifest.run_id,
        "baseline_run_id": baseline_run_id,
        "policy": manifest.policy_name,
        "policy_fingerprint": manifest.policy.fingerprint(),
    }
