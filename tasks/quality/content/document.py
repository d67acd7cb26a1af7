"""A document by what it asks: its prompt, its choices and what is right, whatever its id and other columns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from lm_eval.utils import handle_non_serializable

from tasks.quality.content.text import normalised


class Question(NamedTuple):
    """What a document asks, as it is written."""

    text: Any
    """The prompt; of a task whose choices are prompts, nothing."""
    choices: list[Any] | None
    target: Any
    """What is right; the texts of choices where the task gives their places."""
    right: tuple[int, ...] = ()
    """Places of the right choices, from 0, as far as they are known."""


class Content(NamedTuple):
    """Hashes of a document's content, each SHA-256 in hexadecimal digits."""

    normalised: str
    """The same for all copies."""
    exact: str
    """Of the texts as they are written, which tells copies apart."""


def question_of(task: Any, document: Any) -> Question | None:
    """Return what a document asks without examples; None where the task can't say, or asks more than text.

    Args:
        task: an lm-eval task (0.4.13).
        document: one of its documents.
    """
    config = task.config
    if getattr(config, "doc_to_image", None) or getattr(config, "doc_to_audio", None):
        return None
    try:
        text, target = task.doc_to_text(document), task.doc_to_target(document)
        has_choices = task.OUTPUT_TYPE == "multiple_choice" or config.doc_to_choice is not None
        choices = list(task.doc_to_choice(document)) if has_choices else None
    except Exception:  # a task's own code may raise anything; lm-eval says what is wrong where it matters
        return None
    if choices is None:
        return Question(text, None, target)
    if _is_place(text, choices):  # the choices are prompts, and the target is what continues them
        return Question(None, choices, [choices[text], target], (text,))
    golds = target if isinstance(target, list) else [target]
    right = tuple(index for gold in golds if (index := _place(gold, choices)) is not None)
    texts = [choices[gold] if _is_place(gold, choices) else gold for gold in golds]
    return Question(text, choices, texts if isinstance(target, list) else texts[0], right)


def _is_place(value: Any, choices: list[Any]) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(choices)


def _place(gold: Any, choices: list[Any]) -> int | None:
    """Return the place of a right choice that is given by place or by text."""
    if _is_place(gold, choices):
        return int(gold)
    return choices.index(gold) if gold in choices else None


def content_of(document: Any, question: Question | None) -> Content:
    """Return the hashes of a document's content: of its question, or else of all its columns but the id."""
    if question is not None:
        parts: Any = [question.text, question.choices, question.target]
    else:
        parts = (
            {k: v for k, v in document.items() if k != "id"} if isinstance(document, Mapping) else document
        )
    return Content(
        *(hashlib.sha256(_written(plain).encode()).hexdigest() for plain in (_plain(parts), parts))
    )


def document_content(task: Any, document: Any) -> str:
    """Return the SHA-256 (hex) of what a document asks and what is right, normalised.

    The order of its choices counts. A document that can't be rendered counts by all its columns but the id.

    Args:
        task: an lm-eval task (0.4.13).
        document: one of its documents.
    """
    return content_of(document, question_of(task, document)).normalised


def _plain(value: Any) -> Any:
    """Return a value with its texts normalised; a number is the text that JSON writes."""
    if isinstance(value, str):
        return normalised(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return normalised(_written(value))


def _written(value: Any) -> str:
    return json.dumps(value, default=handle_non_serializable, ensure_ascii=False, sort_keys=True)
