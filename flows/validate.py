"""Validate candidates against their baseline: measure, load, publish."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow
from pydantic import BaseModel, Field

from flows.load import load
from flows.measure import Context, measure
from flows.publish import publish
from quantgate.model.config import ROOT, Policy, Suite, Workload, load_policy, load_yaml
from quantgate.model.enums import Family
from quantgate.model.home import Home
from quantgate.model.records import BaselineRef, Checkpoint, Hardware, Manifest, RunInputs, RunPlan
from tasks import engine, engine_env, hardware, quality, task_sources
from tasks.checkpoints import resolve
from tasks.engine_env import EngineEnvironment
from tasks.progress import Reporter
from warehouse.judge import check_policy


class ValidateParameters(BaseModel):
    """Parameters of the flow ``validate``, as Prefect's form shows them."""

    baseline: str = Field(
        title="Baseline",
        description="Folder or hub id (org/name[@revision]) that candidates are held against.",
    )
    candidates: list[str] = Field(
        title="Candidates", description="Folders or hub ids of the quantized checkpoints.", min_length=1
    )
    tasks: str = Field(
        default="demo",
        title="Tasks",
        description="Suite of configs/suites, lm-eval task, lm-eval YAML, or JSONL of prompts and answers.",
    )
    family: Family | None = Field(
        default=None, title="Family", description="Task family of tasks that bring none; decides the margin."
    )
    limit: int | None = Field(
        default=None, ge=1, title="Limit", description="First documents of each task; all if empty."
    )
    workload: str = Field(
        default="demo", title="Workload", description="A ladder of configs/workloads, or the path of one."
    )
    concurrency: list[int] | None = Field(
        default=None, title="Concurrency", description="Load levels in place of the workload's, e.g. 1, 8."
    )
    policy: str = Field(default="standard", title="Policy", description="A policy of configs/policy.yaml.")
    engine: str | None = Field(
        default=None,
        title="Engine",
        description="An engine of configs/engines.yaml; the hardware's default if empty.",
    )
    engine_arguments: dict[str, Any] = Field(
        default_factory=dict,
        title="Engine arguments",
        description="Serving arguments on top of the engine's own, without dashes, e.g. max-model-len: 4096.",
    )
    fresh: bool = Field(default=False, title="Fresh", description="Measure again what was measured before.")


class Validation(BaseModel):
    """What the flow ``validate`` gives back."""

    run_ids: list[str] = Field(description="Baseline first.")
    measured: int = Field(description="Runs that were measured now.")
    published: str = Field(description="Folder of the published table.")


def _workload(parameters: ValidateParameters) -> Workload:
    """The ladder, by name or path, with the run's own levels."""
    named = Path(parameters.workload)
    path = (
        named if named.suffix == ".yaml" else ROOT / "configs" / "workloads" / f"{parameters.workload}.yaml"
    )
    workload = load_yaml(path, Workload)
    if parameters.concurrency:
        workload = workload.model_copy(update={"concurrency": tuple(parameters.concurrency)})
    return workload


def _inputs(
    checkpoint: Checkpoint,
    baseline: BaselineRef | None,
    found: Hardware,
    environment: EngineEnvironment,
    parameters: ValidateParameters,
    declared: tuple[Suite, Workload, Policy],
) -> RunInputs:
    suite, workload, policy = declared
    config = environment.config
    return RunInputs(
        checkpoint_revision=checkpoint.revision,
        baseline_revision=baseline.revision if baseline else None,
        gpu=found.gpu,
        gpu_count=found.gpu_count,
        mig_slice=found.mig_slice,
        sm_arch=found.sm_arch,
        engine=environment.name,
        engine_version=environment.version,
        serving={
            "arguments": engine.serving_arguments(config, parameters.engine_arguments),
            "environment": config.environment,
            "plugins": engine_env.plugins_content(config),
        },
        suite=quality.suite_content(suite),
        workload=workload.model_dump(mode="json", exclude={"description"}),
        policy_fingerprint=policy.fingerprint(),
    )


@flow(name="validate", validate_parameters=True)
def validate(parameters: ValidateParameters) -> Validation:
    """Measure a baseline and its candidates on this host, judge them, publish the table.

    Everything that can be wrong with the input is found before the first engine starts.
    """
    home, report = Home.current(), Reporter.current()
    suite = task_sources.suite_from(
        parameters.tasks, family=parameters.family, limit=parameters.limit, out_dir=home.path / "tasks"
    )
    workload = _workload(parameters)
    policy = load_policy(parameters.policy)
    check_policy(parameters.policy, policy, suite.tasks)
    documents = quality.check_suite(suite)
    gpus = int(parameters.engine_arguments.get("tensor-parallel-size", 1))
    found = hardware.detect(gpu_count=gpus)
    name, config = engine_env.load_engine(parameters.engine, "gpu" if found.uuids else "cpu")
    checkpoints = [resolve(source) for source in (parameters.baseline, *parameters.candidates)]
    environment = engine_env.prepare(name, config, home, report)
    counts = ", ".join(f"{task} ({count or 'all'} documents)" for task, count in documents.items())
    report.line(
        f"validate: {len(checkpoints)} checkpoints on {found.device_name} with {name} {environment.version}: "
        f"{counts}; load levels {', '.join(map(str, workload.concurrency))}; policy {parameters.policy}"
    )
    context = Context(home, environment, parameters.engine_arguments, report)
    manifests: list[Manifest] = []
    measured, clock = 0, time.monotonic()
    baseline: BaselineRef | None = None
    for index, checkpoint in enumerate(checkpoints):
        plan = RunPlan(
            inputs=_inputs(checkpoint, baseline, found, environment, parameters, (suite, workload, policy)),
            checkpoint=checkpoint,
            baseline=baseline,
            hardware=found,
            suite=suite,
            workload=workload,
            policy_name=parameters.policy,
            policy=policy,
        )
        manifest, now = measure(plan, context, fresh=parameters.fresh)
        manifests.append(manifest)
        measured += now
        baseline = baseline or BaselineRef(
            name=checkpoint.name, revision=checkpoint.revision, run_id=manifest.run_id
        )
        left = len(checkpoints) - index - 1
        if now and left:
            each_s = (time.monotonic() - clock) / measured
            done = f"{index + 1} of {len(checkpoints)} checkpoints"
            report.line(f"validate: {done}, about {each_s * left / 60:.1f} min left")
    if not measured:
        report.line("validate: all of it was measured before and is unchanged; nothing was measured again")
    load()
    published = publish()
    return Validation(run_ids=[m.run_id for m in manifests], measured=measured, published=str(published))
