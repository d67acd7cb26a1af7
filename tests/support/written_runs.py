"""Small bundles, written the way a run writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from quantgate.bundles.identity import run_fingerprint
from quantgate.bundles.manifest import (
    SCHEMA_VERSION,
    EngineStart,
    FidelityResult,
    FileEntry,
    Manifest,
    TaskResult,
)
from quantgate.bundles.schema import BUNDLE_FILES, SAMPLES
from quantgate.bundles.seal import write_table
from quantgate.model.config.policy import Policy
from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.config.workloads import Workload
from quantgate.model.enums import Evidence, Family, KernelMode, Validity
from quantgate.model.records import BaselineRef, Checkpoint, Hardware, RunInputs
from tests.support.sample_rows import policy_of

START = datetime(2026, 4, 1, 12, tzinfo=UTC)

POLICY = policy_of(
    {Family.MATH: (0.1, 50), Family.CONVERSATION: (0.1, 50)},
    uses={"all": (), "math": (Family.MATH,), "conversation": (Family.CONVERSATION,)},
)

KERNELS = {
    "bf16": ("", KernelMode.NATIVE),
    "fp32": ("", KernelMode.NATIVE),
    "fp8": ("CutlassFP8ScaledMMLinearKernel", KernelMode.NATIVE),
    "nvfp4": ("EmulationNvFp4LinearKernel", KernelMode.EMULATED),
    "mixed": ("CutlassFP8ScaledMMLinearKernel", KernelMode.NATIVE),
}


@dataclass(frozen=True)
class Spec:
    """Facts of a run that a test cares about; the rest is filled in."""

    run_id: str
    precision: str = "bf16"
    baseline: Spec | None = None
    wrong: dict[str, Sequence[int]] = field(default_factory=dict)
    """By task, the documents that this run gets wrong on top of every tenth."""
    tasks: dict[str, Family] = field(
        default_factory=lambda: {"sums": Family.MATH, "cloze": Family.CONVERSATION}
    )
    schema_version: int = SCHEMA_VERSION
    size_bytes: int = 1_700_000
    layers: dict[str, int] = field(default_factory=dict)
    """Weight matrices by precision."""
    weights: str | None = None
    """Hash of its tensors, where they were read."""
    contents: dict[str, str] = field(default_factory=dict)
    """By task, the hash of what it asks, where that was recorded."""
    documents: int = 100
    points: dict[int, float] = field(default_factory=lambda: {1: 100.0, 8: 400.0})
    """Output tokens/s by concurrency."""
    completed: bool = True
    gpu: str = "h100"
    gpu_count: int = 1
    mig_slice: str | None = None
    kernel_mode: KernelMode | None = None
    names_kernels: bool = True
    """False: the engine's log said nothing."""
    engine_version: str = "0.25.1"
    arguments: dict[str, Any] = field(default_factory=dict)
    """Serving arguments on top of the usual."""
    checkpoint: str | None = None
    started_at: datetime = START
    declared_order: int = 0
    question: int = 1
    fingerprint: str | None = None
    continues: str | None = None
    reused: dict[str, str] = field(default_factory=dict)
    """By part, the run that measured it."""
    policy: Policy = POLICY
    validity: Validity = Validity.VALID
    validity_reasons: tuple[str, ...] = ()
    point_validity: Validity = Validity.VALID
    edit: Callable[[dict[str, Any]], None] | None = None
    """Change to each sample row."""
    again: int = 0
    """First documents of each task that were answered once more (A/A)."""
    edit_again: Callable[[dict[str, Any]], None] | None = None
    """Change to each of those answers."""
    fidelity: tuple[dict[str, Any], ...] = ()
    """Rows of fidelity.parquet."""
    fidelity_result: FidelityResult | None = None

    @property
    def name(self) -> str:
        return self.checkpoint or f"toy-{self.precision}"

    @property
    def revision(self) -> str:
        return "sha256:" + hashlib.sha256(self.name.encode()).hexdigest()


