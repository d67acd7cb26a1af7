"""A task that may stop early: at which look of its declared design it is, and which documents it pairs on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quantgate.bundles.manifest import TaskResult
from quantgate.judge.document_order import look_sizes
from quantgate.judge.pairing import DeclaredTask, Unpaired
from quantgate.judge.stats.group_sequential import Design
from quantgate.model.config.policy import Policy


class Look(NamedTuple):
    """Where a task stands in its design."""

    design: Design
    at: int
    """Index of the look in the design's looks."""

    @property
    def number(self) -> int:
        """How many times it was judged, this time included."""
        return self.at + 1


class BetweenLooks(NamedTuple):
    """Documents after which nothing may be decided: they are none of the design's looks."""

    design: Design
    documents: int

    @property
    def number(self) -> int:
        """How many looks lie behind it."""
        return sum(look < self.documents for look in self.design.looks)

    @property
    def reason(self) -> str:
        """Why nothing is decided there."""
        following = min(look for look in self.design.looks if look > self.documents)
        where = "between two looks" if self.number else "before the first look"
        return f"undecided: {self.documents} documents are {where}, the next is at {following}"


def look_of(task: DeclaredTask, documents: int, policy: Policy) -> Look | BetweenLooks:
    """Where a task stands: at a look of its design, or between two of them.

    A candidate is judged once where the policy has no looks or where nobody looked before its last document;
    otherwise at the looks of the policy, of which one that was left out counts as looked at.

    Args:
        task: as it was declared, or as it ended: then it knows how many documents the task has.
        documents: that were answered.
        policy: margins, error rate and looks.
    """
    rule = policy.families[task.family]
    available, looked = documents, 1
    if isinstance(task, TaskResult):
        available, looked = max(task.documents_available or 0, documents), len(task.looks)
    if not policy.looks or (available == documents and looked <= 1):
        return Look(Design((documents,), rule.margin, policy.alpha), 0)
    design = Design(look_sizes(available, policy.looks, rule.min_documents), rule.margin, policy.alpha)
    if documents in design.looks:
        return Look(design, design.looks.index(documents))
    return BetweenLooks(design, documents)


def available_of(task: DeclaredTask) -> int | None:
    """Return how many documents a task has, where that was recorded."""
    return task.documents_available if isinstance(task, TaskResult) else None


def stopped_early(task: DeclaredTask, policy: Policy) -> bool:
    """Whether a candidate has answered only the first of a task's documents, as its policy's looks allow."""
    return (
        bool(policy.looks)
        and isinstance(task, TaskResult)
        and task.documents_available is not None
        and task.documents < task.documents_available
    )


def answered_first(baseline: pa.Table, candidate: pa.Table, task: str) -> pa.Table | Unpaired:
    """A baseline's samples of the documents that a candidate answered before it stopped.

    They must be the first of the declared order, none left out, so that nobody chose among them.

    Args:
        baseline: samples (``quantgate.bundles.schema.SAMPLES``).
        candidate: samples of a candidate that stopped early.
        task: the task's name.

    Returns:
        The baseline's samples of this task, of those documents only; or why that can't be told.
    """
    there, here = (samples.filter(pc.equal(samples["task"], task)) for samples in (baseline, candidate))
    if there["position"].null_count or here["position"].null_count:
        return Unpaired(
            f"task {task}: the candidate stopped early and which documents are first was not recorded"
        )
    answered = np.unique(here["position"].to_numpy())
    if not np.array_equal(answered, np.arange(answered.size)):
        return Unpaired(
            f"task {task}: the documents that the candidate answered are not the first of its order"
        )
    return there.filter(pc.less(there["position"], answered.size))


def judged_by_another(result: TaskResult, own: Policy, other: Policy) -> str | None:
    """Why a task that stopped early under its own policy can't be judged under another, or None where it can.

    Args:
        result: the candidate's.
        own: the policy that it was declared under.
        other: the policy to judge it under.
    """
    if not stopped_early(result, own):
        return None
    if _design(result, own) == _design(result, other):
        return None
    return (
        f"it stopped after {result.documents} of {result.documents_available} documents as its own policy told it, "
        "and only that one can judge it"
    )


def _design(result: TaskResult, policy: Policy) -> tuple[object, ...]:
    """What decides when a task stops."""
    return policy.alpha, policy.looks, policy.families[result.family]
