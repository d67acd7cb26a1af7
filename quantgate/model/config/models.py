"""configs/models/*.yaml: a model's checkpoints, what each should turn out to be, and how it is judged."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from quantgate.model.config.suites import Suite
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import Strict, load_yaml

SHA = r"^[0-9a-f]{40}$"
"""A commit of the hub; a branch or a tag may move."""


class Allowed(Strict):
    """Permissions of a checkpoint; none is given by default."""

    pickle: bool = Field(default=False, description="Weights in pickle files, which can run code.")
    remote_code: bool = Field(default=False, description="Its own code (trust_remote_code).")


class PublishedScore(Strict):
    """Published score of a model's baseline on one of lm-eval's tasks."""

    task: str = Field(description="As lm-eval and a suite name it.")
    metric: str
    filter: str
    score: float = Field(ge=0, le=1, description="A fraction.")
    documents: int | None = Field(default=None, ge=1, description="Documents that it was measured on.")
    comparable: bool = Field(
        default=True,
        description="True if it was measured with the task's own settings; otherwise it is shown without a warning.",
    )
    source: str
    note: str | None = None


class CheckpointConfig(Strict):
    """One checkpoint: its source, and what its files must turn out to be."""

    source: str = Field(description="Folder (from the root), or hub id org/name.")
    precision: str | None = Field(
        default=None, description="Expected precision; the files decide, and a difference is an error."
    )
    revision: str | None = Field(
        default=None, pattern=SHA, description="Commit; pinned at the first pull where it is empty."
    )
    kv_cache_dtype: str | None = Field(
        default=None,
        description="KV cache that its files declare, e.g. fp8, to count the GPUs of a hub id before it is pulled.",
    )
    gated: bool = Field(default=False, description="True if the hub requires accepted terms and a token.")
    allow: Allowed = Allowed()
    engine_arguments: dict[str, Any] = Field(
        default_factory=dict, description="Serving arguments of this checkpoint, on top of its model's."
    )

    @model_validator(mode="after")
    def _pinned_code(self) -> CheckpointConfig:
        """Require a fixed revision of a checkpoint that may run code, so that it runs the code that was reviewed."""
        if (self.allow.pickle or self.allow.remote_code) and self.revision is None:
            raise ValueError(
                "'allow' needs a pinned 'revision': what runs code must not change under its name"
            )
        return self


class ModelConfig(Strict):
    """One model: its baseline and candidates, and how they are served and judged."""

    name: str = Field(description="The name that its rows carry, and by which `validate` finds it.")
    architecture: str | None = Field(default=None, description="A key of configs/architectures.")
    parameters_billions: float | None = Field(default=None, gt=0, description="In all, in units of 10^9.")
    active_parameters_billions: float | None = Field(
        default=None, gt=0, description="Per token, in units of 10^9; the same as in all for a dense model."
    )
    native_precision: str | None = Field(
        default=None,
        description="Precision of its own weights where they are quantized, e.g. fp8: its baseline may have it.",
    )
    chat_template: bool = Field(
        default=False, description="True if prompts go through the checkpoint's own chat template."
    )
    max_gen_toks: int | None = Field(
        default=None, ge=1, description="Most tokens of an answer, in place of its tasks' own limits."
    )
    thinking_end: str | None = Field(
        default=None,
        min_length=1,
        description="Text that ends its thinking, e.g. </think>; the suite's if empty.",
    )
    baseline: CheckpointConfig
    candidates: tuple[CheckpointConfig, ...] = Field(min_length=1)
    suite: str = Field(description="The tasks that matter for it: a suite of configs/suites.")
    workload: str
    policy: str
    engine_arguments: dict[str, Any] = Field(
        default_factory=dict, description="Serving arguments of all its checkpoints."
    )
    published: tuple[PublishedScore, ...] = Field(
        default=(), description="Scores of the baseline, shown beside the measured ones."
    )
    source: str | None = Field(default=None, description="Where the figures and ids are published.")
    note: str | None = None

    @field_validator("published")
    @classmethod
    def _each_score_once(cls, published: tuple[PublishedScore, ...]) -> tuple[PublishedScore, ...]:
        """Refuse two published scores for one measured score."""
        keys = [(score.task, score.metric, score.filter) for score in published]
        if len(set(keys)) < len(keys):
            raise ValueError("a task, metric and filter are listed twice")
        return published

    def asked(self, suite: Suite) -> Suite:
        """Return a suite as this model is asked it: with the model's own token limit and end of thinking."""
        own = {"max_gen_toks": self.max_gen_toks, "thinking_end": self.thinking_end}
        update = {name: value for name, value in own.items() if value is not None}
        return suite.model_copy(
            update={"tasks": tuple(task.model_copy(update=update) for task in suite.tasks)}
        )

    @property
    def checkpoints(self) -> tuple[CheckpointConfig, ...]:
        """All checkpoints, the baseline first."""
        return (self.baseline, *self.candidates)


def load_models(folder: Path = ROOT / "configs" / "models") -> dict[str, ModelConfig]:
    """Read every model of the folder, by name.

    Raises:
        ConfigError: a file is wrong, or a name is listed twice.
    """
    models: dict[str, ModelConfig] = {}
    for path in sorted(folder.glob("*.yaml")):
        model = load_yaml(path, ModelConfig)
        if model.name in models:
            raise ConfigError(
                f"a second model is called '{model.name}'", where=str(path.name), hint="Rename one."
            )
        models[model.name] = model
    return models


def load_model(name: str) -> ModelConfig:
    """Read the model of configs/models that has the name.

    Raises:
        ConfigError: there is none; the message suggests the nearest name, or the model that it is a checkpoint of.
    """
    models = load_models()
    if name in models:
        return models[name]
    raise ConfigError(f"nothing is called '{name}'", where="configs/models", hint=_suggestion(name, models))


def _suggestion(name: str, models: dict[str, ModelConfig]) -> str:
    """Suggest what was meant, whatever its letter case."""
    wanted = name.casefold()
    for model in models.values():
        if wanted in {checkpoint.source.casefold() for checkpoint in model.checkpoints}:
            return f"It is a checkpoint of '{model.name}'; name that."
    if "/" in name:
        return "Name a checkpoint of your own with --baseline or --candidate."
    by_case = {known.casefold(): known for known in models}
    begun = [known for known in by_case if known.startswith(wanted)]
    near = [wanted] if wanted in by_case else begun or difflib.get_close_matches(wanted, by_case, n=1)
    if near:
        return f"Did you mean {' or '.join(repr(by_case[name]) for name in near)}?"
    return f"Known: {', '.join(sorted(models))}."
