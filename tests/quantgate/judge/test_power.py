"""Documents that a test needs, and losses that a number of documents resolves."""

from __future__ import annotations

import itertools
import math

import pytest

from quantgate.judge.power import documents_needed, resolution_line, resolvable_points
from quantgate.judge.stats.exact import p_noninferior

ALPHA, POWER = 0.05, 0.8


@pytest.mark.parametrize(("n", "points"), [(30, 14), (198, 5.6), (1319, 2.2), (12032, 0.7)])
def test_what_n_documents_resolve(n: int, points: float) -> None:
    assert float(f"{resolvable_points(n, 0.10, ALPHA, POWER):.2g}") == pytest.approx(points, abs=0.051)


def test_without_flips_the_exact_test_sets_the_limit() -> None:
    assert resolvable_points(299, 0.0, ALPHA, POWER) == pytest.approx(1.0, abs=0.005), "0.99^299 = 0.05"
    assert p_noninferior(0, 0, 299, 0.01) <= ALPHA < p_noninferior(0, 0, 298, 0.01)


def test_the_sentence_before_a_run() -> None:
    assert resolution_line("gsm8k", 1319, 0.01, ALPHA, POWER) == (
        "gsm8k: cannot decide 1 point: 1,319 documents, 2.2 at best (10 % flips; it would take 6,183)"
    )
    assert resolution_line("mmlu_pro", 12032, 0.01, ALPHA, POWER) == (
        "mmlu_pro: can decide 1 point: 12,032 documents, 0.72 at 10 % flips"
    )
    assert resolution_line("leaderboard_bbh", 5761, 0.01, ALPHA, POWER) == (
        "leaderboard_bbh: cannot decide 1 point: 5,761 documents, 1.04 at best (10 % flips; it would take 6,183)"
    )
    assert resolution_line("gpqa_diamond_cot_zeroshot", 198, 0.02, ALPHA, POWER).startswith(
        "gpqa_diamond_cot_zeroshot: cannot decide 2 points: 198 documents, 5.6 at best (10 % flips;"
    )


def test_documents_needed_follows_the_formula():
    # rho (1.645 + 0.842)^2 / margin^2.
    assert documents_needed(0.05, 0.02, 0.05, 0.8) == math.ceil(0.05 * 6.182557 / 0.0004)
    assert documents_needed(0.05, 0.02, 0.05, 0.8, delta=-0.01) == math.ceil(0.05 * 6.182557 / 0.0001)


def test_documents_needed_grow_with_flips_and_shrink_with_the_margin():
    rates, margins = (0.01, 0.05, 0.2), (0.05, 0.02, 0.01)
    for smaller, larger in itertools.pairwise(rates):
        assert documents_needed(smaller, 0.02, ALPHA, 0.8) < documents_needed(larger, 0.02, ALPHA, 0.8)
    for wider, tighter in itertools.pairwise(margins):
        assert documents_needed(0.05, wider, ALPHA, 0.8) < documents_needed(0.05, tighter, ALPHA, 0.8)
