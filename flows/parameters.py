"""Parameters of the flows: each is written once, for Prefect's form, for the command line and for the record itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from quantgate.model.config.engines import EngineFile
from quantgate.model.config.gpus import GpuFile
from quantgate.model.config.models import load_model, load_models
from quantgate.model.config.policy import PolicyFile
from quantgate.model.enums import Family
from quantgate.model.home import ROOT
from quantgate.model.secrets import refuse_secrets
from quantgate.model.yaml_file import explained, load_yaml

DEFAULT_WORKLOAD = "short"
DEFAULT_POLICY = "standard"
QUICK_DOCUMENTS, QUICK_CONCURRENCY = 50, 4
"""Documents of each task, and the concurrency level, of the demo's quick form."""


@dataclass(frozen=True)
class CliOption:
    """The form in which the command line offers a field, where the field's own name and description do not say it.

    ``commands.options`` makes an option of every field; a name without dashes makes it an argument.
    """

    name: str = ""
    help: str = ""
    metavar: str = ""
    shown: bool = True

    @classmethod
    def of(cls, field: FieldInfo) -> CliOption:
        """Return the form that a field is marked with, or the plain one."""
        return next((mark for mark in field.metadata if isinstance(mark, cls)), cls())

    @property
    def is_argument(self) -> bool:
        """Return True if the field is an argument, not an option."""
        return bool(self.name) and not self.name.startswith("-")

    def flag(self, field_name: str) -> str:
        """Return the option's name, such as ``--update-pins``."""
        return self.name or f"--{field_name.replace('_', '-')}"


FORM_ONLY = CliOption(shown=False)
"""Marks a field that Prefect's form offers and the command line does not."""

ADVANCED = "advanced"
"""Marks a field that Prefect's form shows after the others."""


