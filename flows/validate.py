"""Validate candidates against their baseline: measure, load, publish."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run
from pydantic import BaseModel, Field

from flows import steps
from flows.fleet.publish_mode import artifact_key, load_and_publish
from flows.fleet.secrets import hub_token
from flows.load import load
from flows.parameters import PublishMode, ValidateParameters
from flows.planning.request import Request, declare, hardware_of, prepared_request
from flows.progress import reporter
from flows.publish import PublishParameters, publish
from quantgate.bundles.history import RunHistory
from quantgate.bundles.identity import run_fingerprint
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.staging import end_fresh, fresh_after
from quantgate.bundles.store import BundleStore
from quantgate.model.config.models import CheckpointConfig
from quantgate.model.errors import ConfigError, QuantgateError, RunError
from quantgate.model.home import Home
from quantgate.model.records import BaselineRef, Checkpoint, RunInputs, RunPlan
from tasks.checkpoint.pins import Pins, pins_file
from tasks.checkpoint.resolve import resolve
from tasks.engine import argument_files, limits, server
from tasks.engine import arguments as engine_known
from tasks.engine import environment as engine_env
from tasks.engine.argument_files import Named
from tasks.engine.environment import EngineEnvironment
from tasks.progress import Reporter
from tasks.quality import evaluate
from tasks.resume.chains import Evidence
from tasks.resume.decision import Decision, Refuse, decide_all
from tasks.resume.second_try import unfinished_runs
from tasks.run import Context
from warehouse.evidence.published_scores import clusters_line, resolution_line

HASHING_EVERY_S = 15.0


class Validation(BaseModel):
    """What the flow ``validate`` gives back."""

    run_ids: list[str] = Field(description="Baseline first.")
    measured: int = Field(description="Runs that were measured now.")
    published: str | None = Field(description="Folder of the published table, where it was published here.")


def _checkpoints(declared: Request, pins: Pins, report: Reporter) -> list[Checkpoint]:
    """Baseline first; candidates carry the model's name, whatever their folders are called."""
    found: list[Checkpoint] = []
    for one in declared.checkpoints:
        source = f"{one.source}@{one.revision}" if one.revision else one.source
        found.append(
            resolve(
                source,
                declared=one.precision,
                model=found[0].model if found else declared.name,
                allow=one.allow,
                pins=pins,
                progress=_hashing(source, report),
            )
        )
    return found


def _hashing(source: str, report: Reporter) -> Callable[[int, int], None]:
    """Progress of hashing a local folder: a word every now and then, none for a small one."""
    told = time.monotonic()

    def tell(done_bytes: int, total_bytes: int) -> None:
        nonlocal told
        if time.monotonic() - told > HASHING_EVERY_S:
            told = time.monotonic()
            report.line(f"{source}: hashed {done_bytes / 1e9:.0f} of {total_bytes / 1e9:.0f} GB")

    return tell


def _served(
    checkpoints: list[Checkpoint],
    declared: Request,
    environment: EngineEnvironment,
    home: Home,
    report: Reporter,
    pins: Pins | None = None,
) -> list[Named]:
    """What each checkpoint is served with; whatever can't be is told before the first engine starts."""
    found = []
    for checkpoint, config in zip(checkpoints, declared.checkpoints, strict=True):
        engine_known.check_known(server.dashed(config.engine_arguments), environment, home, report)
        arguments = server.serving_arguments(environment.config, config.engine_arguments)
        limits.check(arguments, Path(checkpoint.path), declared.workload)
        if declared.chat_template and "chat-template" not in arguments:
            evaluate.check_chat_template(Path(checkpoint.path), checkpoint.source)
        found.append(argument_files.found(environment.config, config.engine_arguments, pins))
    return found


def _plan(
    checkpoint: Checkpoint,
    config: CheckpointConfig,
    named: Named,
    baseline: BaselineRef | None,
    environment: EngineEnvironment,
    declared: Request,
) -> RunPlan:
    hardware = hardware_of(config, environment.config, declared.hardware)
    inputs = RunInputs(
        checkpoint_revision=checkpoint.revision,
        baseline_revision=baseline.revision if baseline else None,
        gpu=hardware.gpu,
        gpu_count=hardware.gpu_count,
        mig_slice=hardware.mig_slice,
        sm_arch=hardware.sm_arch,
        device_name=hardware.device_name,
        cpu_cores=0 if hardware.uuids else hardware.cpu_cores,
        engine=environment.name,
        engine_version=environment.version,
        serving={
            "arguments": named.recorded,
            "environment": server.recorded_environment(environment.config),
            "plugins": engine_env.plugins_content(environment.config),
        },
        suite=declared.suite_content | _how_much(declared, is_candidate=baseline is not None),
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
        policy_name=declared.policy_name,
        policy=declared.policy,
    )


