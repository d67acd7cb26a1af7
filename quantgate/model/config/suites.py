"""configs/suites/*.yaml: the tasks that a quality run evaluates."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from quantgate.model.enums import Family
from quantgate.model.yaml_file import Strict

TASK_NAME = r"^[^./\\\x00][^/\\\x00]*$"
"""A task's name is a folder's, too: it leads nowhere else."""


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
        default=None, ge=1, description="Most tokens of an answer; as its YAML says if empty."
    )
    thinking_end: str | None = Field(
        default=None,
        min_length=1,
        description="Text that ends a model's thinking: only what follows it is scored.",
    )
    run_generated_code: bool = Field(
        default=False,
        description="Permission to run the code that the model writes, on the machine that scores it.",
    )
    documents: int | None = Field(
        default=None,
        ge=1,
        description="Number of documents of a hub's data, declared before they are downloaded.",
    )
    clusters: int | None = Field(
        default=None,
        ge=1,
        description="Number of subjects or passages of such data; of a group its subtasks if empty.",
    )
    fixed_subjects: bool = Field(
        default=False,
        description="Subtasks, `subject` and `category` are strata: the verdict is about these very ones.",
    )
    floor: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Score of an answer that ignores the question, a fraction; of generated text 0 if empty.",
    )

    @field_validator("task")
    @classmethod
    def _name_of_a_folder(cls, name: str) -> str:
        if not re.fullmatch(TASK_NAME, name):
            raise ValueError("is a path, and a task's name has no '/' or '\\' and begins with no dot")
        return name


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
        description="Text on which the divergence per token is measured, a path from the root; "
        "configs/fidelity/plain.txt if empty.",
    )
