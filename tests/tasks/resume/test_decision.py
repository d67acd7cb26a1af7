"""What earlier runs ask of a validation before anything is measured: refusals, and which answers a baseline keeps."""

from __future__ import annotations

import re
from typing import Any

import pytest

from flows.planning import runs
from quantgate.bundles.identity import run_fingerprint
from quantgate.bundles.manifest import Manifest
from quantgate.model.errors import ConfigError
from quantgate.model.home import Home
from tasks.resume.decision import Measure
from tests.support.looked_runs import Killed, LookedRuns, looked_runs

__all__ = ["looked_runs"]

NOISY = {"quantgate-demo-BF16": 0.97}
"""Skills of an engine that answers otherwise than before, with the same kernels."""


@pytest.mark.parametrize(("limit", "skills"), [(None, {}), (60, NOISY), (150, NOISY)])
def test_after_a_drift_check_the_chain_that_decides_goes_on(
    looked_runs: LookedRuns, limit: int | None, skills: dict[str, float]
) -> None:
    first = looked_runs.validate(looked_runs.good, limit=60)
    looked_runs.engine(skills)
    fresh = looked_runs.validate(looked_runs.good, limit=limit, fresh=True)
    assert fresh[1].continues is None
    looked_runs.engine()
    baseline, candidate = looked_runs.validate(looked_runs.good)
    assert candidate.continues == first[1].run_id
    assert looked_runs.asked_of(looked_runs.good) == [(60, 120)]
    if skills:
        assert looked_runs.asked_of(looked_runs.baseline) == [(60, None)]
        assert baseline.continues == first[0].run_id, "not the drift check's, whose answers differ"
    verdicts = looked_runs.verdicts()
    assert verdicts[candidate.run_id]["verdict"] == "VALIDATED"
    decided_by = {verdicts[run.run_id]["decided_by"] for run in (first[1], fresh[1], candidate)}
    assert decided_by == {candidate.run_id}

    again = looked_runs.validate(looked_runs.good)
    assert again == [baseline, candidate]
    assert looked_runs.asked == []


def test_of_several_runs_of_a_baseline_the_largest_is_enough(looked_runs: LookedRuns) -> None:
    bad, close, good = looked_runs.bad, looked_runs.close, looked_runs.good
    looked_runs.validate(bad, limit=60)
    full = looked_runs.validate(bad, close, good)[0]
    assert full.tasks[0].documents == 300
    found = looked_runs.validate(bad, close, good, limit=250)
    assert looked_runs.asked == []
    assert found[0] == full


