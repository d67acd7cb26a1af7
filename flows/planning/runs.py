"""Plan every run of a validation and decide what earlier runs leave it to do; nothing is measured here."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flows.parameters import ValidateParameters
from flows.planning.cpu_fit import check_size
from flows.planning.gpu_fit import check_gpus, served_bytes
from flows.planning.request import Request, hardware_of
from quantgate.bundles.history import RunHistory
from quantgate.bundles.identity import run_fingerprint
from quantgate.bundles.staging import fresh_after
from quantgate.bundles.store import BundleStore
from quantgate.judge.power import SeenFlips, clusters_line, resolution_line
from quantgate.model.config.models import CheckpointConfig
from quantgate.model.home import Home
from quantgate.model.records import BaselineRef, Checkpoint, RunInputs, RunPlan, TaskContent
from quantgate.model.words import counted
from tasks.checkpoint.contents import contents_of
from tasks.checkpoint.pins import Pins, pins_file
from tasks.checkpoint.resolve import resolve
from tasks.engine import argument_files, environment, server
from tasks.engine.argument_files import ResolvedArguments
from tasks.engine.arguments import check_known, check_limits, dashed, serving_arguments
from tasks.engine.environment import EngineEnvironment
from tasks.engine.refusals import check_served
from tasks.progress import Reporter
from tasks.quality.content.describe import describe_suite
from tasks.quality.suite import check_chat_template, clusters_of
from tasks.resume.baseline_role import check_no_candidate, check_pairs, check_role, check_serving
from tasks.resume.chains import Evidence
from tasks.resume.claims import (
    check_families,
    claim_lines,
    earlier_questions,
    question_number,
    with_related_weights,
)
from tasks.resume.decision import Decision, Refuse, Reuse, decide_all
from tasks.resume.insensitive import insensitive_lines
from tasks.resume.second_try import unfinished_runs
from warehouse.estimates import known_scores, seen_flips

HASHING_EVERY_S = 15.0


@dataclass(frozen=True)
class PlannedRun:
    """A run of a validation before it is measured."""

    plan: RunPlan
    """A candidate's gets the baseline's run once that has one."""
    decision: Decision
    served: ResolvedArguments
    """The serving arguments, with the files that they name."""


@dataclass(frozen=True)
class PlannedRuns:
    """The runs of a validation, planned and decided."""

    request: Request
    environment: EngineEnvironment
    runs: tuple[PlannedRun, ...]
    """The baseline's first."""
    history: RunHistory
    """The runs of the bundles store that the decisions rest on."""
    fresh_after: int | None
    """Runs that were declared after this number count as measured anew; None reuses whatever is there."""

    @property
    def nothing_to_measure(self) -> bool:
        """Return True if bundles hold all that is asked."""
        return all(isinstance(run.decision, Reuse) for run in self.runs)


_PREPARED: ContextVar[PlannedRuns | None] = ContextVar("planned runs", default=None)


@contextmanager
def prepared(planned: PlannedRuns) -> Iterator[None]:
    """Hand planned runs to the flow ``validate`` that is called meanwhile, which then does not plan them again."""
    token = _PREPARED.set(planned)
    try:
        yield
    finally:
        _PREPARED.reset(token)


def prepared_runs() -> PlannedRuns | None:
    """Return the runs that a command has planned for the current flow; None where the flow does it itself."""
    return _PREPARED.get()


