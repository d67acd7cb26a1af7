"""Draw a synthetic suite: its documents, and answers to them, whole columns at a time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quantgate.bundles.schema import PROMPTS
from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.enums import Family

START_ID = "start-1"

SUITE = Suite(
    name="bench",
    tasks=tuple(
        SuiteTask(task=f"bench_{family}", family=family)
        for family in (Family.MATH, Family.REASONING, Family.CONVERSATION, Family.CODE, Family.KNOWLEDGE)
    ),
)
CHOICES = frozenset({Family.REASONING, Family.CONVERSATION, Family.KNOWLEDGE})
"""Families whose answers are one of four options, with a log-likelihood for each; the others are generated."""


def draw_documents(generator: np.random.Generator, n: int) -> dict[str, pa.Array]:
    """Draw the columns of samples that don't depend on the run: the suite's documents, task after task."""
    rows, tasks = n * len(SUITE.tasks), SUITE.tasks
    targets = [
        pa.array(generator.integers(0, 4 if task.family in CHOICES else 10_000, n)).cast(pa.string())
        for task in tasks
    ]
    target = pa.concat_arrays(targets)
    constant = {"filter": "none", "metric": "exact_match", "finish_reason": "stop"}
    return {
        "task": pa.array(np.repeat([task.task for task in tasks], n), pa.string()),
        "family": pa.array(np.repeat([str(task.family) for task in tasks], n), pa.string()),
        **{name: pa.repeat(pa.scalar(value, pa.string()), rows) for name, value in constant.items()},
        "doc_id": pa.array(np.tile(np.arange(n), len(tasks))).cast(pa.string()),
        "doc_repeat": pa.array(np.zeros(rows, np.int32)),
        "doc_hash": _hashes(generator, rows),
        "prompt_hash": _hashes(generator, rows),
        "target": target,
        "target_hash": pc.cast(_hashes(generator, 10_000).take(pc.cast(target, pa.int64())), pa.string()),
        "cluster": pa.nulls(rows, pa.string()),
        "engine_start_id": pa.repeat(pa.scalar(START_ID, pa.string()), rows),
        "position": pa.array(np.tile(np.arange(n, dtype=np.int32), len(tasks))),
    }


def _hashes(generator: np.random.Generator, n: int) -> pa.Array:
    """Draw random SHA-256 digests in hex."""
    text = generator.bytes(32 * n).hex().encode()
    offsets = np.arange(0, 64 * (n + 1), 64, dtype=np.int32)
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(text))


def draw_prompts(generator: np.random.Generator, hashes: pa.Array) -> pa.Table:
    """Draw a text of twelve words for each prompt."""
    words = pa.array([f"word{number}" for number in range(2000)])
    text = pc.binary_join_element_wise(
        *(words.take(pa.array(generator.integers(0, len(words), len(hashes)))) for _ in range(12)), " "
    )
    return pa.table([hashes, text], schema=PROMPTS)


def draw_choices(
    generator: np.random.Generator, target: pa.Array, right: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> tuple[pa.Array, pa.Array]:
    """Draw four log-likelihoods per document, as lm-eval writes them, and the chosen option."""
    values = np.round(generator.normal(-20, 5, (len(target), 4)), 4)
    texts = [pc.cast(pa.array(column), pa.string()) for column in values.T]
    pairs = [pc.binary_join_element_wise('["', text, '", "False"]', "") for text in texts]
    responses = pc.binary_join_element_wise("[", pc.binary_join_element_wise(*pairs, ", "), "]", "")
    wanted = pc.cast(target, pa.int64()).to_numpy()
    chosen = np.where(right, wanted, (wanted + 1) % 4)
    return responses, pa.array(chosen).cast(pa.string())


def draw_generated(
    generator: np.random.Generator, target: pa.Array, right: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> tuple[pa.Array, pa.Array]:
    """Draw a short generated text per document and the answer that a filter extracts from it."""
    wrong = pa.array(generator.integers(10_000, 20_000, len(target))).cast(pa.string())
    answer = pc.if_else(pa.array(right), target, wrong)
    return pc.binary_join_element_wise('[["The answer is ', answer, '."]]', ""), answer