def test_a_candidate_named_twice_is_refused_once(
    looked_runs: LookedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_runs.validate(looked_runs.good, limit=60)
    looked_runs.elsewhere(monkeypatch, device_name="another CPU")
    with pytest.raises(ConfigError, match="has begun to answer this question"):
        looked_runs.validate(looked_runs.good, looked_runs.good)
    assert looked_runs.asked == []


def test_a_question_that_another_host_answers_meanwhile_is_decided_by_the_first_that_was_declared(
    looked_runs: LookedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = looked_runs.validate(looked_runs.good, limit=60)
    looked_runs.elsewhere(monkeypatch, device_name="another CPU")
    monkeypatch.setattr(
        runs, "decide_all", lambda plans, *_, **__: {run_fingerprint(p.inputs): Measure() for p in plans}
    )
    _, good, bad = looked_runs.validate(looked_runs.good, looked_runs.bad)
    assert good.continues is None
    verdicts = looked_runs.verdicts()
    assert verdicts[good.run_id]["decided_by"] == first.run_id, "it was declared first"
    assert verdicts[bad.run_id]["decided_by"] == bad.run_id


def test_a_chain_that_goes_on_beside_a_drift_check_does_so_after_a_kill(looked_runs: LookedRuns) -> None:
    _, first = looked_runs.validate(looked_runs.close, limit=60)
    looked_runs.validate(looked_runs.close, fresh=True)
    looked_runs.kill_before = 1
    with pytest.raises(Killed):
        looked_runs.validate(looked_runs.close)
    assert looked_runs.asked == [("close", 60, 120)]
    looked_runs.kill_before = None
    _, candidate = looked_runs.validate(looked_runs.close)
    assert looked_runs.asked[0] == ("close", 120, 180)
    assert candidate.continues == first.run_id


def test_candidates_that_were_judged_against_other_answers_go_on_one_by_one(looked_runs: LookedRuns) -> None:
    _, good = looked_runs.validate(looked_runs.good, limit=60)
    looked_runs.engine({**NOISY, "close": 0.9})
    fresh, close = looked_runs.validate(looked_runs.close, limit=60, fresh=True)
    looked_runs.engine()
    _, candidate = looked_runs.validate(looked_runs.good, looked_runs.close, failing=1)
    assert candidate.continues == good.run_id
    assert looked_runs.asked_of(looked_runs.close) == []
    (refused,) = looked_runs.failures
    assert re.search(f"close: run {close.run_id}.*other answers.*Validate them one by one", refused)
    told = looked_runs.lines.index(refused.replace("close: ", "close: not measured: ", 1))
    assert told < next(
        i for i, line in enumerate(looked_runs.lines) if f"goes on from run {good.run_id}" in line
    )
    baseline, candidate = looked_runs.validate(looked_runs.close)
    assert (baseline.continues, candidate.continues) == (fresh.run_id, close.run_id)


def test_a_baseline_is_not_asked_what_no_candidate_needs(looked_runs: LookedRuns) -> None:
    first = looked_runs.validate(looked_runs.good, limit=200)
    assert first[1].tasks[0].documents < 200
    again = looked_runs.validate(looked_runs.good)
    assert again == first
    assert looked_runs.asked == []
    told = "quantgate-demo-BF16: nothing to do: its candidates ask for no more than run "
    assert f"{told}{first[0].run_id} has answered" in looked_runs.lines
    other = looked_runs.validate(looked_runs.good, looked_runs.bad)
    assert other[0].continues == first[0].run_id, "for the new candidate it goes on"
    assert other[1] == first[1]


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({"device_name": "another CPU"}, r"its device name \(.* in that run, another CPU now\) differs"),
        ({"gpu_count": 2}, r"its gpu count \(1 in that run, 2 now\) differs"),
    ],
)
def test_a_question_that_is_on_its_way_in_another_setting_is_refused_at_once(
    looked_runs: LookedRuns, monkeypatch: pytest.MonkeyPatch, inputs: dict[str, Any], told: str
) -> None:
    _, first = looked_runs.validate(looked_runs.good, limit=60)
    with monkeypatch.context() as patch:
        looked_runs.elsewhere(patch, **inputs)
        with pytest.raises(ConfigError, match=f"run {first.run_id} has begun .* {told}.* --fresh"):
            looked_runs.validate(looked_runs.good)
        assert looked_runs.asked == []
        checked = looked_runs.validate(looked_runs.good, limit=60, fresh=True)
        assert looked_runs.validate(looked_runs.good, limit=60) == checked, "what is measured is known"
    _, candidate = looked_runs.validate(looked_runs.good)
    assert candidate.continues == first.run_id
    looked_runs.elsewhere(monkeypatch, **inputs)
    _, there = looked_runs.validate(looked_runs.good)
    assert there.continues == checked[1].run_id, "a drift check goes on as well"
    assert looked_runs.verdicts()[there.run_id]["decided_by"] == candidate.run_id


