"""Place a task that may stop early: at which look of its design it is, and on which documents it pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quantgate.bundles.manifest import TaskResult
from quantgate.judge.pairing import DOCUMENT, DeclaredTask, Unpaired
from quantgate.judge.stats.group_sequential import Design
from quantgate.model.config.policy import Policy
from quantgate.model.words import counted


class Look(NamedTuple):
    """An interim look, or the last one, of a task's design."""

    design: Design
    at: int
    """Index of the look in the design's looks."""

    @property
    def number(self) -> int:
        """How many times the task was judged, this time included."""
        return self.at + 1


class BetweenLooks(NamedTuple):
    """A number of documents at which nothing may be decided, as it is none of the design's looks."""

    design: Design
    documents: int

    @property
    def number(self) -> int:
        """How many looks the task has passed."""
        return sum(look < self.documents for look in self.design.looks)

    @property
    def reason(self) -> str:
        """Why nothing is decided."""
        following = min(look for look in self.design.looks if look > self.documents)
        where = "between two interim looks" if self.number else "before the first interim look"
        asked = f"{counted(self.documents, 'document')} {'is' if self.documents == 1 else 'are'}"
        return f"undecided: {asked} {where}, the next is at {following}"


def look_sizes(available: int, shares: Sequence[float], least: int) -> tuple[int, ...]:
    """Return the numbers of documents at which a candidate is judged, ascending; the last is all of them.

    Args:
        available: documents that the task has.
        shares: a policy's looks, shares of them above 0 and at most 1; empty: judged only at the end.
        least: fewer documents than this validate nothing, so there is no earlier look.
    """
    sizes = {math.ceil(share * available) for share in shares}
    return (*sorted(size for size in sizes if least <= size < available), available)


def look_of(task: DeclaredTask, documents: int, policy: Policy) -> Look | BetweenLooks:
    """Return the look of its design at which a task is, or between which looks.

    A candidate is judged once where the policy has no looks or where nobody judged it before its last document;
    otherwise at the looks of the policy, and a look that was skipped counts as taken.

    Args:
        task: as it was declared, or as it ended: then it says how many documents the task has.
        documents: answered documents.
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
    """Check whether a candidate answered only the first of a task's documents, as its policy's looks allow."""
    return (
        bool(policy.looks)
        and isinstance(task, TaskResult)
        and task.documents_available is not None
        and task.documents < task.documents_available
    )


def answered_first(baseline: pa.Table, candidate: pa.Table, task: str) -> pa.Table | Unpaired:
    """Return a baseline's samples of the documents that a candidate answered before it stopped.

    They must be the first of the candidate's order, without a gap, so that nobody chose among them. The baseline's own
    positions do not matter: an older one was asked in another order.

    Args:
        baseline: samples (``quantgate.bundles.schema.SAMPLES``).
        candidate: samples of a candidate that stopped early.
        task: the task's name.

    Returns:
        The baseline's samples of this task, of those documents only; or why they can't be determined.
    """
    baseline, candidate = (
        samples.filter(pc.equal(samples["task"], task)) for samples in (baseline, candidate)
    )
    if candidate["position"].null_count:
        return Unpaired(
            f"task {task}: the candidate stopped early, and the order of its documents was not recorded"
        )
    answered = np.unique(candidate["position"].to_numpy())
    if not np.array_equal(answered, np.arange(answered.size)):
        return Unpaired(
            f"task {task}: the documents that the candidate answered are not the first of its order"
        )
    return baseline.join(
        candidate.select(DOCUMENT).group_by(DOCUMENT).aggregate([]), DOCUMENT, join_type="left semi"
    )


def judged_by_another(result: TaskResult, own: Policy, other: Policy) -> str | None:
    """Return why a task that stopped early under its own policy can't be judged under another; None where it can.

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
        f"it stopped after {result.documents} of {result.documents_available} documents as its own policy says, "
        "and only that policy can judge it"
    )


def _design(result: TaskResult, policy: Policy) -> tuple[object, ...]:
    """Return everything that decides when a task stops."""
    return policy.alpha, policy.looks, policy.families[result.family]
