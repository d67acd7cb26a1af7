"""The judge on synthetic samples, its verdicts computed again from the p-values' definition of a pass."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.bundles.manifest import Manifest
from quantgate.bundles.schema import SAMPLES
from quantgate.judge.judge import check_policy, judge, judge_runs, untested
from quantgate.judge.stats.exact import p_degraded, p_inferior, p_noninferior
from quantgate.judge.stats.tango import tango_interval
from quantgate.judge.task_verdict import holm_adjusted
from quantgate.model.config.policy import Policy
from quantgate.model.config.suites import SuiteTask
from quantgate.model.enums import Family, Outcome, TestKind, Verdict
from quantgate.model.errors import ConfigError
from tests.support.sample_rows import judged_use, policy_of, sample_row

MATH, CLOZE, CODE = Family.MATH, Family.CONVERSATION, Family.CODE
POLICY = policy_of(
    {MATH: (0.02, 300), CLOZE: (0.05, 100)},
    uses={"all": (), "math": (MATH,), "both": (MATH, CLOZE), "code": (CODE,)},
)
SUMS, WORDS = SuiteTask(task="sums", family=MATH), SuiteTask(task="cloze", family=CLOZE)


def rows(task: SuiteTask, scores: Any, **changes: Any) -> list[dict[str, Any]]:
    return [
        sample_row(task.task, number, score, family=str(task.family)) | changes
        for number, score in enumerate(scores)
    ]


def table(*groups: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([row for group in groups for row in group], schema=SAMPLES)


def scores(b: int, c: int, n: int, both_right: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Right/wrong scores of a baseline and a candidate with b worse and c better of n."""
    right = (n - b - c) * 3 // 4 if both_right is None else both_right
    wrong = n - b - c - right
    baseline = [1] * b + [0] * c + [1] * right + [0] * wrong
    candidate = [0] * b + [1] * c + [1] * right + [0] * wrong
    return np.array(baseline), np.array(candidate)


def tables(**flips: tuple[int, int, int]) -> tuple[pa.Table, pa.Table]:
    pairs = {name: scores(*counts) for name, counts in flips.items()}
    tasks = {"sums": SUMS, "cloze": WORDS}
    baseline, candidate = (
        table(*(rows(tasks[name], pair[side]) for name, pair in pairs.items())) for side in (0, 1)
    )
    shuffled = np.random.default_rng(0).permutation(candidate.num_rows)
    return baseline, candidate.take(pa.array(shuffled))


def only(
    baseline: pa.Table, candidate: pa.Table, *declared: SuiteTask, use: str = "all", policy: Policy = POLICY
):
    return judged_use(baseline, candidate, policy, use, declared or (SUMS,))


def test_no_flip_in_a_thousand_is_validated():
    verdict = only(*tables(sums=(0, 0, 1000)))
    assert verdict.verdict is Verdict.VALIDATED
    assert (verdict.quality_delta, verdict.flip_rate, verdict.degraded) == (0.0, 0.0, False)
    assert verdict.worst_task == "sums"
    assert verdict.documents_needed is None
    # Tango's interval without flips: z^2 / (n + z^2) on either side.
    assert verdict.ci_high == pytest.approx(2.705543 / 1002.705543, abs=1e-7)
    assert verdict.ci_low == pytest.approx(-verdict.ci_high, abs=1e-9)
    assert verdict.reason == "shown within the margin on sums"


def test_a_large_loss_is_rejected():
    verdict = only(*tables(sums=(82, 20, 1000)))
    assert verdict.verdict is Verdict.REJECTED
    assert verdict.quality_delta == pytest.approx(-0.062)
    assert verdict.flip_rate == pytest.approx(0.102)
    assert verdict.degraded
    assert verdict.tasks[0].outcome == Outcome.FAIL
    assert "sums: delta -6.2 points with a margin of 2 points: worse than the margin allows" in verdict.reason


