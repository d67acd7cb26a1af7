"""What a validation declares in advance, checked before Prefect or an engine starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.parameters import DEFAULT_POLICY, DEFAULT_WORKLOAD, ValidateParameters
from flows.planning.gpu_fit import spread
from quantgate.bundles.store import open_bundles
from quantgate.judge.judge import check_policy
from quantgate.model.config.engines import EngineConfig
from quantgate.model.config.gpus import GpuFile
from quantgate.model.config.models import CheckpointConfig, ModelConfig, load_model
from quantgate.model.config.policy import Policy, load_policy
from quantgate.model.config.suites import Suite
from quantgate.model.config.workloads import Workload
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT, Home
from quantgate.model.records import Hardware
from quantgate.model.yaml_file import choose, load_yaml, parse_record
from tasks.checkpoint.resolve import check_source
from tasks.device import hardware
from tasks.engine import argument_files, environment, limits, log
from tasks.engine import server as engine
from tasks.fidelity.text import read_text
from tasks.progress import Reporter
from tasks.quality import evaluate, sources
from tasks.quality.requirements import check_packages, permitted


@dataclass(frozen=True)
class Declared:
    """Parameters resolved to records."""

    name: str | None
    checkpoints: tuple[CheckpointConfig, ...]
    """Baseline first; engine arguments are those of model, checkpoint and run together."""
    suite: Suite
    suite_content: dict[str, Any]
    """What the suite measures, for fingerprints: hashed once."""
    documents: dict[str, int | None]
    workload: Workload
    policy_name: str
    policy: Policy
    chat_template: bool
    full: bool
    hardware: Hardware
    engine_name: str
    engine: EngineConfig


def chosen_model(parameters: ValidateParameters) -> ModelConfig:
    """The model of configs/models, or one made of the parameters' own checkpoints.

    Raises:
        ConfigError: neither or both are given, or a precision is none of the model's.
    """
    if parameters.model is None:
        if parameters.baseline is None or not parameters.candidates:
            given = "no baseline is named" if parameters.candidates else "no model and no candidate is named"
            raise ConfigError(
                given,
                where="validate",
                hint="Name a model of configs/models, or give a baseline and at least one candidate.",
            )
        if parameters.precisions:
            raise ConfigError(
                "'precisions' chooses among a model's candidates, and no model is named",
                where="validate",
                hint="Leave it out, or name a model.",
            )
        if parameters.tasks is None:
            raise ConfigError(
                "no tasks are named", where="validate", hint="Give a suite, task, YAML or JSONL."
            )
        return ModelConfig(
            name=parameters.name or parameters.baseline,
            baseline=_given(parameters.baseline),
            candidates=tuple(map(_given, parameters.candidates)),
            suite=parameters.tasks,
            workload=parameters.workload or DEFAULT_WORKLOAD,
            policy=parameters.policy or DEFAULT_POLICY,
        )
    if parameters.baseline is not None or parameters.candidates:
        raise ConfigError(
            "a model and checkpoints of its own are both named",
            where=parameters.model,
            hint="Give one of the two.",
        )
    model = load_model(parameters.model)
    known = [candidate.precision for candidate in model.candidates]
    for precision in parameters.precisions:
        if precision not in known:
            raise ConfigError(
                f"no candidate is declared as '{precision}'",
                where=model.name,
                hint=f"Its candidates: {', '.join(str(one) for one in known)}.",
            )
    wanted = [
        c for c in model.candidates if not parameters.precisions or c.precision in parameters.precisions
    ]
    return model.model_copy(update={"candidates": tuple(wanted)})


def _given(source: str) -> CheckpointConfig:
    return CheckpointConfig(source=source)


def checkpoints_of(model: ModelConfig, parameters: ValidateParameters) -> tuple[CheckpointConfig, ...]:
    """Baseline first, each with its revision and with all the engine arguments it is served with."""
    return tuple(
        one.model_copy(
            update={
                "revision": parameters.revisions.get(one.source, one.revision),
                "engine_arguments": model.engine_arguments
                | one.engine_arguments
                | parameters.engine_arguments,
            }
        )
        for one in (model.baseline, *model.candidates)
    )


def chat_template_of(model: ModelConfig, parameters: ValidateParameters) -> bool:
    """Whether prompts go through the checkpoint's chat template: as the run says, else as the model does."""
    return model.chat_template if parameters.chat_template is None else parameters.chat_template


def workload_of(name: str, concurrency: list[int] | None) -> Workload:
    """The ladder, by name or path, with the run's own levels."""
    named = Path(name)
    path = named if named.suffix == ".yaml" else ROOT / "configs" / "workloads" / f"{name}.yaml"
    workload = load_yaml(path, Workload)
    if concurrency:
        workload = parse_record(
            Workload, workload.model_dump() | {"concurrency": concurrency}, "--concurrency"
        )
    return workload


