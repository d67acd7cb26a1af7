"""Rows of samples.parquet and results of tasks, as short as a test can say them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from quantgate.bundles.manifest import TaskResult
from quantgate.judge.judge import judge
from quantgate.judge.pairing import DeclaredTask
from quantgate.model.config.policy import FamilyPolicy, Policy
from quantgate.model.enums import Family
from quantgate.model.records import UseVerdict


def sample_row(task: str, number: int, score: float, **changes: Any) -> dict[str, Any]:
    """The answer to a document, of the family math if nothing else is said."""
    return {
        "task": task,
        "family": "math",
        "filter": "none",
        "metric": "acc",
        "doc_id": f"d{number}",
        "doc_repeat": 0,
        "doc_hash": f"doc {number}",
        "prompt_hash": f"prompt {number}",
        "target": "yes",
        "target_hash": f"target {number}",
        "responses": "[]",
        "answer": "yes",
        "score": float(score),
        "engine_start_id": "start",
    } | changes


def task_result(task: str, documents: int, **changes: Any) -> TaskResult:
    """Return the result of a task so far."""
    fields: dict[str, Any] = {
        "task": task,
        "family": Family.MATH,
        "metric": "acc",
        "filter": "none",
        "version": "1",
        "documents": documents,
        "mean_score": 0.5,
        "output_type": "multiple_choice",
        "duration_s": 1.0,
        "engine_start_id": "start",
    }
    return TaskResult(**(fields | changes))


def judged_use(
    baseline: pa.Table, candidate: pa.Table, policy: Policy, use: str, declared: Sequence[DeclaredTask]
) -> UseVerdict:
    """Return the judge's verdict on a candidate for one use."""
    verdicts = judge(baseline, candidate, "tests", policy, declared)
    return next(verdict for verdict in verdicts if verdict.use == use)


def policy_of(families: dict[Family, tuple[float, int]], **changes: Any) -> Policy:
    """Return a policy for tests: by family, its margin and its least number of documents."""
    fields: dict[str, Any] = {
        "description": "For tests.",
        "alpha": 0.05,
        "planned_power": 0.8,
        "stale_after_days": 90,
        "families": {
            family: FamilyPolicy(margin=margin, min_documents=least)
            for family, (margin, least) in families.items()
        },
        "uses": {"all": ()},
    }
    return Policy(**(fields | changes))
