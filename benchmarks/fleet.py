"""Write a synthetic fleet: seeded bundles in a run's own format, without a Python loop over rows.

A model is measured on five GPUs in three precisions, BF16 being the baseline of the other two: 15 runs a model. All
runs share one suite, so that a document's prompt is the same in each. Models answer in `VARIANTS` ways, and runs that
answer the same share one samples file by hard links: that saves disk space and time, and a loader still reads each of
them whole. The single requests and the telemetry, which no figure of the benchmark reads, are empty.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.suite import (
    CHOICES,
    START_ID,
    SUITE,
    draw_choices,
    draw_documents,
    draw_generated,
    draw_prompts,
)
from quantgate.bundles.identity import run_fingerprint
from quantgate.bundles.manifest import MANIFEST, EngineStart, FileEntry, Manifest, TaskResult
from quantgate.bundles.schema import BUNDLE_FILES, LOAD_POINTS, SAMPLES
from quantgate.bundles.seal import write_table
from quantgate.model.config.gpus import load_gpus
from quantgate.model.config.policy import load_policy
from quantgate.model.config.workloads import Workload
from quantgate.model.enums import KernelMode
from quantgate.model.records import BaselineRef, Checkpoint, Hardware, RunInputs

GPUS = ("l40s", "h100", "h200", "b200", "b300")
PRECISIONS = ("bf16", "fp8", "nvfp4")
RUNS_PER_MODEL = len(GPUS) * len(PRECISIONS)
ARCHITECTURES = ("llama-3.1-8b", "llama-3.1-70b", "phi-4", "a-model-of-ones-own")
"""Architectures of the models, in turn: shapes that the warehouse knows, and one that it doesn't."""

VARIANTS = 64

_WORSE_BETTER = {"bf16": (0.0, 0.0), "fp8": (0.004, 0.003), "nvfp4": (0.02, 0.01)}
"""Share of documents that turn from right to wrong and the reverse, by precision, fractions."""

_SPEED = {"bf16": 1.0, "fp8": 1.6, "nvfp4": 1.9}
_START = datetime(2026, 3, 21, tzinfo=UTC)
_ENGINE, _ENGINE_VERSION = "vllm", "0.25.1"
_POLICY_NAME = "standard"


