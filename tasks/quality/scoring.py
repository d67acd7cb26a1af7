"""Score a document's answers: leave out what a model thinks before them, and average several repeats.

lm-eval asks a task's `repeats` and then scores one answer, or hands all of them to a metric that expects one. Here
each answer is scored by the task's own metric, and a document's score is their mean, a fraction from 0 to 1. A document
stays one unit: what its answers share is no evidence of its own, so the judge never sees them one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from lm_eval.api.filter import Filter
from lm_eval.filters import build_filter_ensemble

from quantgate.model.errors import RunError

_REDUCE = frozenset({"take_first", "majority_vote", "custom"})
"""Filters of lm-eval's that make one answer of several, or whatever a task's own code makes of them."""


def score_each(task: Any, chosen: str) -> None:
    """Make lm-eval's task score each of its repeats, and a document by their mean.

    A task without a filter of its own keeps all its repeats; so does one whose filter keeps several
    (`take_first_k`). A filter that makes one answer of them (a vote, the first) is left as it is, and so is a task
    with a `process_results` of its own, which is handed what the filter leaves.

    Args:
        task: an lm-eval task (0.4.13) that generates text; changed in place.
        chosen: the filter whose answers are scored.
    """
    repeats = int(task.config.repeats or 1)
    if repeats < 2 or task.OUTPUT_TYPE != "generate_until" or callable(task.config.process_results):
        return
    if task.config.filter_list is None:
        task._filters = [build_filter_ensemble(chosen, [("take_first_k", {"k": repeats})])]
    elif not _keeps_all(task.config.filter_list, chosen):
        return
    single = task.process_results

    def averaged(document: Any, results: Sequence[Any]) -> dict[str, Any]:
        answers = results[0]
        if not isinstance(answers, list):
            return dict(single(document, results))
        return _mean([single(document, [answer]) for answer in answers])

    task.process_results = averaged


def _keeps_all(filters: Sequence[Mapping[str, Any]], chosen: str) -> bool:
    steps = {
        step["function"] for ensemble in filters if ensemble["name"] == chosen for step in ensemble["filter"]
    }
    return not steps & _REDUCE


def _mean(scores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return each metric's mean over a document's answers.

    Raises:
        RunError: a metric is no number.
    """
    try:
        return {name: math.fsum(float(score[name]) for score in scores) / len(scores) for name in scores[0]}
    except (TypeError, ValueError):
        what = f"a metric of '{', '.join(scores[0])}' is no number per answer, and the task asks several"
        raise RunError(what, hint="Set repeats to 1, or choose a metric that scores each answer.") from None


def after_thinking(text: str, end: str) -> str:
    """Return the answer after the last end of thinking; the whole text if there is none.

    Args:
        text: what was generated.
        end: how thinking ends, e.g. `</think>`. (What begins it is often in the chat template, not in the text.)
    """
    return text.rpartition(end)[2].lstrip() if end in text else text


class AfterThinking(Filter):  # type: ignore[misc]
    """Filter of lm-eval's that leaves thinking out."""

    def __init__(self, end: str) -> None:
        """Take ``end`` as ``after_thinking`` does."""
        self.end = end

    def apply(self, resps: Iterable[Sequence[str]], docs: Sequence[Any]) -> list[list[str]]:  # noqa: ARG002 - lm-eval's signature
        """Return answers by document and repeat."""
        return [[after_thinking(text, self.end) for text in several] for several in resps]


def leave_thinking_out(task: Any, end: str) -> None:
    """Make every filter of an lm-eval task (0.4.13) that generates text begin behind the thinking; changed in place.

    The answers stay whole where lm-eval logs them.
    """
    if task.OUTPUT_TYPE == "generate_until":
        for ensemble in task._filters:
            ensemble.filters.insert(0, partial(AfterThinking, end))