def _samples(spec: Spec) -> list[dict[str, Any]]:
    rows = []
    for task, family in spec.tasks.items():
        wrong = set(spec.wrong.get(task, ())) | set(range(0, spec.documents, 10))
        for number in range(spec.documents):
            text = f"{task} {number}"
            right = number not in wrong
            rows.append(
                {
                    "task": task,
                    "family": str(family),
                    "filter": "none",
                    "metric": "exact_match",
                    "doc_id": str(number),
                    "doc_repeat": 0,
                    "doc_hash": f"doc {text}",
                    "prompt_hash": f"prompt {text}",
                    "target": str(number),
                    "target_hash": f"target {text}",
                    "responses": f'[["{number if right else "?"}"]]',
                    "answer": str(number) if right else "?",
                    "score": float(right),
                    "output_tokens": 3,
                    "finish_reason": "stop",
                    "cluster": None,
                    "engine_start_id": "start-1",
                    "position": None,
                }
            )
    for row in rows:
        if spec.edit:
            spec.edit(row)
    return rows


def _again(spec: Spec, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = [dict(row) for row in samples if int(row["doc_id"]) < spec.again]
    for row in rows:
        if spec.edit_again:
            spec.edit_again(row)
    return rows


def _points(spec: Spec) -> list[dict[str, Any]]:
    return [
        {
            "operating_point": f"c{concurrency}",
            "concurrency": concurrency,
            "isl_tokens": 128,
            "osl_tokens": 64,
            "requests": 16,
            "completed": 16 if spec.completed else 0,
            "failed": 0 if spec.completed else 16,
            "warmup_requests": 4,
            "duration_s": 16 * 64 / tok_s,
            "input_tokens": 16 * 128,
            "output_tokens": 16 * 64,
            "requests_per_s": tok_s / 64,
            "output_tok_s": tok_s,
            "total_tok_s": tok_s * 3,
            **{
                f"{m}_{s}_ms": 10.0
                for m in ("ttft", "tpot", "itl", "e2el")
                for s in ("mean", "p50", "p90", "p99")
            },
            "prefix_cache_hit_tokens": 0,
            "client_cpu_share": 0.2,
            "seed": 0,
            "validity": str(spec.point_validity),
            "validity_reasons": [] if spec.point_validity == Validity.VALID else ["client_bound"],
            "engine_start_id": "start-1",
            "measured_at": spec.started_at + timedelta(minutes=5),
        }
        for concurrency, tok_s in spec.points.items()
    ]


def _tables(spec: Spec) -> dict[str, pa.Table]:
    answered = _samples(spec)
    samples = pa.Table.from_pylist(answered, schema=SAMPLES)
    prompts = [
        {"prompt_hash": p, "text": p.upper()} for p in samples.column("prompt_hash").unique().to_pylist()
    ]
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in BUNDLE_FILES}
    rows["prompts.parquet"] = prompts
    rows["control_samples.parquet"] = _again(spec, answered)
    rows["load_points.parquet"] = _points(spec)
    rows["requests.parquet"] = [
        {"operating_point": f"c{c}", "request": n, "ttft_ms": 10.0, "itl_ms": [1.0, 2.0]}
        for c in spec.points
        for n in range(3)
    ]
    rows["telemetry.parquet"] = [{"at": spec.started_at, "phase": "quality", "engine_start_id": "start-1"}]
    rows["fidelity.parquet"] = list(spec.fidelity)
    tables = {name: pa.Table.from_pylist(rows[name], schema=schema) for name, schema in BUNDLE_FILES.items()}
    return tables | {"samples.parquet": samples}


