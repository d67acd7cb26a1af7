"""Fix the order in which a task's documents are asked.

It follows from what is known before anything is measured: the task's name and its documents.
Every checkpoint gets the same documents first, so that a candidate that stops early pairs with its baseline.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple


class DocumentKey(NamedTuple):
    """Identity of a document, and the cluster and stratum it belongs to."""

    doc_id: str
    doc_repeat: int
    cluster: str | None
    stratum: str | None = None
    """Its subject, where the verdict is about new documents of these subjects only."""


def document_order(task: str, documents: Sequence[DocumentKey]) -> list[int]:
    """Return a random order that depends only on the task's name and documents, proportional over strata and clusters.

    Documents without either are shuffled. Those of a stratum, or else of a cluster, are spread evenly from a random
    start, so that the first n of all documents contain nearly the share of each (systematic sampling; W. G. Cochran,
    Sampling Techniques, 3rd ed. 1977, chapter 8).

    Args:
        task: the task's name.
        documents: every document that the task has, in any order.

    Returns:
        Indices into ``documents``: the first is asked first.
    """
    members: dict[str | None, list[int]] = defaultdict(list)
    for index, document in enumerate(documents):
        members[document.cluster if document.stratum is None else document.stratum].append(index)
    sort_keys: dict[int, tuple[float, str]] = {}
    for group, indices in members.items():
        draws = {index: _draw(task, *documents[index][:3]) for index in indices}
        if group is None:
            sort_keys |= {index: (int(draw, 16) / 16 ** len(draw), draw) for index, draw in draws.items()}
            continue
        start = _draw(task, "cluster", group)
        begin = int(start, 16) / 16 ** len(start)
        for rank, index in enumerate(sorted(indices, key=lambda index: draws[index])):
            sort_keys[index] = ((rank + begin) / len(indices), draws[index])
    return sorted(sort_keys, key=lambda index: sort_keys[index])


def _draw(*parts: object) -> str:
    """Return a random number, the same for the same parts, as 64 hexadecimal digits."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
