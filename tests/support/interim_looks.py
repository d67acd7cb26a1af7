"""Enumerate what can happen from look to look, path by path, independently of the shipped recursion."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

Counts = tuple[int, int]
Ends = Callable[[int, int, int], bool]
"""True if a path with b worse and c better documents ends at a look: (look, b, c)."""


def trinomial(n: int, p_worse: float, p_better: float) -> dict[Counts, float]:
    """Probability of (b, c) among n documents, term by term."""
    same = 1 - p_worse - p_better
    return {
        (b, c): math.comb(n, b)
        * math.comb(n - b, c)
        * p_worse**b
        * p_better**c
        * max(same, 0.0) ** (n - b - c)
        for b in range(n + 1)
        for c in range(n + 1 - b)
    }


def ending(looks: Sequence[int], ends: Ends, p_worse: float, p_better: float) -> list[float]:
    """Probability that a path ends at each look, every path followed."""
    going_on: dict[Counts, float] = {(0, 0): 1.0}
    found, before = [], 0
    for look, documents in enumerate(looks):
        there: dict[Counts, float] = defaultdict(float)
        new = trinomial(documents - before, p_worse, p_better)
        for (b, c), weight in going_on.items():
            for (more_b, more_c), chance in new.items():
                there[b + more_b, c + more_c] += weight * chance
        stopped = {counts for counts in there if ends(look, *counts)}
        found.append(math.fsum(there[counts] for counts in stopped))
        going_on = {counts: weight for counts, weight in there.items() if counts not in stopped}
        before = documents
    return found
