"""Find documents that nearly equal others: near-copies, which a change of a word or two makes of one question.

Texts are compared by their runs of three words (shingles), without those that most documents have: a template is no
likeness. Digits are content: documents with other numbers are no near-copies. Nothing is chained: each near-copy is
near the one document that it is counted with.

Source: Broder, "On the resemblance and containment of documents" (1997), for shingles and their sampling by hash;
Bayardo, Ma and Srikant, "Scaling up all pairs similarity search" (WWW 2007): documents that are so alike share one of
their rarest shingles, so only these are looked up.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.quality.content.document import Question
from tasks.quality.content.text import normalised

ALIKE = 0.7
"""Share of two documents' shingles that both have (Jaccard) from which they are near-copies."""
CLUSTERED = 0.1
"""Share of a task's documents that must have a near-copy with the same target before near-copies are clusters."""
_WORDS = 3
_COMMON = 0.5
"""Share of documents that have a shingle from which it belongs to their template."""
_FEWEST = 6
"""Shingles that a document must have to be compared."""
_MOST = 2_000_000
"""Shingles of a task that are kept; of more a sample by their hashes, the same of every document."""
_LONGEST = 100
"""Documents that are looked up by one shingle."""

Shingles = NDArray[np.uint32]


class _Compared(NamedTuple):
    """A document as it is compared."""

    shingles: Shingles
    """Hashes, sorted."""
    rarest: Shingles
    """So many that a near-copy has one of them."""
    kind: tuple[Any, ...]
    """What must be equal: the numbers in order and, for clusters, the target."""


def near_copies(questions: Sequence[Question | None]) -> list[int | None]:
    """Return for each document an earlier one that it is a near-copy of, by its index.

    Args:
        questions: of each document once, in an order that no file decides.
    """
    return _earlier(_compared(questions, with_target=False), only_first=False)


def near_clusters(questions: Sequence[Question | None]) -> list[int | None]:
    """Return for each document the first of the cluster that it makes with near-copies; all None where they are few.

    Each document of a cluster is a near-copy of its first, and has the same target.

    Args:
        questions: as of `near_copies`.
    """
    first = _earlier(_compared(questions, with_target=True), only_first=True)
    firsts = {leader for leader in first if leader is not None}
    clusters = [leader if number not in firsts else number for number, leader in enumerate(first)]
    few = sum(leader is not None for leader in clusters) <= CLUSTERED * len(questions)
    return [None] * len(questions) if few else clusters


def _compared(questions: Sequence[Question | None], *, with_target: bool) -> list[_Compared]:
    texts = [_text(question) for question in questions]
    words = sum(text.count(" ") for text in texts)
    below = min(1 << 32, (_MOST << 32) // max(1, words))
    hashes = _WordHashes()
    shingles = [_shingles(text, hashes, below) for text in texts]
    known, counts = np.unique(np.concatenate([*shingles, np.empty(0, np.uint32)]), return_counts=True)
    compared = []
    for question, text, own in zip(questions, texts, shingles, strict=True):
        documents = counts[np.searchsorted(known, own)]
        distinct = documents <= max(2, _COMMON * len(texts))
        kept, rarity = own[distinct], documents[distinct]
        prefix = len(kept) - math.ceil(ALIKE * len(kept)) + 1 if len(kept) >= _FEWEST else 0
        target = (normalised(str(question.target)),) if with_target and question else ()
        kind = (*re.findall(r"\d+", text), None, *target)
        compared.append(_Compared(kept, kept[np.lexsort((kept, rarity))][:prefix], kind))
    return compared


def _text(question: Question | None) -> str:
    if question is None:
        return ""
    return normalised(" ".join(str(part) for part in (question.text or "", *(question.choices or ()))))


def _shingles(text: str, hashes: _WordHashes, below: int) -> Shingles:
    words = text.split()
    own = np.fromiter(map(hashes.__getitem__, words), np.uint32, len(words))
    runs = own[: max(0, len(own) - _WORDS + 1)]
    for after in range(1, _WORDS):
        runs = runs * np.uint32(0x9E3779B1) + own[after : after + len(runs)]
    runs = (runs ^ (runs >> np.uint32(16))) * np.uint32(0x85EBCA6B)  # Murmur3's mixing: every bit counts
    return np.unique(runs[runs < below])


class _WordHashes(dict[str, int]):
    def __missing__(self, word: str) -> int:
        self[word] = zlib.crc32(word.encode())
        return self[word]


def _earlier(documents: Sequence[_Compared], *, only_first: bool) -> list[int | None]:
    """Return for each document an earlier near-copy; with ``only_first`` one that is itself none of another."""
    holding: dict[tuple[Any, ...], list[int]] = {}
    earlier: list[int | None] = []
    for number, document in enumerate(documents):
        keys = [(shingle, document.kind) for shingle in document.rarest.tolist()]
        candidates = dict.fromkeys(other for key in keys for other in holding.get(key, ()))
        near = next((other for other in candidates if _are_alike(documents[other], document)), None)
        earlier.append(near)
        if only_first and near is not None:
            continue
        for key in keys:
            others = holding.setdefault(key, [])
            if len(others) < _LONGEST:
                others.append(number)
    return earlier


def _are_alike(first: _Compared, second: _Compared) -> bool:
    both = len(np.intersect1d(first.shingles, second.shingles, assume_unique=True))
    return both >= ALIKE * (len(first.shingles) + len(second.shingles) - both)
