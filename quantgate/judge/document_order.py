"""Fix the order in which a task's documents are asked.

It follows from what is known before anything is measured: what the documents ask, and the policy's seed. No name of a
task, a file or a subject and no id moves a document, so that nobody can search for one that suits a checkpoint.
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
    content: str
    """Hash of what it asks, in hexadecimal digits."""
    cluster: str | None = None
    stratum: str | None = None
    """Its subject, where the verdict is about new documents of these subjects only."""


def document_order(documents: Sequence[DocumentKey], seed: int = 0) -> list[int]:
    """Return a random order that depends only on the documents' contents, proportional over strata and clusters.

    Each document has a random number of its own, from the seed and its content: documents without stratum or cluster
    go by it. Those of a stratum, or else of a cluster, are sorted by it too, so that none that is added or left out
    moves two others, and are then spread evenly: document number r of n lies at a random point between r/n and
    (r + 1)/n. So the first of all documents contain nearly the share of each (systematic sampling with a random point
    in each interval; W. G. Cochran, Sampling Techniques, 3rd ed. 1977, chapter 8).

    Args:
        documents: every document that the task has, in any order.
        seed: the policy's.

    Returns:
        Indices into ``documents``: the first is asked first.
    """
    members: dict[str | None, list[int]] = defaultdict(list)
    for index, document in enumerate(documents):
        members[document.cluster if document.stratum is None else document.stratum].append(index)
    draws = {
        index: (_draw(seed, document.content), *document[:2]) for index, document in enumerate(documents)
    }
    sort_keys: dict[int, tuple[float, tuple[str, str, int]]] = {}
    for group, indices in members.items():
        for rank, index in enumerate(sorted(indices, key=draws.__getitem__)):
            position = int(draws[index][0][:13], 16) / 16**13  # as many digits as a float holds
            spread = (
                position if group is None else (rank + _point(seed, documents[index].content)) / len(indices)
            )
            sort_keys[index] = (spread, draws[index])
    return sorted(sort_keys, key=sort_keys.__getitem__)


def _point(seed: int, content: str) -> float:
    """Return a second random number of a document, from 0 to below 1, which its rank says nothing about."""
    return int(_draw(seed, content, "point")[:13], 16) / 16**13


def _draw(*parts: object) -> str:
    """Return a random number, the same for the same parts, as 64 hexadecimal digits."""
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()
