"""Validate candidates against their baseline: measure, load, publish."""

from __future__ import annotations

import time

from prefect import flow
from pydantic import BaseModel, Field

from flows.declaration import Declared, ValidateParameters, declare
from flows.load import load
from flows.measure import Context, measure
from flows.publish import publish
from quantgate.model.home import Home
from quantgate.model.records import BaselineRef, Checkpoint, Manifest, RunInputs, RunPlan
from tasks import engine, engine_env, quality
from tasks.checkpoints import resolve
from tasks.engine_env import EngineEnvironment
from tasks.progress import Reporter


class Validation(BaseModel):
    """What the flow ``validate`` gives back."""

    run_ids: list[str] = Field(description="Baseline first.")
    measured: int = Field(description="Runs that were measured now.")
    published: str = Field(description="Folder of the published table.")


def _checkpoints(parameters: ValidateParameters) -> list[Checkpoint]:
    """Baseline first; candidates carry the model's name, whatever their folders are called."""
    baseline = resolve(parameters.baseline, model=parameters.model)
    return [baseline, *(resolve(source, model=baseline.model) for source in parameters.candidates)]


def _plan(
    checkpoint: Checkpoint,
    baseline: BaselineRef | None,
    environment: EngineEnvironment,
    parameters: ValidateParameters,
    declared: Declared,
) -> RunPlan:
    config, hardware = environment.config, declared.hardware
    inputs = RunInputs(
        checkpoint_revision=checkpoint.revision,
        baseline_revision=baseline.revision if baseline else None,
        gpu=hardware.gpu,
        gpu_count=hardware.gpu_count,
        mig_slice=hardware.mig_slice,
        sm_arch=hardware.sm_arch,
        engine=environment.name,
        engine_version=environment.version,
        serving={
            "arguments": engine.serving_arguments(config, parameters.engine_arguments),
            "environment": config.environment,
            "plugins": engine_env.plugins_content(config),
        },
        suite=quality.suite_content(declared.suite),
        workload=declared.workload.model_dump(mode="json", exclude={"description"}),
        policy_fingerprint=declared.policy.fingerprint(),
    )
    return RunPlan(
        inputs=inputs,
        checkpoint=checkpoint,
        baseline=baseline,
        hardware=hardware,
        suite=declared.suite,
        workload=declared.workload,
        policy_name=parameters.policy,
        policy=declared.policy,
    )


@flow(name="validate", validate_parameters=True)
def validate(parameters: ValidateParameters) -> Validation:
    """Measure a baseline and its candidates on this host, judge them, publish the table.

    Everything that can be wrong with the input is found before the first engine starts.
    """
    home, report = Home.current(), Reporter.current()
    declared = declare(parameters, home)
    checkpoints = _checkpoints(parameters)
    environment = engine_env.prepare(declared.engine_name, declared.engine, home, report)
    counts = ", ".join(f"{task} ({count or 'all'} documents)" for task, count in declared.documents.items())
    report.line(
        f"validate: {len(checkpoints)} checkpoints on {declared.hardware.device_name} with "
        f"{environment.name} {environment.version}: {counts}; "
        f"load levels {', '.join(map(str, declared.workload.concurrency))}; policy {parameters.policy}"
    )
    context = Context(home, environment, parameters.engine_arguments, report)
    manifests: list[Manifest] = []
    measured, clock = 0, time.monotonic()
    baseline: BaselineRef | None = None
    for checkpoint in checkpoints:
        plan = _plan(checkpoint, baseline, environment, parameters, declared)
        manifest, now = measure(plan, context, fresh=parameters.fresh)
        manifests.append(manifest)
        measured += now
        baseline = baseline or BaselineRef(
            name=checkpoint.name, revision=checkpoint.revision, run_id=manifest.run_id
        )
        left = len(checkpoints) - len(manifests)
        if now and left:
            left_min = (time.monotonic() - clock) / measured * left / 60
            report.line(
                f"validate: {len(manifests)} of {len(checkpoints)} checkpoints, about {left_min:.1f} min left"
            )
    if not measured:
        report.line("validate: all of it was measured before and is unchanged; nothing was measured again")
    load()
    published = publish()
    return Validation(run_ids=[m.run_id for m in manifests], measured=measured, published=str(published))