def _plans(
    checkpoints: Sequence[Checkpoint],
    served: Sequence[Named],
    environment: EngineEnvironment,
    declared: Request,
) -> list[RunPlan]:
    """The plan of every run, the baseline's first; which run of it the candidates name is known once it is there."""
    plans: list[RunPlan] = []
    baseline: BaselineRef | None = None
    for one, config, named in zip(checkpoints, declared.checkpoints, served, strict=True):
        # With an adapter the measured model is another one, and the table must not call it by the same name.
        name = f"{one.name}+{named.adapter}" if named.adapter else one.name
        checkpoint = one.model_copy(update={"name": name})
        plans.append(_plan(checkpoint, config, named, baseline, environment, declared))
        baseline = baseline or BaselineRef(name=checkpoint.name, revision=checkpoint.revision, run_id="")
    return plans


def _how_much(declared: Request, *, is_candidate: bool) -> dict[str, bool]:
    """What tells a candidate that answers everything from one that may stop: named only where it makes a difference."""
    return {"full": True} if declared.full and is_candidate and declared.policy.looks else {}


def _measure_all(
    checkpoints: list[Checkpoint],
    environment: EngineEnvironment,
    declared: Request,
    *,
    home: Home,
    report: Reporter,
    fresh_after: int | None,
    history: RunHistory,
    pins: Pins | None = None,
) -> tuple[list[tuple[Manifest, bool]], list[QuantgateError]]:
    """Measure the baseline, then every candidate; one that fails or is refused keeps no other from its turn."""
    served = _served(checkpoints, declared, environment, home, report, pins)
    plans = _plans(checkpoints, served, environment, declared)
    evidence = Evidence(history, BundleStore(home.bundles))
    decisions = decide_all(plans, evidence, unfinished_runs(home), fresh_after=fresh_after)
    _report_refused(plans, decisions, report)
    done: list[tuple[Manifest, bool]] = []
    failures: list[QuantgateError] = []
    baseline: BaselineRef | None = None
    expected_start_s: float | None = None
    clock = time.monotonic()
    for index, (planned, named) in enumerate(zip(plans, served, strict=True), 1):
        plan = planned.model_copy(update={"baseline": baseline})
        decision = decisions[run_fingerprint(plan.inputs)]
        if isinstance(decision, Refuse):
            failures.append(decision.error)
            continue
        context = Context(
            home,
            environment,
            named.arguments,
            report,
            history,
            expected_start_s,
            adapter=named.adapter,
            chat_template=declared.chat_template and (named.chat_template or True),
            steps=steps.STEPS,
        )
        try:
            manifest, now = steps.measure(plan, decision, context, fresh_after)
        except QuantgateError as error:
            if baseline is None:
                raise
            report.line(f"{plan.checkpoint.name}: failed: {error}")
            failures.append(error)
            continue
        done.append((manifest, now))
        baseline = baseline or BaselineRef(
            name=plan.checkpoint.name, revision=plan.checkpoint.revision, run_id=manifest.run_id
        )
        if manifest.engine_starts:
            expected_start_s = manifest.engine_starts[-1].start_duration_s
        measured, left = sum(new for _, new in done), len(checkpoints) - index
        if now and left:
            left_min = (time.monotonic() - clock) / measured * left / 60
            report.line(f"validate: {index} of {len(checkpoints)} checkpoints, about {left_min:.1f} min left")
    return done, failures


def _report_refused(plans: Sequence[RunPlan], decisions: Mapping[str, Decision], report: Reporter) -> None:
    """Report refusals up front, so that they can be fixed while the other candidates run."""
    for plan in plans:
        decision = decisions[run_fingerprint(plan.inputs)]
        if isinstance(decision, Refuse):
            report.line(f"{plan.checkpoint.name}: not measured: {decision.error.what}. {decision.error.hint}")


