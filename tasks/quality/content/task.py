"""A task by what it asks and how it is scored."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from lm_eval.utils import handle_non_serializable

from quantgate.model.config.suites import SuiteTask
from quantgate.model.records import TaskContent
from tasks.quality.content.document import Content, Question, content_of, question_of
from tasks.quality.content.near import near_clusters, near_copies
from tasks.quality.content.text import normalised

HASH_DIGITS = 16
"""Hexadecimal digits by which a document is known in `TaskContent.document_hashes`."""


class Part(NamedTuple):
    """An lm-eval task, or one of a group's, with all its documents."""

    task: Any
    documents: Sequence[Any]
    questions: Sequence[Question | None]
    contents: Sequence[Content]

    @classmethod
    def of(cls, task: Any, documents: Sequence[Any]) -> Part:
        """Read what each document asks."""
        questions = [question_of(task, document) for document in documents]
        contents = [content_of(*both) for both in zip(documents, questions, strict=True)]
        return cls(task, documents, questions, contents)


class Scored(NamedTuple):
    """How a task's answers become scores."""

    metric: str
    filter: str


def task_content(
    task: SuiteTask, parts: Iterable[Part], scored: Scored, *, chat_template: bool
) -> TaskContent:
    """Return a task by what it asks: not its name, its family, its files, nor ids and order of its documents.

    Args:
        task: the suite's.
        parts: of a group each subtask, else the task itself.
        scored: its metric and filter.
        chat_template: whether prompts go through one.
    """
    parts = list(parts)
    by_content = {
        content.normalised: question
        for part in parts
        for question, content in zip(part.questions, part.contents, strict=True)
    }
    asked = {_hash(_asked(task, part.task, scored, chat_template=chat_template)) for part in parts}
    unique = sorted(by_content)
    near, clustered = near_counts(parts)
    return TaskContent(
        task=task.task,
        content_sha256=_hash({"documents": unique, "asked": sorted(asked)}),
        documents=len(unique),
        copies=sum(len(part.documents) for part in parts) - len(unique),
        near_copies=near,
        near_clusters=clustered,
        floor=max(floor_of(by_content.values()), task.floor or 0.0),
        document_hashes=tuple(content[:HASH_DIGITS] for content in unique),
    )


def near_counts(parts: Iterable[Part]) -> tuple[int, int]:
    """Return how many documents have a near-copy, and how many are clustered with near-copies.

    Args:
        parts: of a group each subtask, else the task itself.
    """
    near, clustered = 0, 0
    for part in parts:
        unique = dict(zip((content.normalised for content in part.contents), part.questions, strict=True))
        questions = [unique[content] for content in sorted(unique)]
        earlier = near_copies(questions)
        near += len({number for pair in enumerate(earlier) if pair[1] is not None for number in pair})
        clustered += sum(leader is not None for leader in near_clusters(questions))
    return near, clustered


def floor_of(questions: Iterable[Question | None]) -> float:
    """Return the score of an answer that ignores the question; 0 where answers are generated.

    Among choices it is the greater of guessing and of what is right most often, by its place or by its text.

    Args:
        questions: of each document once.
    """
    chosen = [question for question in questions if question and question.choices]
    if not chosen:
        return 0.0
    guessed = sum(max(1, len(set(q.right))) / len(q.choices or ()) for q in chosen) / len(chosen)
    places = Counter(index for q in chosen for index in set(q.right))
    texts = Counter(text for q in chosen for text in {normalised(str((q.choices or ())[p])) for p in q.right})
    commonest = max([*places.values(), *texts.values()], default=0)
    return min(1.0, max(guessed, commonest / len(chosen)))


def _asked(task: SuiteTask, loaded: Any, scored: Scored, *, chat_template: bool) -> dict[str, Any]:
    """Return how an lm-eval task (0.4.13) asks its documents and scores their answers."""
    config = loaded.config
    shots = int(config.num_fewshot or 0)
    asked: dict[str, Any] = {
        "output_type": loaded.OUTPUT_TYPE,
        "chat_template": chat_template,
        "description": _said(config.description),
        "gen_prefix": _said(config.gen_prefix),
        "target_delimiter": _said(config.target_delimiter),
        "num_fewshot": shots,
        "metric": _metric(config, scored.metric),
        "filter": _filter(config, scored.filter),
        "process_results": _named(config.process_results),
        "thinking_end": task.thinking_end,
    }
    if shots:
        asked["fewshot"] = {
            "split": config.fewshot_split,
            "dataset": config.dataset_name,
            "delimiter": _said(config.fewshot_delimiter),
            **_settings(config),
        }
    if loaded.OUTPUT_TYPE == "generate_until":
        asked |= {"generation": config.generation_kwargs, "repeats": int(config.repeats or 1)}
    return asked


def _said(text: Any) -> Any:
    return normalised(text) if isinstance(text, str) else text


def _metric(config: Any, metric: str) -> Any:
    """Return a metric with its settings, as far as the task gives any."""
    for entry in config.metric_list or ():
        name = entry.get("metric")
        if metric in (name, getattr(name, "__name__", None)):
            return {
                key: value for key, value in entry.items() if key not in ("aggregation", "higher_is_better")
            }
    return {"metric": metric}


def _filter(config: Any, name: str) -> Any:
    """Return the steps of a filter, whatever its name."""
    steps = [entry["filter"] for entry in config.filter_list or () if entry["name"] == name]
    return steps[0] if steps else [{"function": "take_first"}]


def _settings(config: Any) -> dict[str, Any]:
    """Return the settings of a task's examples that are not those of its documents."""
    fewshot = config.fewshot_config
    settings = {field.name: getattr(fewshot, field.name) for field in fields(fewshot)}
    return {k: v for k, v in settings.items() if v is not None and v != getattr(config, k, None)}


def _named(value: Any) -> Any:
    """Return a value for a hash: a function counts by its source, wherever it lies."""
    if not callable(value):
        return value
    try:
        return "".join(inspect.getsource(value).split())
    except (OSError, TypeError):
        return getattr(value, "__qualname__", type(value).__name__)


def _hash(value: Any) -> str:
    def written(inner: Any) -> Any:
        return _named(inner) if callable(inner) else handle_non_serializable(inner)

    return hashlib.sha256(json.dumps(value, default=written, sort_keys=True).encode()).hexdigest()
