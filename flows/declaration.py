"""What a validation declares in advance, checked before Prefect or an engine starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from quantgate.model.config import (
    ROOT,
    EngineConfig,
    Policy,
    Suite,
    Workload,
    load_policy,
    load_yaml,
    parse_record,
)
from quantgate.model.enums import Family
from quantgate.model.errors import ConfigError
from quantgate.model.home import Home
from quantgate.model.records import Hardware
from tasks import engine, engine_env, engine_log, hardware, quality, task_sources
from tasks.checkpoints import check_source
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
    model: str | None = Field(
        default=None, title="Model", description="Name they share in the table; the baseline's own if empty."
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
        default="short", title="Workload", description="A ladder of configs/workloads, or the path of one."
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


@dataclass(frozen=True)
class Declared:
    """Parameters resolved to records."""

    suite: Suite
    documents: dict[str, int | None]
    workload: Workload
    policy: Policy
    hardware: Hardware
    engine_name: str
    engine: EngineConfig


def _workload(parameters: ValidateParameters) -> Workload:
    """The ladder, by name or path, with the run's own levels."""
    named = Path(parameters.workload)
    path = (
        named if named.suffix == ".yaml" else ROOT / "configs" / "workloads" / f"{parameters.workload}.yaml"
    )
    workload = load_yaml(path, Workload)
    if parameters.concurrency:
        levels = {"concurrency": parameters.concurrency}
        workload = parse_record(Workload, workload.model_dump() | levels, "--concurrency")
    return workload


def declare(parameters: ValidateParameters, home: Home) -> Declared:
    """Resolve the parameters; the checkpoints alone are left, reading them may take long.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    for source in (parameters.baseline, *parameters.candidates):
        check_source(source)
    suite = task_sources.suite_from(
        parameters.tasks, family=parameters.family, limit=parameters.limit, out_dir=home.path / "tasks"
    )
    policy = load_policy(parameters.policy)
    check_policy(parameters.policy, policy, suite.tasks)
    workload = _workload(parameters)
    found = hardware.detect()
    name, config = engine_env.load_engine(parameters.engine, "gpu" if found.uuids else "cpu")
    gpus = engine.gpu_count(engine.serving_arguments(config, parameters.engine_arguments))
    if gpus != found.gpu_count:
        found = hardware.detect(gpu_count=gpus)
    unsuitable = None if found.uuids else hardware.cpu_unsuitable()
    if unsuitable:
        raise ConfigError(unsuitable, where=found.device_name, mend="Run it on another machine.")
    engine_log.kernel_rules()
    return Declared(suite, quality.check_suite(suite), workload, policy, found, name, config)
