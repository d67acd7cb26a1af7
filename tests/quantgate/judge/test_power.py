"""Documents that a test needs, and losses that a number of documents resolves."""

from __future__ import annotations

import itertools
import math

import pytest

from quantgate.bundles.manifest import TaskResult
from quantgate.judge.interim import look_sizes
from quantgate.judge.pairing import Counts
from quantgate.judge.power import (
    SeenFlips,
    documents_needed,
    least_without_flips,
    resolution_line,
    resolvable_points,
)
from quantgate.judge.stats.exact import p_noninferior
from quantgate.judge.task_verdict import figures_of
from quantgate.model.enums import Family
from tests.support.sample_rows import policy_of

ALPHA, POWER = 0.05, 0.8


@pytest.mark.parametrize(("n", "points"), [(30, 14), (198, 5.6), (1319, 2.2), (12032, 0.7)])
def test_what_n_documents_resolve(n: int, points: float) -> None:
    assert float(f"{resolvable_points(n, 0.10, ALPHA, POWER):.2g}") == pytest.approx(points, abs=0.051)


def test_without_flips_the_exact_test_sets_the_limit() -> None:
    assert resolvable_points(299, 0.0, ALPHA, POWER) == pytest.approx(1.0, abs=0.005), "0.99^299 = 0.05"
    assert p_noninferior(0, 0, 299, 0.01) <= ALPHA < p_noninferior(0, 0, 298, 0.01)


def test_the_sentence_before_a_run_supposes_a_flip_rate() -> None:
    policy = policy_of({Family.MATH: (0.01, 100)})
    assert resolution_line("gsm8k", 1319, 0.01, policy) == (
        "gsm8k: may be too few for 1 point: 1,319 documents; if 10 % of the answers change it takes 6,183, with fewer "
        "changes 1,319 can do"
    )
    assert resolution_line("mmlu_pro", 12032, 0.01, policy) == (
        "mmlu_pro: can decide 1 point: 12,032 documents, 0.72 at 10 % flips"
    )


def test_the_sentence_before_a_run_rests_on_what_earlier_runs_changed() -> None:
    policy, seen = policy_of({Family.MATH: (0.01, 100)}), SeenFlips(0.031, "fp8", "this family")
    assert resolution_line("gsm8k", 1319, 0.01, policy, 100, seen) == (
        "gsm8k: may be too few for 1 point: 1,319 documents; earlier fp8 runs changed 3.1 % of the answers of this "
        "family: needs about 1,917"
    )
    assert resolution_line("gsm8k", 1319, 0.01, policy, 100, SeenFlips(0.0, "fp8", "this task")) == (
        "gsm8k: can decide 1 point: 1,319 documents; earlier fp8 runs changed 0 % of the answers of this task: needs "
        "about 299"
    )


def test_a_task_cannot_decide_only_where_no_flip_rate_would_let_it() -> None:
    policy = policy_of({Family.MATH: (0.02, 50)})
    assert p_noninferior(0, 0, 149, 0.02) <= ALPHA < p_noninferior(0, 0, 148, 0.02)
    for seen in (None, SeenFlips(0.0, "fp8", "this task")):
        assert resolution_line("own", 148, 0.02, policy, 50, seen) == (
            "own: cannot decide 2 points: 148 documents, and even if no answer changes it takes 149"
        )
    assert "may be too few" in resolution_line("own", 149, 0.02, policy, 50)
    assert resolution_line("own", 149, 0.02, policy, 1000) == (
        "own: cannot decide 2 points: 149 documents, and the policy asks for 1,000"
    )


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.1])
@pytest.mark.parametrize("looks", [(), (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85)])
def test_so_many_documents_without_a_flip_pass_the_judge_and_one_fewer_does_not(
    margin: float, looks: tuple[float, ...]
) -> None:
    policy = policy_of({Family.MATH: (margin, 1)}, looks=looks)
    least = least_without_flips(margin, policy)
    assert least - math.log(ALPHA) / math.log1p(-margin) < 3, (
        "0.99^299 = 0.05, and interim looks take hardly more"
    )
    for documents, passes in ((least, True), (least - 1, False)):
        sizes = look_sizes(documents, looks, 1)
        tested = [
            figures_of(_task(size, documents, sizes), Counts(size, 0, 0, size, size), policy)
            for size in sizes
        ]
        assert any(task.p_noninferior <= ALPHA for task in tested) is passes


def _task(answered: int, available: int, looks: tuple[int, ...]) -> TaskResult:
    """Return a task that was judged at the looks up to where it stands."""
    return TaskResult(
        task="own",
        family=Family.MATH,
        metric="acc",
        filter="none",
        version="1",
        documents=answered,
        mean_score=1.0,
        output_type="multiple_choice",
        duration_s=1.0,
        engine_start_id="e",
        documents_available=available,
        looks=tuple(size for size in looks if size <= answered),
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
