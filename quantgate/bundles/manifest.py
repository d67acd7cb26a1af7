"""Manifests of every layout that ever was, read as today's record."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from quantgate.model.bounded import RefusedError, parse_json
from quantgate.model.config.policy import Policy
from quantgate.model.config.suites import Suite
from quantgate.model.config.workloads import Workload
from quantgate.model.enums import Evidence, Family, KernelMode, Validity
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.records import BaselineRef, Checkpoint, Hardware, Instant, RunInputs
from quantgate.model.yaml_file import Strict, parse_record

SCHEMA_VERSION = 5
"""Version of the bundle's layout; the loader reads every older one."""


class EngineStart(Strict):
    """One start of the engine: what ran, with which kernels."""

    engine_start_id: str
    engine: str
    engine_version: str
    kernels: dict[str, str] = Field(
        description="Kernels by what the engine's log says that they are chosen for: linear layers and experts."
    )
    kernel_mode: KernelMode | None = Field(
        description="The worst of linear layers and experts; None where the log does not say."
    )
    attention_backend: str | None = None
    kv_cache_dtype: str | None = Field(
        default=None, description="As the engine reports it, else as its log says; None where neither does."
    )
    kv_cache_tokens: int | None = Field(default=None, description="Capacity of the KV cache, tokens.")
    start_duration_s: float = Field(description="Seconds from launch until it answered.")
    environment: dict[str, str] = Field(description="Environment variables on the allow-list.")
    command: tuple[str, ...]
    started_at: Instant

    @field_validator("kernel_mode")
    @classmethod
    def _said(cls, mode: KernelMode | None, info: ValidationInfo) -> KernelMode | None:
        """Return None for `emulated` without a kernel: until schema_version 4 it stood for a log that said nothing."""
        return mode if mode is not KernelMode.EMULATED or info.data.get("kernels") else None


class TaskResult(Strict):
    """Result of a finished quality task: enough to know whether two of them pair."""

    task: str
    family: Family
    metric: str
    filter: str
    version: str = Field(description="The task's own version in lm-eval.")
    documents: int
    mean_score: float
    output_type: str
    duration_s: float
    engine_start_id: str
    truncated_prompts: int = Field(
        default=0, description="Requests whose prompt was cut on the left to fit the engine's context."
    )
    documents_available: int | None = Field(
        default=None, description="Documents that the task has; None where that was not recorded."
    )
    looks: tuple[int, ...] = Field(
        default=(),
        description="Documents at each interim look of the candidate; the last is all that it answered.",
    )
    content_sha256: str | None = Field(
        default=None, description="As of TaskContent; None where that was not recorded."
    )
    copies: int = Field(default=0, description="Documents left out as copies of others.")
    floor: float | None = Field(
        default=None,
        description="Score of an answer that ignores the question; None where it was not recorded.",
    )


class FidelityResult(Strict):
    """Result of measuring a checkpoint's next-token distributions on a fixed text, or why there is none."""

    text_id: str = Field(description="The text's name and the beginning of its SHA-256.")
    tokens: int = Field(default=0, description="Tokens that count.")
    k: int | None = Field(default=None, description="Entries of each distribution, the most probable first.")
    vocab_size: int | None = None
    duration_s: float
    engine_start_id: str
    skipped: str = Field(default="", description="Why the engine gave nothing; empty where it did.")


class FileEntry(Strict):
    """One file of a bundle."""

    sha256: str
    size_bytes: int
    rows: int


class Manifest(Strict):
    """manifest.json of a bundle."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    fingerprint: str
    inputs: RunInputs
    checkpoint: Checkpoint
    baseline: BaselineRef | None = Field(description="None for the baseline itself.")
    hardware: Hardware
    engine_starts: tuple[EngineStart, ...]
    tasks: tuple[TaskResult, ...]
    fidelity: FidelityResult | None = Field(default=None, description="None where it was not asked for.")
    suite: Suite | None
    workload: Workload | None
    policy_name: str
    policy: Policy
    question: int = Field(default=1, ge=1, description="Its place among the questions about its claim.")
    evidence: Evidence = Evidence.MEASURED
    validity: Validity = Validity.VALID
    validity_reasons: tuple[str, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict, description="Of the pipeline's own packages.")
    started_at: Instant
    declared_order: int = Field(
        default=0,
        ge=0,
        lt=1 << 62,
        description="The run's number in the bundles store (quantgate.bundles.order); 0 before there was one.",
    )
    measured_at: Instant
    continues: str | None = None
    reused: dict[str, str] = Field(
        default_factory=dict,
        description="Parts that an earlier run measured (`fidelity`, `load c8`), and that run; they count once.",
    )
    files: dict[str, FileEntry] = Field(default_factory=dict)


MANIFEST = "manifest.json"
"""A bundle's manifest; written last, a folder without one is not a bundle."""


def damaged(run_id: str, what: str) -> RunError:
    """Return the error of a bundle that can't be used."""
    return RunError(
        what,
        where=f"bundle {run_id}",
        hint="It was skipped; restore its files, or measure again with --fresh.",
    )


def parse_manifest(raw: bytes, run_id: str) -> Manifest:
    """Read a manifest.

    Args:
        raw: the file's bytes.
        run_id: the bundle's folder, for messages; the manifest must name it.

    Raises:
        RunError: it is damaged, or of an unknown version.
    """
    try:
        data = parse_json(raw)
    except RefusedError:
        raise damaged(run_id, f"{MANIFEST} is not JSON") from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version not in range(1, SCHEMA_VERSION + 1):
        raise RunError(
            f"schema_version {version} is unknown (this Quantgate reads 1 to {SCHEMA_VERSION})",
            where=f"bundle {run_id}",
            hint="Update Quantgate, or remove the bundle.",
        )
    try:
        return parse_record(Manifest, data, MANIFEST)
    except ConfigError as error:
        raise damaged(run_id, str(error)) from None
