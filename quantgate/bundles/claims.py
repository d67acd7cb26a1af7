"""What a claim is, and the declaration that a run leaves in the store before it asks anything.

A claim says that one candidate answers as well as its baseline, on an architecture, with the kernels and the engine
version that served them. Every question that is asked about it is counted, whatever its tasks and files are called and
whatever checkpoint is named as its baseline:
docs/decisions/0016-one-standing-verdict-a-claim.md has the rule, and the view ``questions`` shows the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic import Field

from quantgate.bundles.identity import (
    Run,
    answer_arguments,
    answering_starts,
    baseline_weights,
    comparison_id,
    kernels_of,
    kv_cache_dtype,
    question_id,
    weights,
)
from quantgate.bundles.manifest import EngineStart, Manifest
from quantgate.model.config.policy import Policy
from quantgate.model.enums import Family
from quantgate.model.records import Instant, RunPlan, TaskContent
from quantgate.model.yaml_file import Strict, fingerprint_of


class AskedTask(Strict):
    """A task of a declared question."""

    task: str
    family: Family
    content: TaskContent | None = Field(
        description="Without its documents, which have a file of their own; None where it could not be read."
    )


class Declaration(Strict):
    """A question that a run is about to ask, written to the bundles store before the first answer is asked for."""

    run_id: str
    declared_order: int = Field(ge=0, lt=2**63)
    declared_at: Instant
    claim_key: str
    subject_key: str = Field(default="", description="Of the claim, but for the kernels (`subject_of`).")
    question_key: str
    comparison: str = Field(default="", description="Of the question, but for the kernels (`comparison_id`).")
    checkpoint: str
    weights: str
    weights_sample: str | None = Field(description="As of Checkpoint.")
    settings_sha256: str | None = Field(description="As of Checkpoint.")
    baseline: str
    baseline_weights: str
    sm_arch: str
    engine: str
    engine_version: str
    kernels: dict[str, str]
    suite: str
    tasks: tuple[AskedTask, ...]
    policy_name: str
    policy: Policy
    continues: str | None = None


def candidate_weights(run: Run) -> str:
    """Return what a candidate's weights are known by: of nearly equal ones those that were declared first."""
    return run.checkpoint.related_weights or weights(run)


def subject_of(run: Run) -> dict[str, Any]:
    """Return what a claim is about, but for the kernels that the engine chooses when it starts.

    The baseline is no part of it: with another one the same candidate would get a second chance. Nor is the engine's
    name, which whoever writes an engines.yaml chooses.
    """
    return {
        "candidate": candidate_weights(run),
        "served": answer_arguments(run, ("model",)),
        "kv_cache_dtype": kv_cache_dtype(run),
        "sm_arch": run.inputs.sm_arch,
        "engine_version": run.inputs.engine_version,
    }


def claim_id(run: Run, starts: Iterable[EngineStart]) -> str:
    """Return the key of a candidate's claim, as a SHA-256 (hex), by the starts that answer it."""
    return fingerprint_of(subject_of(run) | {"kernels": kernels_of(starts)})


def claim_key(manifest: Manifest) -> str | None:
    """Return the key of a measured candidate's claim; None for a baseline."""
    return claim_id(manifest, answering_starts(manifest)) if manifest.baseline else None


def candidate_key(manifest: Manifest) -> str | None:
    """Return the key of a measured candidate, wherever it is served and compared; None for a baseline."""
    return candidate_id(candidate_weights(manifest)) if manifest.baseline else None


def candidate_id(weights: str) -> str:
    """Return the key of a candidate, as a SHA-256 (hex), by what its weights are known by."""
    return fingerprint_of([weights])


def declaration_of(
    plan: RunPlan,
    run_id: str,
    declared_order: int,
    started_at: datetime,
    start: EngineStart,
    continues: str | None,
) -> Declaration:
    """Return what a candidate's run declares once its engine answers.

    Args:
        plan: the candidate's; it names its baseline's run.
        run_id: the run's.
        declared_order: its number in the store.
        started_at: when it began, by which runs of one number are ordered.
        start: of the engine that will answer.
        continues: the run whose answers it begins with.
    """
    assert plan.baseline is not None
    contents = {content.task: content.model_copy(update={"document_hashes": ()}) for content in plan.contents}
    return Declaration(
        run_id=run_id,
        declared_order=declared_order,
        declared_at=started_at,
        claim_key=claim_id(plan, [start]),
        subject_key=fingerprint_of(subject_of(plan)),
        question_key=question_id(plan, [start]),
        comparison=comparison_id(plan),
        checkpoint=plan.checkpoint.name,
        weights=candidate_weights(plan),
        weights_sample=plan.checkpoint.weights_sample,
        settings_sha256=plan.checkpoint.settings_sha256,
        baseline=plan.baseline.name,
        baseline_weights=str(baseline_weights(plan)),
        sm_arch=plan.inputs.sm_arch,
        engine=plan.inputs.engine,
        engine_version=plan.inputs.engine_version,
        kernels=kernels_of([start]),
        suite=plan.suite.name,
        tasks=tuple(
            AskedTask(task=task.task, family=task.family, content=contents.get(task.task))
            for task in plan.suite.tasks
        ),
        policy_name=plan.policy_name,
        policy=plan.policy,
        continues=continues,
    )


SEEN = 100
"""Answers from which a run counts whatever its policy: one that decides nothing still shows what was lost."""


def counts_as_try(documents: Iterable[tuple[Family, int]], policy: Policy) -> bool:
    """Return True if a run has seen enough answers to decide anything, or `SEEN`: fewer spend no alpha.

    Args:
        documents: of each task its family, and how many were scored.
        policy: the one that was declared.
    """
    documents = list(documents)
    return sum(count for _, count in documents) >= SEEN or any(
        family in policy.families and count >= policy.families[family].min_documents
        for family, count in documents
    )