@dataclass(frozen=True)
class Work:
    """What is to be measured, whatever host does it."""

    model: ModelConfig
    checkpoints: tuple[CheckpointConfig, ...]
    """Baseline first; engine arguments are those of model, checkpoint and run together."""
    suite: Suite
    documents: dict[str, int | None]
    workload: Workload
    policy_name: str
    policy: Policy


def declare_work(parameters: ValidateParameters, home: Home) -> Work:
    """Resolve what does not depend on the host's hardware.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    model = chosen_model(parameters)
    checkpoints = checkpoints_of(model, parameters)
    for checkpoint in checkpoints:
        check_source(checkpoint.source, checkpoint.precision)
    suite = sources.suite_from(
        parameters.tasks or model.suite,
        family=parameters.family,
        limit=parameters.limit,
        out_dir=home.path / "tasks",
    )
    suite = permitted(model.asked(suite), run_generated_code=parameters.run_generated_code)
    read_text(suite)
    policy_name = parameters.policy or model.policy
    policy = load_policy(policy_name)
    check_policy(policy_name, policy, suite.tasks)
    return Work(
        model=model,
        checkpoints=checkpoints,
        suite=suite,
        documents=evaluate.check_suite(suite),
        workload=workload_of(parameters.workload or model.workload, parameters.concurrency),
        policy_name=policy_name,
        policy=policy,
    )


def declare(parameters: ValidateParameters, home: Home) -> Declared:
    """Resolve the parameters; the checkpoints alone are left, reading them may take long.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    open_bundles(home.bundles)
    work = declare_work(parameters, home)
    check_packages(work.suite)
    model = work.model
    found = _hardware(parameters.gpu)
    name, config = environment.load_engine(parameters.engine, "gpu" if found.uuids else "cpu")
    chat = chat_template_of(model, parameters)
    for checkpoint in work.checkpoints:
        check_arguments(checkpoint, config, work.workload, chat_template=chat)
        hardware_of(checkpoint, config, found)
    checkpoints = spread(model, work.checkpoints, config, found, Reporter.current())
    for checkpoint in checkpoints:
        hardware_of(checkpoint, config, found)
    log.kernel_rules()
    return Declared(
        name=model.name if parameters.model else parameters.name,
        checkpoints=checkpoints,
        suite=work.suite,
        suite_content=evaluate.suite_content(work.suite, chat_template=chat),
        documents=work.documents,
        workload=work.workload,
        policy_name=work.policy_name,
        policy=work.policy,
        chat_template=chat,
        full=parameters.full,
        hardware=found,
        engine_name=name,
        engine=config,
    )


def check_arguments(
    checkpoint: CheckpointConfig, config: EngineConfig, workload: Workload, *, chat_template: bool
) -> None:
    """What serving arguments can be told wrong in before a checkpoint is hashed, or pulled.

    Args:
        checkpoint: with all the engine arguments it is served with.
        config: the engine.
        workload: whose requests must fit its longest context.
        chat_template: whether prompts go through the checkpoint's.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    arguments = engine.serving_arguments(config, checkpoint.engine_arguments)
    engine.gpu_count(arguments)
    argument_files.check(arguments)
    for folder in (Path(checkpoint.source).expanduser(), ROOT / checkpoint.source):
        if (folder / "config.json").is_file():
            limits.check(arguments, folder, workload)
            if chat_template and "chat-template" not in arguments:
                evaluate.check_chat_template(folder, checkpoint.source)
            return


def _hardware(gpu: str | None) -> Hardware:
    """What this host has, which must be what is asked for.

    Raises:
        ConfigError: it has another GPU, or a CPU that can't run the engine.
    """
    found = hardware.detect()
    if gpu is not None:
        known = load_yaml(ROOT / "configs" / "gpus.yaml", GpuFile).gpus
        choose(known, gpu, "configs/gpus.yaml")
        if found.gpu != gpu:
            raise ConfigError(
                f"this host has {found.device_name} ({found.gpu}), not {gpu}",
                where="GPU type",
                hint="Run it on a host of that type: `quantgate validate --gpu` submits it to its pool.",
            )
    unsuitable = None if found.uuids else hardware.cpu_unsuitable()
    if unsuitable:
        raise ConfigError(unsuitable, where=found.device_name, hint="Run it on another machine.")
    return found


def hardware_of(checkpoint: CheckpointConfig, config: EngineConfig, found: Hardware) -> Hardware:
    """The devices that one checkpoint is served on: a 70B baseline may need two, its FP8 candidate one.

    Raises:
        ConfigError: the host has fewer.
    """
    gpus = engine.gpu_count(engine.serving_arguments(config, checkpoint.engine_arguments))
    return found if gpus == found.gpu_count else hardware.detect(gpu_count=gpus)
