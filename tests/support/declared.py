"""Declared questions for tests."""

from __future__ import annotations

from typing import Any

from quantgate.bundles.claims import Declaration
from tests.support.written_runs import POLICY, START


def declaration(run_id: str, **values: Any) -> Declaration:
    """Build what a run declared before it asked."""
    given: dict[str, Any] = {
        "declared_order": 0,
        "declared_at": START,
        "claim_key": f"claim-of-{run_id}",
        "question_key": f"question-of-{run_id}",
        "checkpoint": "fp8",
        "weights": "sha256:fp8",
        "weights_sample": None,
        "settings_sha256": None,
        "baseline": "bf16",
        "baseline_weights": "sha256:bf16",
        "sm_arch": "sm_90",
        "engine": "vllm",
        "engine_version": "0.25.1",
        "kernels": {},
        "suite": "toys",
        "tasks": (),
        "policy_name": "toys",
        "policy": POLICY,
    }
    return Declaration(run_id=run_id, **(given | values))
