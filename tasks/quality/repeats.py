"""Repeats of sampled decoding: a document's score is the mean over its answers, a fraction from 0 to 1.

lm-eval asks a task's `repeats` and then scores one answer, or hands all of them to a metric that expects one. Here
each answer is scored by the task's own metric. A document stays one unit: what its answers share is no evidence of
its own, so the judge never sees them one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

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
    steps = {step["function"] for one in filters if one["name"] == chosen for step in one["filter"]}
    return not steps & _REDUCE


def _mean(scores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Each metric's mean over a document's answers.

    Raises:
        RunError: a metric is no number.
    """
    try:
        return {name: math.fsum(float(one[name]) for one in scores) / len(scores) for name in scores[0]}
    except (TypeError, ValueError):
        what = f"a metric of '{', '.join(scores[0])}' is no number per answer, and the task asks several"
        raise RunError(what, hint="Set repeats to 1, or choose a metric that scores each answer.") from None