def test_what_can_t_be_told_is_inconclusive_and_says_how_many_documents_it_needs():
    verdict = only(*tables(sums=(43, 32, 1000)))
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert verdict.tasks[0].outcome == Outcome.UNDECIDED
    # rho (z.95 + z.80)^2 / margin^2, rho = Clopper-Pearson's upper bound of 75 in 1000.
    assert verdict.documents_needed == pytest.approx(0.09027 * 6.182557 / 0.0004, rel=1e-3)
    p = verdict.tasks[0].p_noninferior
    assert verdict.reason == (
        f"sums: delta -1.1 points with a margin of 2 points: undecided (p {p:.2g}); "
        f"has 1000 documents and needs about {verdict.documents_needed} if its true delta is 0"
    )


def test_where_the_delta_seen_is_the_obstacle_it_is_planned_for():
    verdict = only(*tables(sums=(24, 12, 1000)))
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert verdict.documents_needed > 1000
    assert verdict.reason.endswith("if its true delta is the one seen")
    beyond = only(*tables(sums=(27, 5, 1000)))
    assert beyond.verdict is Verdict.INCONCLUSIVE
    assert beyond.documents_needed is None
    assert beyond.reason.endswith("more documents would more likely reject it")


def test_degraded_within_the_margin_is_a_flag_and_not_the_gate():
    verdict = only(*tables(sums=(16, 4, 4000)))
    assert verdict.verdict is Verdict.VALIDATED
    assert verdict.degraded
    assert verdict.tasks[0].p_degraded == pytest.approx(0.0059, abs=1e-4)


def test_a_use_is_degraded_where_all_its_tasks_together_show_a_loss():
    """Each of three identical checkpoints' tasks shows one by chance in 5 %: a use must not do so in 14 %."""
    pair = {"sums": (9, 2, 2000), "cloze": (3, 3, 2000)}
    alone = only(*tables(sums=pair["sums"]))
    assert alone.tasks[0].p_degraded == pytest.approx(67 / 2048)
    assert alone.degraded
    both = only(*tables(**pair), SUMS, WORDS)
    assert both.tasks[0].degraded
    assert not both.degraded


def test_every_required_task_must_pass_and_the_worst_is_shown():
    verdict = only(*tables(sums=(2, 2, 1000), cloze=(45, 35, 400)), SUMS, WORDS)
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert verdict.worst_task == "cloze"
    assert verdict.quality_delta == pytest.approx(-10 / 400)
    assert [task.outcome for task in verdict.tasks] == [Outcome.PASS, Outcome.UNDECIDED]
    assert verdict.reason.startswith("cloze: delta -2.5 points")
    assert (
        only(*tables(sums=(2, 2, 1000), cloze=(45, 35, 400)), SUMS, WORDS, use="math").verdict
        is Verdict.VALIDATED
    )


def test_two_tasks_of_a_family_are_both_required():
    other = SuiteTask(task="cloze", family=MATH)
    verdict = only(*tables(sums=(0, 0, 1000), cloze=(43, 32, 1000)), SUMS, other, use="math")
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert [task.task for task in verdict.tasks] == ["sums", "cloze"]


def test_the_worst_task_is_the_one_nearest_to_its_own_margin():
    # cloze has the lower delta and the wider margin; sums is nearer to its own.
    verdict = only(*tables(sums=(8, 0, 1000), cloze=(12, 0, 1000)), SUMS, WORDS)
    assert verdict.tasks[1].ci_low < verdict.tasks[0].ci_low
    assert verdict.worst_task == "sums"
    assert verdict.ci_low == tango_interval(8, 0, 1000, 0.05).low


def test_rejection_takes_holms_correction():
    # p about .04 on one of two tasks: rejected alone, not beside another.
    flips = next((b, 4, 1000) for b in range(24, 80) if p_inferior(b, 4, 1000, 0.02) <= 0.05)
    assert 0.025 < p_inferior(*flips, 0.02) <= 0.05
    assert only(*tables(sums=flips)).verdict is Verdict.REJECTED
    beside = only(*tables(sums=flips, cloze=(0, 0, 1000)), SUMS, WORDS)
    assert beside.verdict is Verdict.INCONCLUSIVE
    assert beside.tasks[0].p_inferior_holm == pytest.approx(2 * beside.tasks[0].p_inferior)


def test_too_few_documents_validate_nothing():
    verdict = only(*tables(sums=(0, 0, 299)))
    assert verdict.tasks[0].p_noninferior <= 0.05
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert verdict.documents_needed == 300
    assert verdict.reason.endswith("299 documents, and the policy asks for at least 300")


