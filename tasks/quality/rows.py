"""Turn lm-eval's logged samples into rows of samples.parquet and prompts.parquet."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quantgate.model.config.suites import SuiteTask
from quantgate.model.errors import RunError
from tasks.quality.documents import Placed

CHOICE_LENGTHS: dict[str, Callable[[str], int]] = {
    "acc_norm": len,
    "acc_bytes": lambda choice: len(choice.encode()),
}
"""Length that a metric divides a choice's log-likelihood by; other metrics do not divide."""


class Generation(str):
    """A generated text that remembers its length in tokens and why it ended.

    Args:
        text: what was generated.
        output_tokens: tokens generated, the end token included where the engine counts it.
        finish_reason: `stop`, `length` …, or None where the engine doesn't say.
    """

    __slots__ = ("finish_reason", "output_tokens")

    output_tokens: int
    finish_reason: str | None

    def __new__(cls, text: str, *, output_tokens: int, finish_reason: str | None) -> Generation:
        """Make a string with two more attributes."""
        made = super().__new__(cls, text)
        made.output_tokens, made.finish_reason = output_tokens, finish_reason
        return made


def sample_rows(
    samples: Sequence[Mapping[str, Any]],
    task: SuiteTask,
    documents: Mapping[int, Placed],
    *,
    metric: str,
    choices_of: Callable[[Any], Sequence[str]] | None,
    generations: Mapping[int, Sequence[Generation]],
    engine_start_id: str,
) -> list[dict[str, Any]]:
    """Make the rows of samples.parquet.

    Args:
        samples: lm-eval's samples of one filter.
        task: the suite's task.
        documents: keys and positions of the documents, by lm-eval's document number.
        metric: the metric that is the score.
        choices_of: a document's choices; None where the task has none.
        generations: what was generated, by lm-eval's document number.
        engine_start_id: the engine start that the rows name.

    Raises:
        RunError: the metric is missing, or is no number per document.
    """
    rows = []
    for sample in samples:
        choices = choices_of(sample["doc"]) if choices_of else None
        key, position = documents[sample["doc_id"]]
        generated = generations.get(sample["doc_id"], ())
        rows.append(
            {
                "task": task.task,
                "family": task.family.value,
                "filter": sample["filter"],
                "metric": metric,
                "doc_id": key.doc_id,
                "doc_repeat": key.doc_repeat,
                "doc_hash": sample["doc_hash"],
                "prompt_hash": sample["prompt_hash"],
                "target": _target(sample["target"], choices),
                "target_hash": sample["target_hash"],
                "responses": _json(sample["resps"]),
                "answer": _answer(sample["filtered_resps"], choices, metric),
                "score": _score(sample, metric),
                "output_tokens": sum(generation.output_tokens for generation in generated)
                if generated
                else None,
                "finish_reason": _finish_reason(generated),
                "cluster": key.cluster,
                "engine_start_id": engine_start_id,
                "position": position,
            }
        )
    return rows


def prompt_rows(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Make the rows of prompts.parquet: each prompt's text once."""
    texts = {sample["prompt_hash"]: str(sample["arguments"][0][0]) for sample in samples}
    return [{"prompt_hash": key, "text": text} for key, text in texts.items()]


def _score(sample: Mapping[str, Any], metric: str) -> float:
    """Return the score as a number; NaN if lm-eval gave none."""
    if metric not in sample:
        given = ", ".join(sample["metrics"]) or "none"
        raise RunError(f"lm-eval gave no metric '{metric}'", hint=f"Choose one of: {given}.")
    value = sample[metric]
    if value is None:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        hint = "Choose one that scores each document, such as acc or exact_match."
        raise RunError(f"metric '{metric}' is no number per document", hint=hint) from None


def _answer(filtered: Sequence[Any], choices: Sequence[str] | None, metric: str) -> str:
    """Return the filtered response; for multiple choice the text of the choice that the metric selects."""
    if choices is None:
        first = filtered[0]
        return first if isinstance(first, str) else _json(first)
    length = CHOICE_LENGTHS.get(metric)
    scores = [
        logprob / (length(choice) if length else 1)
        for (logprob, _), choice in zip(filtered, choices, strict=False)
    ]
    return choices[max(range(len(scores)), key=scores.__getitem__)].strip()


def _target(target: Any, choices: Sequence[str] | None) -> str:
    """Return the right answer as text."""
    if choices is not None and isinstance(target, int) and 0 <= target < len(choices):
        return choices[target].strip()
    return target if isinstance(target, str) else _json(target)


def _finish_reason(made: Sequence[Generation]) -> str | None:
    """Return why a generation ended; of several, `length` if any was cut off."""
    reasons = [generation.finish_reason for generation in made]
    return "length" if "length" in reasons else next(iter(reasons), None)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