def test_a_baseline_in_another_setting_is_refused_while_a_chain_goes_on_and_measured_once_it_has_decided(
    looked_runs: LookedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = looked_runs.validate(looked_runs.good, limit=60)
    with monkeypatch.context() as patch:
        looked_runs.elsewhere(patch, candidates=False, gpu_count=2)
        refused = rf"run {first[1].run_id} is INCONCLUSIVE and was judged against the baseline of run {first[0].run_id}"
        with pytest.raises(
            ConfigError, match=rf"{refused}.*their gpu count \(1 in that run, 2 now\) differs"
        ):
            looked_runs.validate(looked_runs.good)
        assert looked_runs.asked == []
    second = looked_runs.validate(looked_runs.good)
    looked_runs.elsewhere(monkeypatch, gpu_count=2)
    third = looked_runs.validate(looked_runs.good)
    assert third[1].continues is None
    told = f"VALIDATED by run {second[1].run_id}; this run is one of its own, which decides nothing"
    assert f"quantgate-demo-BF16: {told}" in looked_runs.lines


def test_another_engine_version_or_serving_is_another_question(
    looked_runs: LookedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = looked_runs.validate(looked_runs.good, limit=60)
    looked_runs.elsewhere(monkeypatch, engine_version="0.0.2")
    _, candidate = looked_runs.validate(looked_runs.good, limit=130)
    assert candidate.continues is None
    told = (
        f"run {first.run_id} is not continued, its engine version differs, which makes this another question"
    )
    assert told in "\n".join(looked_runs.lines)
    assert looked_runs.verdicts()[candidate.run_id]["decided_by"] == candidate.run_id


def test_there_is_no_second_try_after_looks(looked_runs: LookedRuns) -> None:
    looked_runs.kill_before = 2
    with pytest.raises(Killed):
        looked_runs.validate(looked_runs.close, limit=250)
    looked_runs.kill_before = None
    refused = "unfinished and has had interim looks.*: the same command {} goes on with it"
    with pytest.raises(ConfigError, match=refused.format("without --full and with --limit 250")):
        looked_runs.validate(looked_runs.close, full=True)
    with pytest.raises(ConfigError, match=refused.format("with --limit 250")):
        looked_runs.validate(looked_runs.close)
    with pytest.raises(ConfigError, match=refused.format("without --fresh")):
        looked_runs.validate(looked_runs.close, limit=250, fresh=True)
    assert looked_runs.asked == []
    _, candidate = looked_runs.validate(looked_runs.close, limit=250)
    assert looked_runs.asked[0] == ("close", 60, 120)
    _, full = looked_runs.validate(looked_runs.close, full=True)
    assert full.continues == candidate.run_id, (
        "which ended between two looks: the chain's alpha is all there is"
    )
    assert list(Home.current().staging.glob("[!.]*")) == []


def test_a_check_that_was_stopped_may_begin_anew(looked_runs: LookedRuns) -> None:
    _, decided = looked_runs.validate(looked_runs.good)
    looked_runs.kill_before = 2
    with pytest.raises(Killed):
        looked_runs.validate(looked_runs.good, fresh=True)
    looked_runs.kill_before = None
    _, check = looked_runs.validate(looked_runs.good, fresh=True)
    assert looked_runs.verdicts()[check.run_id]["decided_by"] == decided.run_id


def test_full_is_no_second_try_where_a_drift_check_was_stopped(looked_runs: LookedRuns) -> None:
    first = looked_runs.validate(looked_runs.good)
    looked_runs.kill_before = 2
    with pytest.raises(Killed):
        looked_runs.validate(looked_runs.good, limit=100, fresh=True)
    assert looked_runs.asked_of(looked_runs.good) == [(0, 60)]
    looked_runs.kill_before = None
    assert looked_runs.validate(looked_runs.good, full=True) == first
    assert looked_runs.asked == []


def test_full_that_was_killed_has_shown_nothing(looked_runs: LookedRuns) -> None:
    looked_runs.kill_before = 1
    with pytest.raises(Killed):
        looked_runs.validate(looked_runs.good, full=True)
    looked_runs.kill_before = None
    found: list[Manifest] = looked_runs.validate(looked_runs.good, full=True)
    assert found[1].tasks[0].documents == 300
