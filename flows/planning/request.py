"""Resolve what a validation is asked for, and check it before Prefect or an engine starts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.parameters import DEFAULT_POLICY, DEFAULT_WORKLOAD, ValidateParameters
from flows.planning.cpu_fit import check_memory
from flows.planning.gpu_fit import spread
from quantgate.bundles.store import open_bundles
from quantgate.judge.judge import check_policy
from quantgate.model.config.engines import EngineConfig
from quantgate.model.config.gpus import choose_gpu, load_gpus, unlisted
from quantgate.model.config.models import CheckpointConfig, ModelConfig, load_model
from quantgate.model.config.policy import Policy, load_policy
from quantgate.model.config.suites import Suite
from quantgate.model.config.workloads import Workload
from quantgate.model.enums import Family
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT, Home
from quantgate.model.records import Hardware
from quantgate.model.yaml_file import load_yaml, parse_record
from tasks.checkpoint.files import source_folders
from tasks.checkpoint.resolve import check_source
from tasks.device import hardware
from tasks.device.versions import check_versions
from tasks.engine import argument_files, environment, log
from tasks.engine.arguments import check_limits, gpu_count, serving_arguments
from tasks.engine.permission import check_permitted
from tasks.fidelity.text import read_text
from tasks.progress import Reporter
from tasks.quality import sources
from tasks.quality.requirements import check_packages, permitted, request_needs
from tasks.quality.suite import check_chat_template, check_suite, suite_content
from tasks.resume.baseline_role import check_revision, check_role


@dataclass(frozen=True)
class Work:
    """The work that a validation measures, on whatever host."""

    name: str | None
    """Name that the user gives the checkpoints, or the model's."""
    model: ModelConfig
    checkpoints: tuple[CheckpointConfig, ...]
    """Baseline first; engine arguments are those of model, checkpoint and run together."""
    suite: Suite
    documents: dict[str, int | None]
    """Number of documents by task; None where only the run can count them."""
    answers: tuple[str, int] | None
    """The task with the longest answers and their length in tokens; None where no task generates text."""
    workload: Workload
    policy_name: str
    policy: Policy
    chat_template: bool
    full: bool


@dataclass(frozen=True)
class Request(Work):
    """Work, and what this host measures it with."""

    suite_content: dict[str, Any]
    """The suite's content, for fingerprints: hashed once."""
    hardware: Hardware
    engine_name: str
    engine: EngineConfig


def chosen_model(parameters: ValidateParameters) -> ModelConfig:
    """Return the model of configs/models, or one made of the parameters' own checkpoints.

    Raises:
        ConfigError: neither or both are given, or no candidate has one of the precisions.
    """
    if parameters.model is None:
        if parameters.baseline is None or not parameters.candidates:
            missing = "baseline" if parameters.candidates else "candidate"
            alone = "no model and " if not parameters.candidates and parameters.baseline is None else ""
            raise ConfigError(
                f"{alone}no {missing} is named",
                where="validate",
                hint="Name a model of configs/models, or give a baseline and at least one candidate.",
            )
        if parameters.precisions:
            raise ConfigError(
                "a precision chooses among a model's candidates, and no model is named",
                where="validate",
                hint="Leave it out, or name a model.",
            )
        if not parameters.tasks:
            raise ConfigError(
                "no tasks are named", where="validate", hint="Give a suite, task, YAML or JSONL."
            )
        return ModelConfig(
            name=parameters.name or parameters.baseline,
            baseline=CheckpointConfig(source=parameters.baseline),
            candidates=tuple(CheckpointConfig(source=source) for source in parameters.candidates),
            suite="+".join(parameters.tasks),
            workload=parameters.workload or DEFAULT_WORKLOAD,
            policy=parameters.policy or DEFAULT_POLICY,
        )
    if parameters.baseline is not None or parameters.candidates:
        raise ConfigError(
            "a model and checkpoints of its own are both named",
            where=parameters.model,
            hint="Give one of the two; the folder of a baseline follows --baseline.",
        )
    model = load_model(parameters.model)
    precisions = [candidate.precision for candidate in model.candidates]
    for precision in parameters.precisions:
        if precision not in precisions:
            raise ConfigError(
                f"no candidate is declared as '{precision}'",
                where=model.name,
                hint=f"Its candidates: {', '.join(map(str, precisions))}.",
            )
    return with_precisions(model, parameters.precisions)


def with_precisions(model: ModelConfig, precisions: Collection[str]) -> ModelConfig:
    """Return the model with only its candidates of these precisions; with all where none is given."""
    candidates = tuple(c for c in model.candidates if not precisions or c.precision in precisions)
    return model.model_copy(update={"candidates": candidates})


def checkpoints_of(model: ModelConfig, parameters: ValidateParameters) -> tuple[CheckpointConfig, ...]:
    """Return the checkpoints, baseline first, each with its revision and all its engine arguments."""
    return tuple(
        checkpoint.model_copy(
            update={
                "revision": parameters.revisions.get(checkpoint.source, checkpoint.revision),
                "engine_arguments": model.engine_arguments
                | checkpoint.engine_arguments
                | parameters.engine_arguments,
            }
        )
        for checkpoint in model.checkpoints
    )


def workload_of(name: str, concurrency: list[int] | None) -> Workload:
    """Read a workload by name or path, with the run's own concurrency levels if it has some."""
    named = Path(name)
    path = named if named.suffix == ".yaml" else ROOT / "configs" / "workloads" / f"{name}.yaml"
    workload = load_yaml(path, Workload)
    if concurrency:
        workload = parse_record(
            Workload, workload.model_dump() | {"concurrency": concurrency}, "--concurrency"
        )
    return workload


