"""Typed records that packages exchange and a bundle's manifest stores."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from quantgate.model.config.policy import Policy
from quantgate.model.config.suites import Suite
from quantgate.model.config.workloads import Workload
from quantgate.model.enums import Family, Outcome, TestKind, Verdict, Weights
from quantgate.model.yaml_file import Strict


def _check_calendar(value: datetime) -> datetime:
    """Refuse a time that in UTC lies beyond the calendar, or at its end, where nothing can be added to it."""
    try:
        known = value.astimezone(UTC).year < 9999
    except OverflowError:
        known = False
    if not known:
        raise ValueError("no calendar has this time")
    return value


Instant = Annotated[datetime, AfterValidator(_check_calendar)]
"""A time of the years 1 to 9998, UTC."""


class Checkpoint(Strict):
    """A checkpoint as its files describe it, never as its name does."""

    source: str = Field(description="As the user gave it: a folder or a hub id.")
    path: str = Field(description="Local folder that is served.")
    name: str = Field(description="Hub id, or the folder's name.")
    revision: str = Field(description="Commit SHA of the hub, or 'sha256:' and the folder's content hash.")
    weights_sha256: str | None = Field(
        default=None,
        description="Of its tensors by name, dtype, shape and content, however they are split into files; None where "
        "they were not read.",
    )
    settings_sha256: str | None = Field(
        default=None,
        description="Of config.json and generation_config.json, without comments, and of code that is permitted.",
    )
    weights_sample: str | None = Field(
        default=None, description="Some bytes of its tensors, by which nearly equal weights are recognised."
    )
    related_weights: str | None = Field(
        default=None, description="Hash of the first declared candidate whose weights are nearly the same."
    )
    model: str = Field(description="The base model that baseline and candidates share.")
    architecture: str = Field(description="Class name from config.json, e.g. LlamaForCausalLM.")
    precision: str = Field(
        description="From the files: bf16, fp16, fp32, fp8, nvfp4, mxfp8, mxfp4, int8, int4, mixed."
    )
    weight_format: str = Field(description="Who wrote the weights and how, e.g. modelopt:NVFP4.")
    kv_cache_dtype: str = Field(description="'auto' (the model's dtype) or what the files declare, e.g. fp8.")
    parameters: int = Field(description="Parameters as stored; packed ones counted unpacked.")
    size_bytes: int = Field(description="Size of the weight files.")
    vocab_size: int
    max_position_embeddings: int | None = None
    weights: Weights = Weights.REAL
    layers: dict[str, int] = Field(
        default_factory=dict,
        description="Weight matrices by precision, embeddings and head included; empty where they could not be read.",
    )
    traits: tuple[str, ...] = Field(
        default=(),
        exclude=True,
        description="Of its format, for configs/refusals.yaml; read from the files at each plan, never stored.",
    )
    remote_code: bool = Field(
        default=False,
        description="Served with its own code (trust_remote_code), allowed at this revision.",
    )


class Hardware(Strict):
    """Hardware that a run was measured on."""

    gpu: str = Field(description="Short name of configs/gpus.yaml, or the device's own name.")
    device_name: str = Field(description="As the driver or the CPU reports it.")
    gpu_count: int = Field(default=1, ge=1)
    sm_arch: str = Field(description="sm_90, …; on a CPU its instruction set, e.g. x86_64-avx2.")
    mig_slice: str | None = None
    driver: str | None = None
    cuda_version: str | None = Field(default=None, description="The newest CUDA that the driver runs, 13.0.")
    sm_clock_max_mhz: int | None = None
    memory_clock_max_mhz: int | None = None
    power_limit_w: float | None = Field(default=None, description="What the driver enforces, one GPU.")
    uuids: tuple[str, ...] = ()
    memory_bytes: int = 0
    cpu_cores: int = 0


class BaselineRef(Strict):
    """The baseline that a candidate was declared against."""

    name: str
    revision: str
    run_id: str
    weights_sha256: str | None = Field(default=None, description="As of its checkpoint.")


class RunInputs(Strict):
    """What a run's fingerprint is made of: measured and unchanged means the same inputs."""

    checkpoint_revision: str
    baseline_revision: str | None = Field(description="None for the baseline itself.")
    gpu: str
    gpu_count: int
    mig_slice: str | None
    sm_arch: str
    device_name: str
    cpu_cores: int = Field(description="Of a run on the CPU; 0 where GPUs do the work.")
    engine: str
    engine_version: str
    serving: dict[str, Any] = Field(description="Serving arguments and engine environment.")
    suite: dict[str, Any] | None = Field(description="Tasks with content hashes, or None: no quality.")
    workload: dict[str, Any] | None = Field(description="The concurrency sweep, or None: no throughput.")
    policy_fingerprint: str


