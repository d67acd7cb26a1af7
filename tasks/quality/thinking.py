"""Thinking models: what they write before they answer is kept, and left out of what is scored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from lm_eval.api.filter import Filter


def after_thinking(text: str, end: str) -> str:
    """The answer behind the last end of a thinking; the whole text where there is none.

    Args:
        text: what was generated.
        end: how thinking ends, e.g. `</think>`. (What begins it is often in the chat template, not in the text.)
    """
    return text.rpartition(end)[2].lstrip() if end in text else text


class AfterThinking(Filter):  # type: ignore[misc]
    """lm-eval's filter of that."""

    def __init__(self, end: str) -> None:
        """``end`` as of ``after_thinking``."""
        self.end = end

    def apply(self, resps: Iterable[Sequence[str]], docs: Sequence[Any]) -> list[list[str]]:  # noqa: ARG002 - lm-eval's signature
        """Answers by document and repeat."""
        return [[after_thinking(text, self.end) for text in several] for several in resps]


def leave_thinking_out(task: Any, end: str) -> None:
    """Make every filter of an lm-eval task (0.4.13) that generates text begin behind the thinking; changed in place.

    The answers stay whole where lm-eval logs them.
    """
    if task.OUTPUT_TYPE == "generate_until":
        for ensemble in task._filters:
            ensemble.filters.insert(0, partial(AfterThinking, end))