def test_a_missing_family_or_task_is_named():
    pair = tables(sums=(0, 0, 1000))
    assert only(*pair, use="both").verdict is Verdict.INCONCLUSIVE
    assert only(*pair, use="both").reason == "not measured: family conversation"
    declared_only = only(*pair, SUMS, WORDS)
    assert declared_only.verdict is Verdict.INCONCLUSIVE
    assert declared_only.reason == "not measured: task cloze"
    assert [task.task for task in declared_only.tasks] == ["sums"]


def test_a_use_of_which_nothing_was_measured_is_unvalidated():
    pair = tables(sums=(0, 0, 1000))
    assert only(*pair, use="code").verdict is Verdict.UNVALIDATED
    assert only(*pair, use="code").reason == "not measured: family code"
    declared_only = {v.use: v for v in judge(*tables(cloze=(0, 0, 200)), "tests", POLICY, [SUMS, WORDS])}
    assert declared_only["math"].verdict is Verdict.UNVALIDATED
    assert declared_only["math"].reason == "not measured: task sums"
    assert declared_only["all"].verdict is Verdict.INCONCLUSIVE


def test_without_quality_nothing_is_validated():
    baseline, candidate = tables(sums=(0, 0, 1000))
    for verdict in (
        *judge(baseline, candidate.slice(0, 0), "tests", POLICY, [SUMS]),
        *judge(baseline, candidate, "tests", POLICY, []),
        only(baseline, candidate.slice(0, 0)),
    ):
        assert verdict.verdict is Verdict.UNVALIDATED
        assert verdict.quality_delta is None
        assert verdict.tasks == ()


def test_all_uses_are_judged_in_the_policys_order():
    verdicts = judge(*tables(sums=(0, 0, 1000), cloze=(0, 0, 200)), "tests", POLICY, [SUMS, WORDS])
    assert [(v.use, str(v.verdict)) for v in verdicts] == [
        ("all", "VALIDATED"),
        ("math", "VALIDATED"),
        ("both", "VALIDATED"),
        ("code", "UNVALIDATED"),
    ]
    assert {v.policy for v in verdicts} == {"tests"}


def holm(p_values):
    order = np.argsort(p_values)
    steps = np.maximum.accumulate(np.array(p_values)[order] * np.arange(len(p_values), 0, -1))
    return np.minimum(steps, 1)[np.argsort(order)]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12), st.integers(60, 500)), min_size=1, max_size=2)
)
def test_verdicts_follow_from_counts(counts):
    """Counts to verdict, computed a second time from the definitions alone."""
    named = dict(zip(("sums", "cloze"), counts, strict=False))
    declared = [task for task in (SUMS, WORDS) if task.task in named]
    rules = {task.task: POLICY.families[task.family] for task in declared}
    verdict = only(*tables(**named), *declared)
    noninferior = [p_noninferior(b, c, n, rules[t].margin) for t, (b, c, n) in named.items()]
    corrected = holm([p_inferior(b, c, n, rules[t].margin) for t, (b, c, n) in named.items()])
    enough = [n >= rules[t].min_documents for t, (_, _, n) in named.items()]
    if any(p <= 0.05 for p in corrected):
        expected = Verdict.REJECTED
    elif all(p <= 0.05 for p in noninferior) and all(enough):
        expected = Verdict.VALIDATED
    else:
        expected = Verdict.INCONCLUSIVE
    assert verdict.verdict is expected
    lows = {t: tango_interval(b, c, n, 0.05).low + rules[t].margin for t, (b, c, n) in named.items()}
    assert verdict.worst_task == min(lows, key=lows.get)
    b, c, n = named[verdict.worst_task]
    assert verdict.quality_delta == pytest.approx((c - b) / n)
    assert verdict.flip_rate == pytest.approx((b + c) / n)
    degraded = [p_degraded(b, c) for b, c, _ in named.values()]
    assert verdict.degraded == (len(degraded) * min(degraded) <= 0.05)
    for task in verdict.tasks:
        baseline, candidate = scores(*named[task.task])
        assert task.baseline_score == pytest.approx(baseline.mean())
        assert task.candidate_score == pytest.approx(candidate.mean())
        assert (task.worse, task.better, task.pairs) == named[task.task]
        assert task.test == TestKind.EXACT


