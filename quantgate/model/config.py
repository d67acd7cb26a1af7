"""Configuration files as typed records: unknown keys are errors that suggest the nearest key."""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from quantgate.model.enums import EngineKind, Family, KernelMode
from quantgate.model.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
"""The checkout or image the application runs from."""

M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """A record that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def fingerprint_of(value: Any) -> str:
    """SHA-256 (hex) of a value's canonical JSON: sorted keys, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class FamilyPolicy(Strict):
    """What a policy asks of one task family."""

    margin: float = Field(gt=0, lt=1, description="Non-inferiority margin, a fraction of the score.")
    min_documents: int = Field(ge=1, description="Fewer paired documents than this validate nothing.")


class Policy(Strict):
    """A named, declared-in-advance policy of validation."""

    description: str
    alpha: float = Field(gt=0, lt=0.5, description="One-sided error rate of a false validation, per task.")
    planned_power: float = Field(gt=0, lt=1, description="Power that 'documents still needed' plans for.")
    stale_after_days: int = Field(gt=0, description="Age at which a verdict or price counts as stale.")
    families: dict[Family, FamilyPolicy]
    uses: dict[str, tuple[Family, ...]] = Field(description="Required families per use; empty: every one.")
    looks: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(),
        description="Shares of a task's documents at which a candidate is judged on its way and may stop; "
        "empty: at the end alone.",
    )
    min_clusters: int = Field(
        default=20, ge=2, description="Fewer clusters (subjects, passages) than this decide nothing."
    )
    aa_documents: int = Field(
        default=200,
        ge=0,
        description="Documents of each task that the baseline answers once more over an engine restart (A/A).",
    )

    @field_validator("uses")
    @classmethod
    def _has_all(cls, uses: dict[str, tuple[Family, ...]]) -> dict[str, tuple[Family, ...]]:
        """`all` is what a table shows first."""
        if uses.get("all") != ():
            raise ValueError("it must have 'all: []', the use that requires every declared family")
        return uses

    def fingerprint(self) -> str:
        """SHA-256 of the policy's content; what came later counts only where it says more than its default."""
        content = self.model_dump(mode="json")
        later = {name: type(self).model_fields[name].default for name in _LATER}
        return fingerprint_of(
            {
                name: value
                for name, value in content.items()
                if name not in later or getattr(self, name) != later[name]
            }
        )


_LATER = ("looks", "min_clusters", "aa_documents")
"""Settings that policies had not from the beginning: their runs' fingerprints stay what they were."""


class PolicyFile(Strict):
    """configs/policy.yaml."""

    policies: dict[str, Policy]


class EngineConfig(Strict):
    """One engine of configs/engines.yaml."""

    description: str
    kind: EngineKind
    distribution: str = Field(description="The package whose version is the engine's version.")
    version: str | None = Field(default=None, description="Expected version; any where empty.")
    python: str | None = Field(default=None, description="Python version an environment is made with (uv).")
    requirements: str | None = Field(default=None, description="Pinned requirements, from the root (uv).")
    interpreter: str | None = Field(default=None, description="The interpreter that has the engine (python).")
    torch_backend: str | None = Field(default=None, description="uv's --torch-backend, e.g. cpu (uv).")
    port: int | None = Field(default=None, ge=1, le=65535, description="Port; a free one if empty.")
    plugins: tuple[str, ...] = Field(
        default=(), description="Local packages installed into it, from the root."
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="Environment variables it runs with."
    )
    arguments: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="Serving arguments without the leading dashes; true is a bare flag."
    )
    start_timeout_s: float = Field(default=600, gt=0, description="Seconds until it must answer /health.")


class EngineFile(Strict):
    """configs/engines.yaml."""

    default: dict[str, str] = Field(description="Engine by kind of hardware: cpu, gpu.")
    engines: dict[str, EngineConfig]


class KernelRule(Strict):
    """What a kernel's name says of how it computes."""

    pattern: str = Field(description="Shell pattern over the kernel's name in the engine's log.")
    kernel_mode: KernelMode
    why: str


class KernelFile(Strict):
    """configs/kernels.yaml: the first rule that fits decides; a kernel that no rule fits is native."""

    rules: tuple[KernelRule, ...]


