"""Expect how long a task's prompts and answers are.

Prompts: by the documents, else assumed. Answers: as earlier runs measured them, else from the task's limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from quantgate.bundles.manifest import Manifest
from quantgate.bundles.schema import SAMPLES_FILE
from quantgate.bundles.store import BundleStore
from quantgate.judge.interim import look_sizes
from quantgate.model.config.policy import Policy
from quantgate.model.config.suites import SuiteTask
from quantgate.model.errors import QuantgateError
from tasks.quality.requirements import DocumentRequests
from tasks.quality.suite import clusters_of

LEAST_SHARE_OF_LIMIT = 0.25
"""Assumed low end of an answer's length where none was measured, as a share of its limit; the high end is all of it."""
PROMPT_TOKENS = 1024
"""Assumed length of a prompt whose documents are not on this machine."""
FEWEST_CHARACTERS, MOST_CHARACTERS = 3.0, 5.0
"""Characters of a token: fewer in code and numbers, more in English."""
RUNS_READ = 3
"""Latest runs of a task whose answers are read."""
LONG = 0.9
"""Quantile of the lengths that stands for the high end: another model may answer at more length."""


@dataclass(frozen=True)
class TaskSize:
    """The documents of a task, and what each asks of an engine."""

    task: str
    documents: int
    requests: DocumentRequests
    low_tokens: int
    """Mean length of an answer, low end, tokens."""
    high_tokens: int
    is_measured: bool = False
    """True if earlier runs say the lengths."""
    prompt_characters: float | None = None
    """Mean of its prompts; None where the documents are not on this machine."""
    least_documents: int | None = None
    """Documents at a candidate's first interim look, where it may stop; None if it answers all."""

    @property
    def prompt_tokens(self) -> tuple[int, int]:
        """Return the mean length of a prompt, low end and high end, tokens."""
        if self.prompt_characters is None:
            return PROMPT_TOKENS, PROMPT_TOKENS
        low, high = (
            self.prompt_characters / characters for characters in (MOST_CHARACTERS, FEWEST_CHARACTERS)
        )
        return max(1, round(low)), max(1, round(high))

    @property
    def prompt_words(self) -> str:
        """Return how long a prompt is expected to be, in words."""
        low, high = self.prompt_tokens
        return (
            f"{low:,} tokens (assumed)" if low == high else f"{low:,} to {high:,} tokens (by its documents)"
        )

    @property
    def words(self) -> str:
        """Return what is expected of the answers, in words; empty where no text is generated."""
        if not self.requests.generated:
            return ""
        basis = "measured" if self.is_measured else f"its limit is {self.requests.limit_tokens:,}"
        return f"{self.low_tokens:,} to {self.high_tokens:,} tokens ({basis})"


def task_size(task: str, documents: int, requests: DocumentRequests, samples: Iterable[pa.Table]) -> TaskSize:
    """Expect how long a task's answers are.

    Measured: from the least mean of a run to the greatest 90 % quantile of one, at most the task's limit. Where more
    than a tenth of a run's answers were cut, its lengths show no high end, and the limit is it. Not measured: from a
    quarter of the limit to all of it.

    Args:
        task: its name.
        documents: that are asked.
        requests: of each document.
        samples: answers of earlier runs, with ``output_tokens`` and ``finish_reason``.
    """
    limit = requests.limit_tokens
    means, longest = [], []
    for table in samples:
        tokens = table["output_tokens"].drop_null()
        if not len(tokens):
            continue
        means.append(float(pc.mean(tokens).as_py()))
        cut = pc.sum(pc.equal(table["finish_reason"], "length")).as_py() or 0
        high = limit if cut > (1 - LONG) * len(tokens) else pc.quantile(tokens, q=LONG)[0].as_py()
        longest.append(float(high))
    if not means:
        return TaskSize(task, documents, requests, max(1, round(LEAST_SHARE_OF_LIMIT * limit)), max(1, limit))
    high_tokens = min(limit, max(longest))
    low_tokens = min(*means, high_tokens)
    return TaskSize(task, documents, requests, max(1, round(low_tokens)), max(1, round(high_tokens)), True)


def earlier_answers(task: str, manifests: Sequence[Manifest], store: BundleStore) -> list[pa.Table]:
    """Return the lengths of a task's answers in the latest runs that have it, whatever model gave them.

    Args:
        task: its name.
        manifests: every bundle's, oldest first.
        store: that holds them; a bundle that can't be read is passed over.
    """
    tables: list[pa.Table] = []
    for manifest in reversed(manifests):
        if len(tables) == RUNS_READ:
            break
        if not any(t.task == task and t.output_type == "generate_until" for t in manifest.tasks):
            continue
        try:
            samples = store.read_table(manifest, SAMPLES_FILE)
        except QuantgateError:
            continue  # the loader reports it
        own = samples.select(["output_tokens", "finish_reason"])
        tables.append(own.filter(pc.equal(samples["task"], task)))
    return tables


def looks_of(task: SuiteTask, documents: int, policy: Policy) -> tuple[int, ...]:
    """Return the documents at each look of a candidate; none where it is judged at the end alone."""
    if not policy.looks or clusters_of(task):
        return ()
    return look_sizes(documents, policy.looks, policy.families[task.family].min_documents)
