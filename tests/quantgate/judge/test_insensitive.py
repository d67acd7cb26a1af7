"""Tasks that the baseline can't do: a destroyed candidate loses next to nothing there, and must not pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from quantgate.bundles.manifest import TaskResult
from quantgate.bundles.schema import SAMPLES
from quantgate.judge.judge import judge, judge_evidence, judge_interim
from quantgate.judge.pairing import Counts, Pairs, whole_score
from quantgate.judge.stats.exact import p_inferior, p_noninferior
from quantgate.judge.task_verdict import decide_tasks, figures_of
from quantgate.model.config.policy import Policy
from quantgate.model.enums import Family, Outcome, Verdict
from quantgate.model.records import TaskVerdict, UseVerdict
from tests.support.sample_rows import policy_of, sample_row, task_result

MATH, CLOZE = Family.MATH, Family.CONVERSATION
POLICY = policy_of({MATH: (0.02, 100), CLOZE: (0.02, 100)}, uses={"all": (), "cloze": (CLOZE,)})
LOOKS = POLICY.model_copy(update={"looks": (0.2, 0.4, 0.6, 0.8)})
CHANCE = 0.25


def decided(evidence: Counts | Pairs, floor: float | None = None, policy: Policy = POLICY) -> TaskVerdict:
    documents = evidence.pairs if isinstance(evidence, Counts) else evidence.baseline.size
    task = task_result("hard", documents, floor=floor)
    (verdict,) = decide_tasks([figures_of(task, evidence, policy)], policy)
    return verdict


def destroyed(right: int, n: int = 1000) -> Counts:
    """A candidate that gets nothing right, beside a baseline that gets so many."""
    return Counts(n, worse=right, better=0, baseline_right=right, candidate_right=0)


def test_a_destroyed_model_does_not_pass_where_the_baseline_is_right_on_one_in_two_hundred() -> None:
    found = decided(destroyed(5))
    assert found.p_noninferior == p_noninferior(5, 0, 1000, 0.02) == pytest.approx(0.0011, abs=5e-5)
    assert found.outcome is Outcome.INSENSITIVE
    assert found.documents_needed is None
    assert found.reason == (
        "hard: insensitive: the baseline scores 0.5 % of 1000 documents, at least 0.197 % (one-sided 95 %), which is "
        "not more than the margin of 2 points above 0 %, the score of an answer that ignores the question: a "
        "destroyed model could pass"
    )


@pytest.mark.parametrize(("margin", "n"), [(0.02, 1000), (0.05, 200)])
def test_a_model_that_lost_everything_passes_with_5_percent_at_most(margin: float, n: int) -> None:
    """Over every number of right answers of a baseline whose true score is the margin or less."""
    policy = policy_of({MATH: (margin, 1)})
    passes = [
        right
        for right in range(int(3 * margin * n))
        if decided(destroyed(right, n), policy=policy).outcome is Outcome.PASS
    ]
    for true in np.linspace(margin / 40, margin, 40):
        assert binom.pmf(passes, n, true).sum() <= 0.05
    # Without the rule it is usual.
    unruled = [right for right in range(n // 10) if p_noninferior(right, 0, n, margin) <= 0.05]
    assert binom.pmf(unruled, n, margin / 4).sum() > 0.85


@settings(max_examples=60, deadline=None)
@given(
    st.integers(100, 1500),
    st.floats(0, 1),
    st.integers(0, 30),
    st.integers(0, 30),
    st.sampled_from([None, 0.0, CHANCE, 0.5]),
    st.sampled_from([0.01, 0.02, 0.05]),
)
def test_an_insensitive_task_never_passes_and_every_other_is_decided_as_ever(
    n: int, score: float, worse: int, better: int, floor: float | None, margin: float
) -> None:
    """The lower end from the quantile of the beta distribution, a second implementation."""
    right = min(max(round(n * score), worse), n - better)
    found = decided(
        Counts(n, worse, better, right, right - worse + better), floor, policy_of({MATH: (margin, 100)})
    )
    low = beta.ppf(0.05, right, n - right + 1) if right else 0.0
    if p_inferior(worse, better, n, margin) <= 0.05:
        assert found.outcome is Outcome.FAIL
    elif low - (floor or 0.0) <= margin:
        assert found.outcome is Outcome.INSENSITIVE
    else:
        shown = p_noninferior(worse, better, n, margin) <= 0.05
        assert found.outcome is (Outcome.PASS if shown else Outcome.UNDECIDED)


def test_a_baseline_at_chance_of_four_choices_is_insensitive_and_0_where_no_floor_was_recorded() -> None:
    same = Counts(1000, 0, 0, 270, 270)
    assert decided(same, CHANCE).outcome is Outcome.INSENSITIVE
    assert "above 25 %, the score of an answer that ignores the question" in decided(same, CHANCE).reason
    assert decided(same, None).outcome is Outcome.PASS
    assert decided(Counts(1000, 0, 0, 700, 700), CHANCE).outcome is Outcome.PASS


def test_partial_credit_and_clusters_have_a_lower_end_too() -> None:
    graded = np.where(np.arange(1000) % 50 == 0, 0.5, 0.0)
    assert decided(Pairs(graded, graded)).outcome is Outcome.INSENSITIVE
    assert decided(Pairs(graded + 0.5, graded + 0.5)).outcome is Outcome.PASS
    at_margin = np.zeros(6000)
    at_margin[:200] = 1.0  # ten of 300 passages: 3.3 %, at least 2.9 % if each document were on its own
    assert decided(Pairs(at_margin, at_margin, np.arange(6000) // 20)).outcome is Outcome.INSENSITIVE
    assert not decided(Pairs(at_margin, at_margin)).insensitive


def use_verdict(evidence: dict[str, Any], use: str = "all") -> UseVerdict:
    families = {"hard": MATH, "easy": CLOZE}
    declared = [task_result(task, 1000, family=families[task], floor=CHANCE) for task in evidence]
    verdicts = judge_evidence(evidence, "tests", POLICY, declared)
    return next(verdict for verdict in verdicts if verdict.use == use)


EASY, HARD = Counts(1000, 0, 0, 800, 800), Counts(1000, 0, 0, 260, 260)


def test_a_use_that_needs_it_is_inconclusive_and_another_is_not() -> None:
    both = use_verdict({"hard": HARD, "easy": EASY})
    assert (both.verdict, both.documents_needed) == (Verdict.INCONCLUSIVE, None)
    assert both.reason == both.tasks[0].reason
    assert both.reason.startswith(
        "hard: insensitive: the baseline scores 26 % of 1000 documents, at least 23.7 %"
    )
    assert use_verdict({"hard": HARD, "easy": EASY}, "cloze").verdict is Verdict.VALIDATED
    undecided = use_verdict({"hard": HARD, "easy": Counts(1000, 30, 20, 800, 790)})
    assert undecided.reason == f"{undecided.tasks[0].reason} (and 1 undecided)"


def test_a_loss_rejects_on_another_task_and_on_itself() -> None:
    lost = use_verdict({"hard": HARD, "easy": Counts(1000, 100, 0, 800, 700)})
    assert lost.verdict is Verdict.REJECTED
    assert lost.tasks[0].outcome is Outcome.INSENSITIVE
    # It falls below chance: its answers are none of the choices any more.
    below = use_verdict({"hard": Counts(1000, 260, 0, 260, 0), "easy": EASY})
    assert (below.verdict, below.tasks[0].outcome) == (Verdict.REJECTED, Outcome.FAIL)


def samples(scores: Any) -> pa.Table:
    return pa.Table.from_pylist(
        [sample_row("hard", n, score, position=n) for n, score in enumerate(scores)], schema=SAMPLES
    )


def so_far(documents: int) -> TaskResult:
    looks = tuple(n for n in (200, 400, 600, 800, 1000) if n <= documents)
    return task_result("hard", documents, documents_available=1000, looks=looks, floor=0.0)


@pytest.mark.parametrize("documents", [150, 200, 300, 600, 1000])
def test_the_kind_of_a_task_does_not_depend_on_where_the_candidate_stops(documents: int) -> None:
    """All right answers come first, or last: everything that the baseline answered counts."""
    hard, candidate = np.arange(1000) < 20, samples(np.ones(documents))
    for baseline, insensitive in ((hard, True), (hard[::-1], True), (~hard, False), (~hard[::-1], False)):
        whole = samples(baseline)
        found = judge_interim(whole, candidate, so_far(documents), LOOKS, 1)
        assert (found.outcome is Outcome.INSENSITIVE) is insensitive
        (verdict,) = judge(whole, candidate, "tests", LOOKS, [so_far(documents)])[:1]
        assert (verdict.tasks[0].outcome is Outcome.INSENSITIVE) is insensitive
        assert found.baseline_documents == 1000
        assert whole_score(whole, so_far(documents)).score == pytest.approx(baseline.mean())


def test_an_insensitive_task_does_not_stop_as_passed_at_a_look() -> None:
    baseline = samples(np.arange(1000) % 200 == 0)
    gains = samples(np.arange(200) < 40)
    found = judge_interim(baseline, gains, so_far(200), LOOKS, 1)
    assert found.p_noninferior <= 0.05
    assert found.outcome is Outcome.INSENSITIVE