class GpuConfig(Strict):
    """One accelerator of configs/gpus.yaml (or the CPU)."""

    name: str
    nvml_names: tuple[str, ...] = Field(default=(), description="Names as NVML reports them.")
    sm_arch: str | None = Field(
        default=None, description="SM architecture, e.g. sm_90; found at run time on CPU."
    )
    vram_gb: float | None = Field(default=None, gt=0, description="Memory in decimal GB (10^9 bytes).")
    nvml_memory_mib: int | None = Field(default=None, gt=0, description="NVML's total, MiB (2^20 bytes).")
    bandwidth_gb_s: float | None = Field(default=None, gt=0, description="Memory bandwidth, GB/s (10^9).")
    dense_fp16_tflops: float | None = Field(default=None, gt=0)
    dense_fp8_tflops: float | None = Field(default=None, gt=0)
    dense_fp4_tflops: float | None = Field(default=None, gt=0)
    mig_slices_max: int | None = Field(default=None, ge=0)
    mig_profiles: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="Instances that one GPU holds, by MIG profile (1g.10gb …)."
    )
    interconnect: str | None = Field(default=None, description="GPU to GPU, e.g. NVLink 4.")
    interconnect_gb_s: float | None = Field(
        default=None, gt=0, description="GPU to GPU, both directions together, one GPU, GB/s (10^9)."
    )
    formats: dict[str, Literal["native", "weight_only", "none"]] = Field(
        default_factory=dict, description="What the engine makes of a precision there."
    )
    source: str = Field(description="Of every figure that `sources` doesn't name.")
    sources: dict[str, str] = Field(default_factory=dict, description="Source by figure.")
    note: str | None = None

    @field_validator("sources")
    @classmethod
    def _of_figures(cls, sources: dict[str, str]) -> dict[str, str]:
        """A misspelt figure would leave the real one with the wrong source."""
        for name in sources:
            if name not in cls.model_fields:
                raise ValueError(f"'{name}' is no figure of a GPU")
        return sources


class GpuFile(Strict):
    """configs/gpus.yaml, keyed by the short name that rows carry (h100, cpu …)."""

    gpus: dict[str, GpuConfig]


class SuiteTask(Strict):
    """One lm-eval task of a suite."""

    task: str = Field(description="The task's name as lm-eval knows it.")
    path: str | None = Field(
        default=None, description="Folder of its YAML, or a JSONL; lm-eval's own if empty."
    )
    family: Family = Family.CUSTOM
    metric: str | None = Field(
        default=None, description="Score per document; the task's first metric if empty."
    )
    filter: str | None = Field(default=None, description="lm-eval filter; the task's first if empty.")
    num_fewshot: int | None = Field(
        default=None, ge=0, description="Solved examples in each prompt; as its YAML says if empty."
    )
    max_gen_toks: int | None = Field(
        default=None, ge=1, description="Tokens that an answer may take; as its YAML says if empty."
    )
    thinking_end: str | None = Field(
        default=None,
        min_length=1,
        description="What ends a model's thinking: only what follows it is scored.",
    )
    run_generated_code: bool = Field(
        default=False, description="Permission to run, where it is scored, the code that the model writes."
    )
    documents: int | None = Field(
        default=None, ge=1, description="Documents of data that a hub holds, told before they are pulled."
    )
    clusters: int | None = Field(
        default=None, ge=1, description="Subjects or passages of such data; of a group its subtasks if empty."
    )
    fixed_subjects: bool = Field(
        default=False,
        description="Subtasks, `subject` and `category` are strata: the verdict is about these.",
    )


class Suite(Strict):
    """configs/suites/*.yaml: the tasks a quality run evaluates."""

    name: str
    description: str = ""
    tasks: tuple[SuiteTask, ...] = Field(min_length=1)
    limit: int | None = Field(
        default=None,
        ge=1,
        description="Documents of each task, the first in quantgate.judge.document_order; all if empty.",
    )
    task_timeout_s: float = Field(default=6 * 3600, gt=0, description="Time limit of one task.")
    fidelity: str | None = Field(
        default=None,
        description="Text on which the divergence per token is measured, from the root; configs/fidelity/plain.txt "
        "if empty.",
    )