@dataclass(frozen=True)
class Size:
    """Size of a fleet; uneven shares are rounded up to whole documents and points per run."""

    runs: int
    samples: int
    points: int

    @property
    def documents(self) -> int:
        """Documents of each task of a run."""
        return -(-self.samples // (self.runs * len(SUITE.tasks)))

    @property
    def levels(self) -> int:
        """Load points of a run."""
        return -(-self.points // self.runs)

    @property
    def samples_in_all(self) -> int:
        """Samples of all runs."""
        return self.documents * len(SUITE.tasks) * self.runs

    @property
    def points_in_all(self) -> int:
        """Load points of all runs."""
        return self.levels * self.runs


@dataclass(frozen=True)
class _Run:
    """One run of the fleet: all models are measured in one configuration after the other."""

    number: int
    models: int

    @property
    def configuration(self) -> int:
        return self.number // self.models

    @property
    def index(self) -> int:
        """The model's number."""
        return self.number % self.models

    @property
    def model(self) -> str:
        return f"bench-{self.index:05d}/{ARCHITECTURES[self.index % len(ARCHITECTURES)]}"

    @property
    def answers(self) -> tuple[int, int]:
        """All that the samples depend on: how the model answers, and the configuration."""
        return self.index % VARIANTS, self.configuration

    @property
    def gpu(self) -> str:
        return GPUS[self.configuration // len(PRECISIONS)]

    @property
    def precision(self) -> str:
        return PRECISIONS[self.configuration % len(PRECISIONS)]

    @property
    def started_at(self) -> datetime:
        return _START + timedelta(seconds=self.number)

    @property
    def baseline(self) -> _Run | None:
        step = self.configuration % len(PRECISIONS)
        return _Run(self.number - step * self.models, self.models) if step else None

    @property
    def checkpoint(self) -> str:
        return f"{self.model}-{self.precision}"

    @property
    def revision(self) -> str:
        return "sha256:" + hashlib.sha256(self.checkpoint.encode()).hexdigest()


class Fleet:
    """Writes the bundles of a fleet.

    Args:
        size: its size.
        seed: the same seed gives the same bundles, byte for byte.
    """

    def __init__(self, size: Size, seed: int = 0) -> None:
        """Draw the suite's documents, which all runs share."""
        self.size, self._seed = size, seed
        self._models = -(-size.runs // RUNS_PER_MODEL)
        self._policy = load_policy(_POLICY_NAME)
        self._gpus = load_gpus()
        generator = np.random.default_rng([seed, 0])
        self._documents = draw_documents(generator, size.documents)
        self._easy = generator.random(len(SUITE.tasks) * size.documents)
        self._prompts = draw_prompts(generator, self._documents["prompt_hash"])

    @property
    def model(self) -> str:
        """A model that was measured in every configuration."""
        whole = self.size.runs - (RUNS_PER_MODEL - 1) * self._models
        return self._run(whole // 2).model

    def write(self, bundles: Path) -> None:
        """Write every bundle, a folder each."""
        bundles.mkdir(parents=True, exist_ok=True)
        shared: dict[str, FileEntry] = {}
        scores: dict[tuple[int, int], list[float]] = {}
        for number in range(self.size.runs):
            run = self._run(number)
            inputs = self._inputs(run)
            folder = bundles / _run_id(run, inputs)
            folder.mkdir()
            files = {}
            for name, schema in BUNDLE_FILES.items():
                if name == "load_points.parquet":
                    files[name] = write_table(folder / name, self._points(run))
                    continue
                key = "-".join(map(str, run.answers)) if name == "samples.parquet" else "all"
                first = bundles / f".{key}-{name}"
                if first.name not in shared:
                    table = schema.empty_table()
                    if name == "prompts.parquet":
                        table = self._prompts
                    if name == "samples.parquet":
                        table = self._samples(run)
                        scores[run.answers] = self._means(table)
                    shared[first.name] = write_table(first, table)
                os.link(first, folder / name)
                files[name] = shared[first.name]
            manifest = self._manifest(run, inputs, scores[run.answers], files)
            (folder / MANIFEST).write_text(json.dumps(manifest.model_dump(mode="json"), indent=1))
        for name in shared:
            (bundles / name).unlink()

    def _means(self, samples: pa.Table) -> list[float]:
        means = samples["score"].to_numpy().reshape(len(SUITE.tasks), -1).mean(axis=1)
        return [float(mean) for mean in means]

    def _run(self, number: int) -> _Run:
        return _Run(number, self._models)

    def _samples(self, run: _Run) -> pa.Table:
        """Draw the samples of a run: a baseline's answers, with flips for the other precisions."""
        n = self.size.documents
        skill = np.random.default_rng([self._seed, 1, run.answers[0]]).uniform(0.5, 0.9)
        right = self._easy < skill
        generator = np.random.default_rng([self._seed, 2, *run.answers])
        worse, better = _WORSE_BETTER[run.precision]
        chance = generator.random(right.size)
        right = np.where(right, chance >= worse / skill, chance < better / (1 - skill))
        responses, answers = [], []
        for index, task in enumerate(SUITE.tasks):
            part = slice(index * n, (index + 1) * n)
            target = self._documents["target"].slice(index * n, n)
            make = draw_choices if task.family in CHOICES else draw_generated
            response, answer = make(generator, target, right[part])
            responses.append(response)
            answers.append(answer)
        columns = self._documents | {
            "responses": pa.concat_arrays(responses),
            "answer": pa.concat_arrays(answers),
            "score": pa.array(right.astype(np.float64)),
            "output_tokens": pa.array(generator.integers(1, 200, right.size)),
        }
        return pa.table([columns[name] for name in SAMPLES.names], schema=SAMPLES)

    def _points(self, run: _Run) -> pa.Table:
        """Draw a sweep of concurrency 1, 2, 3 …: throughput that saturates and latency that grows with the load."""
        generator = np.random.default_rng([self._seed, 3, run.number])
        gpu, levels = self._gpus[run.gpu], np.arange(1, self.size.levels + 1)
        assert gpu.bandwidth_gb_s is not None
        noise = generator.normal(1, 0.02, levels.size)
        tok_s = gpu.bandwidth_gb_s / 20 * _SPEED[run.precision] * levels / (1 + levels / 64) * noise
        requests = 4 * levels + 16
        output_tokens, input_tokens = requests * 256, requests * 1024
        duration_s = output_tokens / tok_s
        tpot = 1e3 * levels / tok_s
        latency = {"ttft": 40 + 5 * levels, "tpot": tpot, "itl": tpot, "e2el": 256 * tpot}
        spread = {"mean": 1.05, "p50": 1.0, "p90": 1.4, "p99": 2.1}
        columns = {
            "operating_point": pc.binary_join_element_wise("c", pc.cast(pa.array(levels), pa.string()), ""),
            "concurrency": levels,
            "isl_tokens": np.full(levels.size, 1024),
            "osl_tokens": np.full(levels.size, 256),
            "requests": requests,
            "completed": requests,
            "failed": np.zeros(levels.size, np.int32),
            "warmup_requests": levels,
            "duration_s": duration_s,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "requests_per_s": requests / duration_s,
            "output_tok_s": tok_s,
            "total_tok_s": tok_s * 5,
            **{
                f"{name}_{statistic}_ms": values * factor
                for name, values in latency.items()
                for statistic, factor in spread.items()
            },
            "prefix_cache_hit_tokens": np.zeros(levels.size, np.int64),
            "client_cpu_share": generator.uniform(0.1, 0.4, levels.size),
            "seed": np.zeros(levels.size, np.int64),
            "validity": pa.array(["valid"] * levels.size),
            "validity_reasons": pa.array([[]] * levels.size, pa.list_(pa.string())),
            "engine_start_id": pa.array([START_ID] * levels.size),
            "measured_at": pa.array([run.started_at] * levels.size, pa.timestamp("us", tz="UTC")),
        }
        return pa.table(
            {name: pa.array(columns[name]).cast(LOAD_POINTS.field(name).type) for name in LOAD_POINTS.names}
        ).cast(LOAD_POINTS)

    def _inputs(self, run: _Run) -> RunInputs:
        gpu = self._gpus[run.gpu]
        return RunInputs(
            checkpoint_revision=run.revision,
            baseline_revision=run.baseline.revision if run.baseline else None,
            gpu=run.gpu,
            gpu_count=1,
            mig_slice=None,
            sm_arch=str(gpu.sm_arch),
            device_name=gpu.nvml_names[0],
            cpu_cores=0,
            engine=_ENGINE,
            engine_version=_ENGINE_VERSION,
            serving={"arguments": {"max-model-len": 2048}},
            suite={"tasks": [task.task for task in SUITE.tasks], "documents": self.size.documents},
            workload={"concurrency": [1, self.size.levels]},
            policy_fingerprint=self._policy.fingerprint(),
        )

    def _manifest(
        self, run: _Run, inputs: RunInputs, scores: list[float], files: dict[str, FileEntry]
    ) -> Manifest:
        baseline, sweep = run.baseline, tuple(range(1, self.size.levels + 1))
        return Manifest(
            run_id=_run_id(run, inputs),
            fingerprint=run_fingerprint(inputs),
            inputs=inputs,
            checkpoint=_checkpoint(run),
            baseline=BaselineRef(
                name=baseline.checkpoint,
                revision=baseline.revision,
                run_id=_run_id(baseline, self._inputs(baseline)),
            )
            if baseline
            else None,
            hardware=Hardware(gpu=run.gpu, device_name=inputs.device_name, sm_arch=inputs.sm_arch),
            engine_starts=(self._engine_start(run),),
            tasks=tuple(
                TaskResult(
                    task=task.task,
                    family=task.family,
                    metric="exact_match",
                    filter="none",
                    version="1",
                    documents=self.size.documents,
                    mean_score=score,
                    output_type="multiple_choice" if task.family in CHOICES else "generate_until",
                    duration_s=1.0,
                    engine_start_id=START_ID,
                )
                for task, score in zip(SUITE.tasks, scores, strict=True)
            ),
            suite=SUITE,
            workload=Workload(name="sweep", isl_tokens=1024, osl_tokens=256, concurrency=sweep),
            policy_name=_POLICY_NAME,
            policy=self._policy,
            started_at=run.started_at,
            measured_at=run.started_at + timedelta(hours=1),
            files=files,
        )

    def _engine_start(self, run: _Run) -> EngineStart:
        kernels = {"bf16": {}, "fp8": {"Linear": "CutlassFP8"}, "nvfp4": {"Linear": "NvFp4"}}
        return EngineStart(
            engine_start_id=START_ID,
            engine=_ENGINE,
            engine_version=_ENGINE_VERSION,
            kernels=kernels[run.precision],
            kernel_mode=KernelMode(self._gpus[run.gpu].formats[run.precision]),
            kv_cache_tokens=100_000,
            start_duration_s=60.0,
            environment={},
            command=("synthetic",),
            started_at=run.started_at,
        )


def _checkpoint(run: _Run) -> Checkpoint:
    return Checkpoint(
        source=run.checkpoint,
        path=run.checkpoint,
        name=run.checkpoint,
        revision=run.revision,
        model=run.model,
        architecture="LlamaForCausalLM",
        precision=run.precision,
        weight_format=f"synthetic:{run.precision}",
        kv_cache_dtype="auto",
        parameters=8_030_000_000,
        size_bytes=16_060_000_000,
        vocab_size=128_256,
    )


def _run_id(run: _Run, inputs: RunInputs) -> str:
    return f"{run.started_at:%Y%m%dT%H%M%S}-{run_fingerprint(inputs)[:12]}"