def plan_runs(parameters: ValidateParameters, request: Request, home: Home, report: Reporter) -> PlannedRuns:
    """Resolve the checkpoints, make the engine's environment, plan the runs and decide what each has to do.

    Args:
        parameters: of the validation.
        request: what they were resolved to on this host.
        home: whose pins, bundles and staging.
        report: gets lines about what will run, and about candidates that are refused.

    Raises:
        ConfigError: a checkpoint or an argument is wrong, or every candidate is refused.
    """
    pins = Pins(pins_file(home), update=parameters.update_pins)
    resolved = resolved_checkpoints(request, pins, report)
    check_pairs(resolved, report)
    checkpoints = identified(resolved, home, report)
    for checkpoint, config in zip(checkpoints, request.checkpoints, strict=True):
        as_stored = config.model_copy(update={"precision": checkpoint.precision})
        check_weights(request, as_stored, checkpoint.size_bytes)
    request = dataclasses.replace(
        request, checkpoints=tuple(map(argument_files.with_code, request.checkpoints))
    )
    engine = environment.prepare(request.engine_name, request.engine, home, report)
    families = {task.task: str(task.family) for task in request.suite.tasks}
    seen = seen_flips(home.warehouse, families, {checkpoint.precision for checkpoint in checkpoints[1:]})
    _report_request(request, engine, report, seen)
    served = served_with(checkpoints, request, engine, home, report, pins)
    contents = describe_suite(
        request.suite, request.suite_content, home, report, chat_template=request.chat_template
    )
    store = BundleStore(home.bundles)
    history, declared = RunHistory.read(store), store.declarations()
    check_families(request.suite, request.policy, contents.values(), declared, store)
    if parameters.model is None:
        check_no_candidate(checkpoints[0], history, declared)
    related = with_related_weights(checkpoints, declared)
    baseline, *candidates = plans_of(related, served, engine, request, tuple(contents.values()))
    earlier = [earlier_questions(plan, history, declared) for plan in candidates]
    plans = [
        baseline,
        *(
            plan.model_copy(update={"question": question_number(plan, asked, store)})
            for plan, asked in zip(candidates, earlier, strict=True)
        ),
    ]
    for line in insensitive_lines(plans[0], history.runs, known_scores(home.warehouse, checkpoints[0].name)):
        report.line(f"validate: {line}")
    after = fresh_after(home, fresh_key(parameters), history.latest_order) if parameters.fresh else None
    decisions = decide_all(plans, Evidence(history, store), unfinished_runs(home), fresh_after=after)
    _report_refused(plans, decisions, report)
    for plan, asked in zip(plans[1:], earlier, strict=True):
        if not isinstance(decisions[run_fingerprint(plan.inputs)], Refuse | Reuse):
            for line in claim_lines(plan, asked, store):
                report.line(line)
    runs = [
        PlannedRun(plan, decisions[run_fingerprint(plan.inputs)], arguments)
        for plan, arguments in zip(plans, served, strict=True)
    ]
    return PlannedRuns(request, engine, tuple(runs), history, after)


def fresh_key(parameters: ValidateParameters) -> dict[str, object]:
    """Return what tells one ``--fresh`` from another, so that the same command goes on after a kill.

    A command with the same parameters but without ``--fresh`` has the same key: it completes what was begun.
    """
    return parameters.model_dump(mode="json", exclude={"update_pins", "fresh"})


def resolved_checkpoints(request: Request, pins: Pins, report: Reporter) -> list[Checkpoint]:
    """Resolve the checkpoints, baseline first; candidates carry the model's name, whatever their folders are called."""
    checkpoints: list[Checkpoint] = []
    given = [config.engine_arguments for config in request.checkpoints]
    check_serving(given, request.checkpoints[0].source)
    for config in request.checkpoints:
        source = f"{config.source}@{config.revision}" if config.revision else config.source
        checkpoint = resolve(
            source,
            declared=config.precision,
            allow=config.allow,
            pins=pins,
            progress=_hashing(source, report),
            check_bytes=partial(check_weights, request, config),
        )
        model = checkpoints[0].model if checkpoints else request.name or checkpoint.model
        checkpoints.append(checkpoint.model_copy(update={"model": model}))
        if len(checkpoints) == 1:  # before a candidate is pulled
            native = request.model.native_precision
            check_role(checkpoints[0].precision, native, config.source, config.engine_arguments)
    return checkpoints


def check_weights(request: Request, config: CheckpointConfig, size_bytes: int) -> None:
    """Refuse a checkpoint whose weights the memory of this host, or of the GPUs that serve it, does not hold.

    Raises:
        ConfigError: it does not fit.
    """
    arguments = serving_arguments(request.engine, config.engine_arguments)
    served = served_bytes(size_bytes, config.precision, arguments)
    if request.hardware.uuids:
        check_gpus(config.source, served, arguments, hardware_of(config, request.engine, request.hardware))
    else:
        check_size(config.source, served, request.engine, config.engine_arguments)


def identified(checkpoints: Sequence[Checkpoint], home: Home, report: Reporter) -> list[Checkpoint]:
    """Return the checkpoints with the hashes of their content, by which a copy under another name is recognised."""
    with_content = []
    for checkpoint in checkpoints:
        contents = contents_of(checkpoint, home.path / "contents", _hashing(checkpoint.source, report))
        with_content.append(checkpoint.model_copy(update=contents.model_dump()))
    return with_content


def _hashing(source: str, report: Reporter) -> Callable[[int, int], None]:
    """Return a progress of hashing a local folder: a line every now and then, none for a small one."""
    reported = time.monotonic()

    def progress(done_bytes: int, total_bytes: int) -> None:
        nonlocal reported
        if time.monotonic() - reported > HASHING_EVERY_S:
            reported = time.monotonic()
            report.line(f"{source}: hashed {done_bytes / 1e9:.0f} of {total_bytes / 1e9:.0f} GB")

    return progress