@flow(name="validate", validate_parameters=True)
def validate(parameters: ValidateParameters) -> Validation:
    """Measure a baseline and its candidates on this host, judge them, publish the table.

    Everything that can be wrong with the input is found before the first engine starts.
    """
    report = reporter()
    with report.used(), hub_token():
        return _validate(parameters, Home.current(), report)


def _validate(parameters: ValidateParameters, home: Home, report: Reporter) -> Validation:
    declared = prepared_request() or declare(parameters, home)
    pins = Pins(pins_file(home), update=parameters.update_pins)
    checkpoints = _checkpoints(declared, pins, report)
    served = tuple(map(argument_files.with_code, declared.checkpoints))
    declared = dataclasses.replace(declared, checkpoints=served)
    environment = engine_env.prepare(declared.engine_name, declared.engine, home, report)
    counts = ", ".join(f"{task} ({count or 'all'} documents)" for task, count in declared.documents.items())
    report.line(
        f"validate: {len(checkpoints)} checkpoints on {declared.hardware.device_name} with "
        f"{environment.name} {environment.version}: {counts}; "
        f"load levels {', '.join(map(str, declared.workload.concurrency))}; policy {declared.policy_name}"
    )
    _tell_resolution(declared, report)
    what = parameters.model_dump(mode="json", exclude={"update_pins"})
    history = RunHistory.read(BundleStore(home.bundles))
    done, failures = _measure_all(
        checkpoints,
        environment,
        declared,
        home=home,
        report=report,
        fresh_after=fresh_after(home, what, history.latest_order) if parameters.fresh else None,
        history=history,
        pins=pins,
    )
    if not failures and not any(now for _, now in done):
        report.line("validate: all of it was measured before and is unchanged; nothing was measured again")
    run_ids = [manifest.run_id for manifest, _ in done]
    lost, published = _finish(parameters.afterwards, run_ids, report)
    if _are_refusals(failures):
        # Not before: the same command, killed while it loads, would measure all of it once more.
        end_fresh(home, what)
    if failures or lost:
        raise _incomplete(failures, lost, len(checkpoints), parameters.afterwards)
    return Validation(run_ids=run_ids, measured=sum(now for _, now in done), published=published)


def _are_refusals(failures: Sequence[QuantgateError]) -> bool:
    """Whether nothing died: what is refused will be again."""
    return all(isinstance(failure, ConfigError) for failure in failures)


def _incomplete(
    failures: Sequence[QuantgateError], lost: Sequence[str], checkpoints: int, afterwards: PublishMode
) -> RunError:
    """What has no result and why, and where the rest is: the table, where somebody loads and nothing was lost."""
    what = [f"{len(failures)} of {checkpoints} checkpoints were not measured"] if failures else []
    what += ["what was measured is not all loaded"] if lost else []
    measured = "All that was measured is kept" if lost or afterwards is PublishMode.NOBODY else ""
    tries = "; the same command tries the rest again" if lost or not _are_refusals(failures) else ""
    return RunError(
        f"{', and '.join(what)}: {' | '.join([*map(str, failures), *lost])}".rstrip("."),
        hint=f"{measured or 'What was measured is in the table'}{tries}.",
    )


def _tell_resolution(declared: Request, report: Reporter) -> None:
    """What each task can decide at the policy's margin, before it costs anything."""
    policy = declared.policy
    for task in declared.suite.tasks:
        documents, margin = declared.documents[task.task], policy.families[task.family].margin
        if documents:
            line = resolution_line(task.task, documents, margin, policy.alpha, policy.planned_power)
            report.line(f"validate: {line}")
        clusters = evaluate.clusters_of(task)
        if clusters and (few := clusters_line(task.task, clusters, margin, policy)):
            report.line(f"validate: {few}")


def _finish(afterwards: PublishMode, run_ids: list[str], report: Reporter) -> tuple[list[str], str | None]:
    """Load and publish as the parameters say; what of these runs was not loaded, and where the table is."""
    match afterwards:
        case PublishMode.NOBODY:
            return [], None
        case PublishMode.FLEET:
            return load_and_publish(run_ids, report), None
        case PublishMode.HERE:
            loaded = load()
            lost = [problem for problem in loaded.problems if any(run_id in problem for run_id in run_ids)]
            key = artifact_key(str(flow_run.id))
            return lost, str(publish(PublishParameters(run_ids=run_ids, key=key)))