def declare_work(parameters: ValidateParameters, home: Home) -> Work:
    """Resolve what does not depend on the host's hardware.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    model = chosen_model(parameters)
    check_revision(model.baseline, parameters.revisions)
    for checkpoint in checkpoints_of(model, parameters):
        check_source(checkpoint.source, checkpoint.precision)
    check_role(model.baseline.precision, model.native_precision, model.baseline.source)
    return work_of(model, parameters, home)


def work_of(model: ModelConfig, parameters: ValidateParameters, home: Home) -> Work:
    """Resolve the work on a model; its checkpoints are not looked at.

    Raises:
        ConfigError: the first thing that is wrong with suite, policy or workload.
    """
    suite = sources.suite_from(
        parameters.tasks or [model.suite],
        family=parameters.family,
        limit=parameters.limit,
        out_dir=home.path / "tasks",
    )
    suite = permitted(model.asked(suite), run_generated_code=parameters.run_generated_code)
    read_text(suite)
    policy_name = parameters.policy or model.policy
    policy = load_policy(policy_name)
    check_policy(policy_name, policy, suite.tasks)
    if parameters.family is not None:
        _check_family(parameters.family, suite, policy_name, policy)
    template = parameters.chat_template
    needs = request_needs(suite)
    return Work(
        name=model.name if parameters.model else parameters.name,
        model=model,
        checkpoints=checkpoints_of(model, parameters),
        suite=suite,
        documents=check_suite(suite),
        answers=(needs.longest, needs.generated_tokens) if needs.longest else None,
        workload=workload_of(parameters.workload or model.workload, parameters.concurrency),
        policy_name=policy_name,
        policy=policy,
        chat_template=model.chat_template if template is None else template,
        full=parameters.full,
    )


def _check_family(family: Family, suite: Suite, policy_name: str, policy: Policy) -> None:
    """Refuse a family for a task that a suite of configs/suites holds to a smaller margin.

    Raises:
        ConfigError: the family's margin is greater.
    """
    for task in suite.tasks:
        known = sources.known_families(task) & policy.families.keys() if task.family is family else set()
        strictest = min(known, key=lambda other: policy.families[other].margin, default=family)
        margins = [policy.families[name].margin for name in (family, strictest)]
        if margins[0] > margins[1]:
            raise ConfigError(
                f"task {task.task} is of family '{strictest}' (margin {margins[1]:g}); '{family}' would allow a loss "
                f"of {margins[0]:g}",
                where=f"--family {family}",
                hint=f"Leave --family out, or declare a policy of your own in place of '{policy_name}'.",
            )


def declare(parameters: ValidateParameters, home: Home) -> Request:
    """Resolve the parameters on this host. The checkpoints are not read yet: that may take long.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    open_bundles(home.bundles)
    work = declare_work(parameters, home)
    check_packages(work.suite)
    devices = _hardware(parameters.gpu)
    name, config = environment.load_engine(parameters.engine, "gpu" if devices.uuids else "cpu")
    check_versions(devices, name, config, load_gpus())
    for checkpoint in work.checkpoints:
        check_arguments(checkpoint, config, work)
        hardware_of(checkpoint, config, devices)
    if not devices.uuids:
        check_memory(work.model, work.checkpoints, config)
    checkpoints = spread(work.model, work.checkpoints, config, devices, Reporter.current())
    for checkpoint in checkpoints:
        hardware_of(checkpoint, config, devices)
    log.kernel_rules()
    return Request(
        **{**vars(work), "checkpoints": checkpoints},
        suite_content=suite_content(work.suite, chat_template=work.chat_template),
        hardware=devices,
        engine_name=name,
        engine=config,
    )


def check_arguments(checkpoint: CheckpointConfig, config: EngineConfig, work: Work) -> None:
    """Check the serving arguments as far as that is possible before a checkpoint is hashed, or pulled.

    Args:
        checkpoint: with all the engine arguments it is served with.
        config: the engine.
        work: its workload's requests must fit the longest context.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    arguments = serving_arguments(config, checkpoint.engine_arguments)
    gpu_count(arguments)
    check_permitted(arguments, checkpoint.allow)
    argument_files.check_arguments(arguments)
    for folder in source_folders(checkpoint.source):
        if (folder / "config.json").is_file():
            check_limits(arguments, folder, work.workload, work.answers)
            if work.chat_template and "chat-template" not in arguments:
                check_chat_template(folder, checkpoint.source)
            return


def _hardware(gpu: str | None) -> Hardware:
    """Return the devices of this host, which must be of the type that is asked for.

    Raises:
        ConfigError: the host has another GPU, or a CPU that can't run the engine.
    """
    devices, listed = hardware.detect(), load_gpus()
    if missing := unlisted(devices.gpu, listed):
        Reporter.current().line(missing)
    if gpu is not None:
        choose_gpu(listed, gpu, "configs/gpus.yaml")
        if devices.gpu != gpu:
            raise ConfigError(
                f"this host has {devices.device_name} ({devices.gpu}), not {gpu}",
                where="GPU type",
                hint="Run it on a host of that type: `quantgate validate --gpu` submits it to its pool.",
            )
    unsuitable = None if devices.uuids else hardware.cpu_unsuitable()
    if unsuitable:
        raise ConfigError(unsuitable, where=devices.device_name, hint="Run it on another machine.")
    return devices


def hardware_of(checkpoint: CheckpointConfig, config: EngineConfig, devices: Hardware) -> Hardware:
    """Return the devices that serve one checkpoint: a 70B baseline may need two, its FP8 candidate one.

    Raises:
        ConfigError: the host has fewer.
    """
    gpus = gpu_count(serving_arguments(config, checkpoint.engine_arguments))
    return devices if gpus == devices.gpu_count else hardware.detect(gpu_count=gpus)