def served_with(
    checkpoints: Sequence[Checkpoint],
    request: Request,
    engine: EngineEnvironment,
    home: Home,
    report: Reporter,
    pins: Pins | None = None,
) -> list[ResolvedArguments]:
    """Resolve what each checkpoint is served with; what can't be is reported before the first engine starts."""
    served = []
    for checkpoint, config in zip(checkpoints, request.checkpoints, strict=True):
        check_known(dashed(config.engine_arguments), engine, home, report)
        serving = serving_arguments(engine.config, config.engine_arguments)
        version = (engine.config.distribution, engine.version)
        check_served(checkpoint, version, serving, request.hardware, report)
        check_limits(serving, Path(checkpoint.path), request.workload, request.answers)
        if request.chat_template and "chat-template" not in serving:
            check_chat_template(Path(checkpoint.path), checkpoint.source)
        served.append(argument_files.resolve_arguments(engine.config, config.engine_arguments, pins))
    return served


def plans_of(
    checkpoints: Sequence[Checkpoint],
    served: Sequence[ResolvedArguments],
    engine: EngineEnvironment,
    request: Request,
    contents: tuple[TaskContent, ...] = (),
) -> list[RunPlan]:
    """Plan every run, baseline first. Candidates get the baseline's run id after it has been measured."""
    plans: list[RunPlan] = []
    baseline: BaselineRef | None = None
    for resolved, config, named in zip(checkpoints, request.checkpoints, served, strict=True):
        # With an adapter the measured model is another one, and the table must not call it by the same name.
        name = f"{resolved.name}+{named.adapter}" if named.adapter else resolved.name
        # What is never stored is no part of a plan, or a run would differ from its stored manifest.
        checkpoint = resolved.model_copy(update={"name": name, "traits": ()})
        plan = plan_of(checkpoint, config, named, baseline, engine, request)
        plans.append(plan.model_copy(update={"contents": contents}))
        baseline = baseline or BaselineRef(
            name=checkpoint.name,
            revision=checkpoint.revision,
            run_id="",
            weights_sha256=checkpoint.weights_sha256,
        )
    return plans


def plan_of(
    checkpoint: Checkpoint,
    config: CheckpointConfig,
    named: ResolvedArguments,
    baseline: BaselineRef | None,
    engine: EngineEnvironment,
    request: Request,
) -> RunPlan:
    """Plan one run: everything that is declared before it is measured."""
    hardware = hardware_of(config, engine.config, request.hardware)
    # Named only where it makes a difference, so that other runs keep their fingerprints.
    full = {"full": True} if request.full and baseline and request.policy.looks else {}
    inputs = RunInputs(
        checkpoint_revision=checkpoint.revision,
        baseline_revision=baseline.revision if baseline else None,
        gpu=hardware.gpu,
        gpu_count=hardware.gpu_count,
        mig_slice=hardware.mig_slice,
        sm_arch=hardware.sm_arch,
        device_name=hardware.device_name,
        cpu_cores=0 if hardware.uuids else hardware.cpu_cores,
        engine=engine.name,
        engine_version=engine.version,
        serving={
            "arguments": named.recorded,
            "environment": server.recorded_environment(engine.config),
            "plugins": environment.plugins_content(engine.config),
        },
        suite=request.suite_content | full,
        workload=request.workload.model_dump(mode="json", exclude={"description"}),
        policy_fingerprint=request.policy.fingerprint(),
    )
    return RunPlan(
        inputs=inputs,
        checkpoint=checkpoint,
        baseline=baseline,
        hardware=hardware,
        suite=request.suite,
        workload=request.workload,
        policy_name=request.policy_name,
        policy=request.policy,
    )


def _report_request(
    request: Request, engine: EngineEnvironment, report: Reporter, seen: Mapping[str, SeenFlips]
) -> None:
    """Report what will run, and what each task can decide at the policy's margin, before it costs anything."""
    policy = request.policy
    judged = policy.model_copy(update={"looks": ()}) if request.full else policy
    counts = ", ".join(
        f"{task} ({counted(count, 'document', ',') if count else 'all documents'})"
        for task, count in request.documents.items()
    )
    report.line(
        f"validate: {counted(len(request.checkpoints), 'checkpoint')} on {request.hardware.device_name} with "
        f"{engine.name} {engine.version}: {counts}; "
        f"load levels {', '.join(map(str, request.workload.concurrency))}; policy {request.policy_name}"
    )
    for task in request.suite.tasks:
        documents, rule = request.documents[task.task], policy.families[task.family]
        margin = rule.margin
        if documents:
            line = resolution_line(
                task.task, documents, margin, judged, rule.min_documents, seen.get(task.task)
            )
            report.line(f"validate: {line}")
        clusters = clusters_of(task)
        if clusters and (few := clusters_line(task.task, clusters, margin, policy)):
            report.line(f"validate: {few}")


def _report_refused(plans: Sequence[RunPlan], decisions: Mapping[str, Decision], report: Reporter) -> None:
    """Report refusals up front, so that they can be fixed while the other candidates run."""
    for plan in plans:
        decision = decisions[run_fingerprint(plan.inputs)]
        if isinstance(decision, Refuse):
            report.line(f"{plan.checkpoint.name}: not measured: {decision.error.what}. {decision.error.hint}")