def build_manifest(spec: Spec, files: dict[str, FileEntry]) -> Manifest:
    kernel, mode = KERNELS[spec.precision]
    tasks = tuple(
        TaskResult(
            task=task,
            family=family,
            metric="exact_match",
            filter="none",
            version="1",
            documents=spec.documents,
            mean_score=0.9,
            output_type="generate_until",
            duration_s=1.0,
            engine_start_id="start-1",
            content_sha256=spec.contents.get(task),
        )
        for task, family in spec.tasks.items()
    )
    suite = (
        Suite(name="toys", tasks=tuple(SuiteTask(task=t, family=f) for t, f in spec.tasks.items()))
        if tasks
        else None
    )
    workload = (
        Workload(name="short", isl_tokens=128, osl_tokens=64, concurrency=tuple(spec.points))
        if spec.points
        else None
    )
    inputs = RunInputs(
        checkpoint_revision=spec.revision,
        baseline_revision=spec.baseline.revision if spec.baseline else None,
        gpu=spec.gpu,
        gpu_count=spec.gpu_count,
        mig_slice=spec.mig_slice,
        sm_arch="sm_90",
        device_name="NVIDIA H100 80GB HBM3",
        cpu_cores=0,
        engine="vllm",
        engine_version=spec.engine_version,
        serving={
            "arguments": {"max-model-len": 512, "tensor-parallel-size": spec.gpu_count, **spec.arguments}
        },
        suite={"tasks": list(spec.tasks)} if tasks else None,
        workload={"concurrency": list(spec.points)} if spec.points else None,
        policy_fingerprint=spec.policy.fingerprint(),
    )
    return Manifest(
        schema_version=spec.schema_version,
        run_id=spec.run_id,
        fingerprint=spec.fingerprint or run_fingerprint(inputs),
        inputs=inputs,
        checkpoint=Checkpoint(
            source=f"checkpoints/{spec.name}",
            path=f"checkpoints/{spec.name}",
            name=spec.name,
            revision=spec.revision,
            weights_sha256=spec.weights,
            model="toy",
            architecture="LlamaForCausalLM",
            precision=spec.precision,
            weight_format=f"toy:{spec.precision}",
            kv_cache_dtype="auto",
            parameters=850_000,
            size_bytes=spec.size_bytes,
            layers=spec.layers,
            vocab_size=256,
        ),
        baseline=BaselineRef(
            name=spec.baseline.name, revision=spec.baseline.revision, run_id=spec.baseline.run_id
        )
        if spec.baseline
        else None,
        hardware=Hardware(
            gpu=spec.gpu,
            device_name=spec.gpu,
            gpu_count=spec.gpu_count,
            sm_arch="sm_90",
            mig_slice=spec.mig_slice,
        ),
        engine_starts=tuple(
            EngineStart(
                engine_start_id=name,
                engine="vllm",
                engine_version=spec.engine_version,
                kernels={"ColumnParallelLinear": kernel, "RowParallelLinear": kernel}
                if kernel and spec.names_kernels
                else {},
                kernel_mode=(spec.kernel_mode or mode) if spec.names_kernels else None,
                attention_backend="FLASH_ATTN",
                kv_cache_tokens=20_000,
                start_duration_s=30.0,
                environment={"VLLM_NO_USAGE_STATS": "1"},
                command=("python", "-m", "vllm.entrypoints.openai.api_server"),
                started_at=spec.started_at,
            )
            for name in sorted({"start-1", *(row["engine_start_id"] for row in spec.fidelity)})
        ),
        fidelity=spec.fidelity_result,
        tasks=tasks,
        suite=suite,
        workload=workload,
        policy_name="toys",
        policy=spec.policy,
        question=spec.question,
        evidence=Evidence.MEASURED,
        validity=spec.validity,
        validity_reasons=spec.validity_reasons,
        started_at=spec.started_at,
        declared_order=spec.declared_order,
        measured_at=spec.started_at + timedelta(minutes=10),
        continues=spec.continues,
        reused=spec.reused,
        files=files,
    )


def write_bundle(bundles: Path, spec: Spec) -> Path:
    """Write a whole bundle into a folder of bundles; return its own folder."""
    folder = bundles / spec.run_id
    folder.mkdir(parents=True)
    files = {name: write_table(folder / name, table) for name, table in _tables(spec).items()}
    (folder / "manifest.json").write_text(build_manifest(spec, files).model_dump_json(indent=1))
    return folder


BASELINE = Spec("run-bf16")
FP8 = Spec(
    "run-fp8", "fp8", baseline=BASELINE, points={1: 150.0, 8: 800.0}, started_at=START + timedelta(hours=1)
)
NVFP4 = Spec(
    "run-nvfp4",
    "nvfp4",
    baseline=BASELINE,
    wrong={"sums": [n for n in range(100) if n % 10 in {1, 2, 3}]},
    points={1: 50.0, 8: 200.0},
    started_at=START + timedelta(hours=2),
)