class Workload(Strict):
    """configs/workloads/*.yaml: a concurrency ladder of one request shape."""

    name: str
    description: str = ""
    isl_tokens: int = Field(ge=1, description="Input sequence length (ISL).")
    osl_tokens: int = Field(ge=2, description="Output sequence length (OSL).")
    concurrency: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    prompts_per_concurrency: int = Field(default=4, ge=1)
    min_prompts: int = Field(default=16, ge=1)
    seed: int = 0
    level_timeout_s: float = Field(default=600, gt=0)

    @field_validator("concurrency")
    @classmethod
    def _each_once(cls, concurrency: tuple[int, ...]) -> tuple[int, ...]:
        """A level's concurrency is its name."""
        if len(set(concurrency)) < len(concurrency):
            raise ValueError("a level stands twice")
        return concurrency


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Keys allowed at a validation error's location, following nested records, maps and lists."""
    node: Any = model
    for part in location:
        if isinstance(node, type) and issubclass(node, BaseModel):
            field = node.model_fields.get(str(part))
            node = field.annotation if field else None
        else:
            arguments = [a for a in get_args(node) if a not in (type(None), Ellipsis)]
            node = arguments[-1] if arguments else None
        while get_args(node) and type(None) in get_args(node):
            node = next(a for a in get_args(node) if a is not type(None))
    return list(node.model_fields) if isinstance(node, type) and issubclass(node, BaseModel) else []


def _explain(model: type[BaseModel], error: Any) -> tuple[str, str]:
    """What is wrong at the first validation error and how to mend it."""
    location = tuple(error["loc"])
    dotted = ".".join(str(part) for part in location) or "top level"
    if error["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.4)
        mend = f"Did you mean '{near[0]}'?" if near else f"Known keys: {', '.join(known)}."
        return f"unknown key '{dotted}'", mend
    if error["type"] == "missing":
        return f"key '{dotted}' is missing", "Add it."
    shown = repr(error.get("input"))[:60]
    message = error["msg"].removeprefix("Value error, ")
    if message[1:2].islower():  # a sentence, not an abbreviation
        message = message[:1].lower() + message[1:]
    return f"key '{dotted}': {message} (found {shown})", "Correct the value."


def explained(model: type[BaseModel], error: ValidationError, where: str) -> ConfigError:
    """The first thing that a validation found wrong, in one line, with the nearest known key."""
    # A misspelt key is also a missing one: what was written tells more than what was not.
    found = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    what, mend = _explain(model, found[0])
    return ConfigError(what, where=where, mend=mend)


def parse_record(model: type[M], data: Any, where: str) -> M:
    """Validate ``data`` as ``model``.

    Raises:
        ConfigError: the first thing that is wrong, in one line, with the nearest known key.
    """
    if not isinstance(data, dict):
        raise ConfigError(
            "expected a mapping of keys to values", where=where, mend="See configs/ for examples."
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise explained(model, error, where) from None


class _UniqueKeys(yaml.constructor.SafeConstructor):
    """For a loader to which a repeated key is an error rather than a silent overwrite."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, refusing a key that stands twice."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key}' stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _Loader(_UniqueKeys, yaml.SafeLoader):
    """Says what stands at a fault."""


# libyaml's, where PyYAML has it: some five times as quick.
_QuickLoader: Any = type("_QuickLoader", (_UniqueKeys, getattr(yaml, "CSafeLoader", yaml.SafeLoader)), {})


def load_yaml(path: Path, model: type[M]) -> M:
    """Read a YAML file as a typed record.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds an unknown key or a bad value.
    """
    shown = _shown(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        others = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, others, n=1)
        mend = f"Did you mean '{near[0]}'?" if near else "Give the path of a YAML file."
        raise ConfigError("no such file", where=shown, mend=mend) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't be read ({error})", where=shown, mend="Check the file.") from None
    try:
        try:
            data = yaml.load(text, Loader=_QuickLoader)  # noqa: S506 - a safe one
        except yaml.YAMLError:
            data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError(problem, where=f"{shown}{line}", mend="Correct the YAML there.") from None
    return parse_record(model, data, shown)


def _shown(path: Path) -> str:
    """The path as a message shows it: from the root where it lies in it."""
    try:
        return str(path.resolve().relative_to(ROOT))
    except ValueError:
        return str(path)


def choose(mapping: dict[str, Any], name: str, where: str) -> Any:
    """The entry called ``name``.

    Raises:
        ConfigError: there is none; the message suggests the nearest name.
    """
    if name in mapping:
        return mapping[name]
    near = difflib.get_close_matches(name, mapping, n=1)
    mend = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(sorted(mapping))}."
    raise ConfigError(f"nothing is called '{name}'", where=where, mend=mend)


def load_policy(name: str, path: Path | None = None) -> Policy:
    """A named policy of configs/policy.yaml (or of another such file)."""
    path = path or ROOT / "configs" / "policy.yaml"
    return cast("Policy", choose(load_yaml(path, PolicyFile).policies, name, _shown(path)))