class Parameters(BaseModel):
    """Parameters of a flow; an unknown one is refused, so that a misspelt one does not change what is measured.

    Raises:
        ConfigError: a parameter is unknown, missing or wrong, or holds a secret. It is not a ValueError: pydantic and
            Prefect would turn that into many lines, and the run's state shows this one line.
    """

    model_config = ConfigDict(
        extra="forbid", field_title_generator=lambda name, _: name.replace("_", " ").capitalize()
    )

    @model_validator(mode="wrap")
    @classmethod
    def _one_line(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        where = f"parameters of {cls.__name__.removesuffix('Parameters').lower()}"
        refuse_secrets(data, where)
        try:
            return handler(data)
        except ValidationError as error:
            raise explained(cls, error, where) from None


def _offering(names: Callable[[], Iterable[str]]) -> Any:
    """Make a form offer these names, which are read from configs/ when the form is made."""

    def offer(schema: dict[str, Any]) -> None:
        schema["enum"] = sorted(names())

    return Field(json_schema_extra=offer)


def _precisions() -> set[str]:
    return {
        str(candidate.precision)
        for model in load_models().values()
        for candidate in model.candidates
        if candidate.precision
    }


def _keys(file: str, record: type[BaseModel], field: str) -> Callable[[], Iterable[str]]:
    return lambda: getattr(load_yaml(ROOT / "configs" / file, record), field)


def _listed(given: Any) -> Any:
    """Return a list of what was given plainly: deployments and schedules of before name their tasks by one text."""
    if given is None:
        return []
    return [given] if isinstance(given, str) else given


ModelName = Annotated[str, _offering(load_models)]
Precision = Annotated[str, _offering(_precisions)]
PolicyName = Annotated[str, _offering(_keys("policy.yaml", PolicyFile, "policies"))]
GpuName = Annotated[str, _offering(_keys("gpus.yaml", GpuFile, "gpus"))]
EngineName = Annotated[str, _offering(_keys("engines.yaml", EngineFile, "engines"))]


class PublishMode(StrEnum):
    """The party that loads the bundles into the warehouse and publishes the table."""

    HERE = "here"
    FLEET = "fleet"
    NOBODY = "nobody"


class ValidateParameters(Parameters):
    """Choose a model, or name a baseline, candidates and tasks of your own. An empty field has its default."""

    model: Annotated[ModelName | None, CliOption("model")] = Field(
        default=None,
        description="Choose a model of configs/models. It brings its checkpoints, tasks, workload and policy.",
    )
    precisions: Annotated[list[Precision], CliOption("--precision", metavar="NAME")] = Field(
        default_factory=list,
        description="Measure only the model's candidates of this precision. Default: all of them.",
    )
    baseline: Annotated[str | None, CliOption(metavar="FOLDER|HUB_ID")] = Field(
        default=None,
        description="Compare the candidates with this checkpoint, in place of a model's: a folder or a hub id "
        "(org/name[@revision]).",
    )
    candidates: Annotated[list[str], CliOption("--candidate", metavar="FOLDER|HUB_ID")] = Field(
        default_factory=list,
        description="Validate this quantized checkpoint, in place of a model's: a folder or a hub id.",
    )
    name: Annotated[str | None, CliOption(metavar="NAME")] = Field(
        default=None, description="Call these checkpoints so in the table. Default: the baseline's name."
    )
    tasks: Annotated[list[str], BeforeValidator(_listed), CliOption("--tasks", metavar="NAME|PATH")] = Field(
        default_factory=list,
        description="Measure quality with these tasks: a suite of configs/suites, an lm-eval task or group, an lm-eval "
        "YAML file, or a JSONL file of prompts and answers. Several make one suite. Default: the model's suite.",
    )
    family: Annotated[Family | None, ADVANCED] = Field(
        default=None, description="Give this family to tasks that declare none. It sets their margin."
    )
    limit: Annotated[int | None, CliOption(metavar="N")] = Field(
        default=None,
        ge=1,
        description="Ask only the first N documents of each task, in the task's fixed random order. Default: all. "
        "Under a policy with interim looks, an INCONCLUSIVE run continues when the limit is raised or left out.",
    )
    full: Annotated[bool, ADVANCED] = Field(
        default=False,
        description="Turn interim looks off: candidates answer every document and are judged once. Refused for a "
        "candidate that has already had an interim look.",
    )
    workload: Annotated[str | None, CliOption(metavar="NAME|PATH"), ADVANCED] = Field(
        default=None,
        description="Measure throughput with this concurrency sweep: a name in configs/workloads, or the path of a "
        f"YAML file. Default: the model's, or '{DEFAULT_WORKLOAD}'.",
    )
    concurrency: Annotated[list[int] | None, CliOption(metavar="N,N,…"), ADVANCED] = Field(
        default=None, description="Measure these concurrency levels in place of the workload's, e.g. 1,8,32."
    )
    policy: Annotated[PolicyName | None, CliOption(metavar="NAME")] = Field(
        default=None,
        description=f"Judge by this policy of configs/policy.yaml. Default: the model's, or '{DEFAULT_POLICY}'.",
    )
    gpu: Annotated[GpuName | None, FORM_ONLY] = Field(
        default=None,
        title="GPU",
        description="Run only on a host with this GPU type, a key of configs/gpus.yaml. Default: any.",
    )
    engine: Annotated[EngineName | None, CliOption(metavar="NAME"), ADVANCED] = Field(
        default=None,
        description="Serve with this engine of configs/engines.yaml. Default: the one for the host's hardware.",
    )
    engine_arguments: Annotated[
        dict[str, Any],
        CliOption(
            "--engine-arg",
            "Serving argument. It overrides the engine's own of the same key; null removes that one. Its value is read "
            "as YAML: max-model-len=4096, lora-modules={name: FOLDER}.",
        ),
        ADVANCED,
    ] = Field(
        default_factory=dict,
        description="Give the engine these serving arguments, without dashes, in place of its own, e.g. "
        '{"max-model-len": 4096}.',
    )
    chat_template: Annotated[bool | None, ADVANCED] = Field(
        default=None,
        description="Send prompts through the checkpoint's own chat template, or as plain text. Default: as the model "
        "declares.",
    )
    revisions: Annotated[dict[str, str], FORM_ONLY, ADVANCED] = Field(
        default_factory=dict,
        description="Measure these commits, by hub id. Default: the pinned or newest ones.",
    )
    update_pins: Annotated[bool, ADVANCED] = Field(
        default=False,
        description="Measure the newest commit of a hub repository's main branch instead of the pinned one.",
    )
    afterwards: Annotated[PublishMode, FORM_ONLY, ADVANCED] = Field(
        default=PublishMode.HERE,
        title="Load and publish",
        description="Choose who loads the results and publishes the table. here: this host; fleet: the deployments of "
        "the CPU pool; nobody: it is left to the caller.",
    )
    run_generated_code: Annotated[bool, ADVANCED] = Field(
        default=False,
        description="Allow tasks that run the programs a model writes, on the host that evaluates them.",
    )
    fresh: bool = Field(
        default=False,
        description="Measure again what was measured before, for example to look for drift. The first verdict stays "
        "in force.",
    )


class MatrixParameters(Parameters):
    """Choose what to measure where. A field that is left empty is as configs/fleet.yaml says."""

    models: Annotated[list[ModelName], CliOption("--model", metavar="NAME")] = Field(
        default_factory=list,
        description="Measure this model of configs/models. Default: as configs/fleet.yaml says.",
    )
    precisions: Annotated[list[Precision], CliOption("--precision", metavar="NAME")] = Field(
        default_factory=list,
        description="Measure only candidates of this precision. Default: as configs/fleet.yaml says.",
    )
    pools: Annotated[list[str], CliOption("--pool", metavar="NAME")] = Field(
        default_factory=list,
        description="Measure on this pool of configs/fleet.yaml. Default: the pools of that file's matrix, or else "
        "every pool that has hosts.",
    )
    budget_usd: Annotated[float | None, CliOption(metavar="USD")] = Field(
        default=None,
        gt=0,
        title="Budget, USD",
        description="Spend at most this in total by the high end of the runs' estimates, in USD. Runs start in "
        "the order of configs/fleet.yaml and stop before the total exceeds this. Default: as configs/fleet.yaml says.",
    )
    everything: bool = Field(
        default=False,
        description="Also dispatch runs that are already measured. A host that has the result reuses it.",
    )
    dry_run: bool = Field(
        default=False,
        description="Only show what would run, where and at what cost. This needs no server.",
    )
    wait_h: Annotated[float, FORM_ONLY] = Field(
        default=20,
        gt=0,
        title="Wait, h",
        description="Wait so many hours for a run. A run that takes longer goes on, and counts as failed.",
    )


class DemoParameters(Parameters):
    """Parameters of the flow ``demo``."""

    fresh: bool = Field(default=False, description="Measure again what was measured before.")
    quick: bool = Field(
        default=False,
        description=f"Measure one candidate with {QUICK_DOCUMENTS} documents of each task at one concurrency level. "
        "This is too little for a verdict.",
    )

    def validation(self) -> ValidateParameters:
        """Return the validation that the demo is."""
        model = load_model("quantgate-demo")
        return ValidateParameters(
            model=model.name,
            precisions=[str(model.candidates[-1].precision)] if self.quick else [],
            limit=QUICK_DOCUMENTS if self.quick else None,
            concurrency=[QUICK_CONCURRENCY] if self.quick else None,
            fresh=self.fresh,
        )
