"""Turn a bundle's manifest into rows of the warehouse's tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantgate.bundles.claims import candidate_id, candidate_key, claim_key, counts_as_try
from quantgate.bundles.identity import baseline_weights, kv_cache_dtype, verdict_key
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.store import Declared
from quantgate.model.config.policy import Policy
from quantgate.model.records import UseVerdict

Row = dict[str, Any]


def run_row(manifest: Manifest) -> Row:
    """Return the run's row of ``store.runs``."""
    checkpoint, hardware, baseline = manifest.checkpoint, manifest.hardware, manifest.baseline
    return {
        **checkpoint.model_dump(exclude={"name", "source", "path"}),
        **hardware.model_dump(exclude={"uuids"}),
        "run_id": manifest.run_id,
        "fingerprint": manifest.fingerprint,
        **claim_row(manifest),
        "kv_cache_dtype": kv_cache_dtype(manifest),
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
        "question": manifest.question,
        "reused": list(manifest.reused.items()),
        "started_at": manifest.started_at,
        "declared_order": manifest.declared_order,
        "measured_at": manifest.measured_at,
        "schema_version": manifest.schema_version,
        "manifest": manifest.model_dump_json(),
    }


def claim_row(manifest: Manifest) -> Row:
    """Return the columns of ``store.runs`` that say which question a run asked, and about what."""
    arguments = manifest.inputs.serving.get("arguments") or {}
    return {
        "verdict_key": verdict_key(manifest),
        "claim_key": claim_key(manifest),
        "candidate_key": candidate_key(manifest),
        "weights_sha256": manifest.checkpoint.weights_sha256,
        "baseline_weights": baseline_weights(manifest),
        "counts_as_try": counts_as_try(
            [(task.family, task.documents) for task in manifest.tasks], manifest.policy
        ),
        "serving_arguments": [(name, str(value)) for name, value in arguments.items()],
    }


def declaration_row(declared: Declared) -> Row:
    """Return a row of ``store.declarations``."""
    question = declared.question
    return {
        **question.model_dump(exclude={"tasks", "policy"}),
        "file": declared.name,
        "candidate_key": candidate_id(question.weights),
        "tasks": [task.task for task in question.tasks],
        "families": sorted({str(task.family) for task in question.tasks}),
        "policy": question.policy_name,
        "policy_fingerprint": question.policy.fingerprint(),
        "uses": [
            (use, [str(family) for family in families]) for use, families in question.policy.uses.items()
        ],
        "scored": declared.scored,
    }


def engine_start_rows(manifest: Manifest) -> list[Row]:
    """Return rows of ``store.engine_starts``; maps as lists of pairs, as Arrow takes them."""
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
    """Return rows of ``store.run_tasks``."""
    return [{**task.model_dump(), "run_id": manifest.run_id} for task in manifest.tasks]


def policy_row(name: str, policy: Policy) -> Row:
    """Return a row of ``store.policies``."""
    return {
        **policy.model_dump(exclude={"families", "uses"}),
        "policy": name,
        "policy_fingerprint": policy.fingerprint(),
        "families": [(str(family), rule.model_dump()) for family, rule in policy.families.items()],
        "uses": [(use, [str(family) for family in families]) for use, families in policy.uses.items()],
    }


def verdict_rows(manifest: Manifest, baseline_run_id: str, verdicts: Sequence[UseVerdict]) -> list[Row]:
    """Return rows of ``store.verdicts``."""
    common = _judged_under(manifest, baseline_run_id)
    return [{**verdict.model_dump(exclude={"tasks"}), **common} for verdict in verdicts]


def task_verdict_rows(manifest: Manifest, baseline_run_id: str, verdicts: Sequence[UseVerdict]) -> list[Row]:
    """Return rows of ``store.task_verdicts``."""
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