class TaskContent(Strict):
    """A task by what it asks, whatever its name, its files, and the ids and the order of its documents."""

    task: str
    content_sha256: str = Field(
        description="Of the set of documents (prompt, choices, target), of how they are asked and how they are scored."
    )
    documents: int = Field(description="Documents, each counted once.")
    copies: int = Field(
        default=0, description="Documents left out, since another is equal after normalising blanks and case."
    )
    near_copies: int = Field(default=0, description="Documents that differ in a few words from another.")
    near_clusters: int = Field(
        default=0,
        description="Documents that are clustered with near-copies of the same target; 0 where these are few.",
    )
    floor: float = Field(default=0.0, description="Score of an answer that ignores the question, a fraction.")
    document_hashes: tuple[str, ...] = Field(
        default=(), description="Of each document, 16 hexadecimal digits, sorted."
    )


class RunPlan(Strict):
    """One run before it is measured: everything that is declared in advance."""

    inputs: RunInputs
    checkpoint: Checkpoint
    baseline: BaselineRef | None
    hardware: Hardware
    suite: Suite
    workload: Workload
    policy_name: str
    policy: Policy
    contents: tuple[TaskContent, ...] = Field(
        default=(), description="What each task of the suite asks; empty where nobody has looked yet."
    )
    question: int = Field(default=1, ge=1, description="Its place among the questions about its claim.")


class TaskVerdict(Strict):
    """Decision on one task of a candidate, with its evidence."""

    task: str
    family: Family
    margin: float = Field(description="Non-inferiority margin, a fraction of the score.")
    pairs: int = Field(description="Paired documents.")
    baseline_score: float
    candidate_score: float
    quality_delta: float = Field(
        description="Candidate - baseline, a fraction: as observed, also where the run stopped early."
    )
    quality_delta_corrected: float | None = Field(
        default=None,
        description="The same, corrected for the looks that could have stopped the run early: equal to it where none "
        "could, None where nothing can be said.",
    )
    ci_low: float = Field(
        description="Lower end of the two-sided 1-2α interval, adjusted for stopping early."
    )
    ci_high: float
    worse: int = Field(description="Documents right under the baseline and wrong under the candidate (b).")
    better: int = Field(description="The reverse (c).")
    flip_rate: float = Field(description="(b + c) / pairs.")
    p_noninferior: float = Field(description="P-value of delta <= -margin; small validates.")
    p_inferior: float = Field(description="P-value of delta >= -margin; small rejects (before Holm).")
    p_inferior_holm: float
    p_degraded: float = Field(
        description="One-sided, of delta >= 0: exact McNemar's, for partial credit the betting test's; where documents "
        "share clusters, the greater of it and the cluster-robust t's."
    )
    degraded: bool
    test: TestKind = Field(
        default=TestKind.EXACT,
        description="Test that decides: exact (right/wrong scores), bounded (the betting test, any scores from 0 to "
        "1) or cluster (where documents share subjects or passages).",
    )
    outcome: Outcome
    documents_available: int | None = Field(default=None, description="Documents that the task has.")
    looks: int = Field(default=1, description="Interim looks at which it was judged, this one included.")
    clusters: int | None = Field(
        default=None, description="Subjects or passages, where documents share them."
    )
    largest_cluster: int | None = Field(default=None, description="Documents of the largest of them.")
    documents_needed: int | None = Field(
        default=None, description="At delta 0 and the flip rate's upper bound."
    )
    reason: str = ""
    insensitive: str = Field(
        default="",
        exclude=True,
        description="Why no loss could show, from the baseline's score; empty where it could.",
    )
    baseline_documents: int = Field(
        default=0, exclude=True, description="All that the baseline answered, of which its interval is made."
    )


class UseVerdict(Strict):
    """Verdict on a candidate for one use under one policy."""

    use: str
    policy: str
    verdict: Verdict
    worst_task: str | None
    quality_delta: float | None
    ci_low: float | None
    ci_high: float | None
    flip_rate: float | None
    degraded: bool | None
    documents_needed: int | None
    reason: str
    tasks: tuple[TaskVerdict, ...]