def test_partial_credit_is_judged_by_the_bounded_test():
    rng = np.random.default_rng(5)
    before = rng.uniform(0.3, 0.9, 3000)
    same, lower = before + rng.normal(0, 0.03, 3000), before - 0.1
    validated = only(table(rows(SUMS, before)), table(rows(SUMS, same.clip(0, 1))))
    assert validated.verdict is Verdict.VALIDATED
    assert validated.tasks[0].test == TestKind.BETTING
    assert validated.ci_low < validated.quality_delta < validated.ci_high
    rejected = only(table(rows(SUMS, before)), table(rows(SUMS, lower)))
    assert rejected.verdict is Verdict.REJECTED
    assert rejected.degraded
    assert rejected.quality_delta == pytest.approx(-0.1)
    few = only(table(rows(SUMS, before[:50])), table(rows(SUMS, same[:50].clip(0, 1))))
    assert few.verdict is Verdict.INCONCLUSIVE
    assert few.documents_needed > 300


def test_a_family_without_a_margin_is_a_mistake_in_the_policy():
    code = SuiteTask(task="humaneval", family=CODE)
    with pytest.raises(
        ConfigError, match="policy tests: no margin for family 'code', which task humaneval"
    ) as error:
        judge(*tables(sums=(0, 0, 10)), "tests", POLICY, [SUMS, code])
    assert "Add 'code:" in error.value.hint
    assert error.value.exit_status == 2
    check_policy("tests", POLICY, [SUMS, WORDS])
    with pytest.raises(ConfigError, match="can never be met"):
        check_policy("tests", POLICY.model_copy(update={"alpha": 0.001}), [SUMS])


def test_untested_verdicts_cover_every_use():
    verdicts = untested(Verdict.BASELINE, "tests", POLICY, "it is the baseline")
    assert [v.use for v in verdicts] == list(POLICY.uses)
    assert {v.verdict for v in verdicts} == {Verdict.BASELINE}
    assert all(v.quality_delta is None and v.degraded is None for v in verdicts)


def test_finished_runs_are_judged_from_their_bundles(place, three):
    place.write(*three)

    def read(run: Any) -> tuple[Manifest, pa.Table]:
        folder = place.bundles / run.run_id
        text = (folder / "manifest.json").read_text()
        return Manifest.model_validate_json(text), pq.read_table(folder / "samples.parquet", schema=SAMPLES)

    baseline, fp8, nvfp4 = (read(run) for run in three)
    assert [v.verdict for v in judge_runs(*baseline, *fp8)] == [Verdict.VALIDATED] * 3
    by_use = {v.use: v for v in judge_runs(*baseline, *nvfp4)}
    assert by_use["math"].verdict is Verdict.REJECTED
    assert by_use["all"].verdict is Verdict.REJECTED
    assert by_use["conversation"].verdict is Verdict.VALIDATED
    other_engine = fp8[0].model_copy(
        update={"inputs": fp8[0].inputs.model_copy(update={"engine_version": "0.26.0"})}
    )
    verdicts = judge_runs(*baseline, other_engine, fp8[1])
    assert {v.verdict for v in verdicts} == {Verdict.NOT_COMPARABLE}
    assert verdicts[0].reason == "engine differs: baseline vllm 0.25.1, candidate vllm 0.26.0"
    nothing = fp8[0].model_copy(update={"tasks": ()})
    assert {v.verdict for v in judge_runs(*baseline, nothing, fp8[1].slice(0, 0))} == {Verdict.UNVALIDATED}


def test_holm_by_hand() -> None:
    """Sorted .01, .02, .03, .2 times 4, 3, 2, 1, each at least its forerunner."""
    adjusted = holm_adjusted(np.array([0.2, 0.01, 0.03, 0.02]))
    assert adjusted.tolist() == pytest.approx([0.2, 0.04, 0.06, 0.06])
    assert holm_adjusted(np.array([0.6, 0.9])).tolist() == [1.0, 1.0]
