"""Recorded answers of one checkpoint in many runs (tests/fixtures/verdicts): it is as good as itself."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantgate.model.enums import Outcome, Verdict
from quantgate.model.home import ROOT
from tests.support.demo_bundles import BUNDLES, manifests
from tests.verdicts import same, scores
from tests.verdicts.claims import BASELINE, judged
from tests.verdicts.looks import LOOKS, followed
from tests.verdicts.page import same_table


@pytest.fixture(scope="module")
def sampled() -> list[pa.Table]:
    """Runs at a temperature, each with its documents in the order in which they are asked."""
    return [run.sort_by("position") for run in scores.read("sampled").values()]


def test_greedy_answers_survive_a_restart() -> None:
    """The demo's own run and the one recorded here: other starts of the engine, another home, another hour."""
    samples = pq.read_table(BUNDLES / manifests()[0].run_id / "samples.parquet")
    before = scores.as_samples(scores.compact({"demo": samples}))
    after = scores.read("damaged")[BASELINE]
    assert len(before) == len(after) == 3000
    verdicts = judged(before, after)
    assert {one.verdict for one in verdicts.values()} == {Verdict.VALIDATED}
    assert verdicts["all"].flip_rate == 0.0
    assert not verdicts["all"].degraded


def test_every_sampled_run_is_another_one_of_the_same_documents(sampled: list[pa.Table]) -> None:
    answers = [tuple(run["score"].to_pylist()) for run in sampled]
    assert len(set(answers)) == len(sampled) == 21
    assert len({tuple(run["doc_id"].to_pylist()) for run in sampled}) == 1
    assert len(set(sampled[0]["doc_id"].to_pylist())) == len(sampled[0]) == 1000


def test_two_hundred_pairs_of_runs_at_the_demos_margin(sampled: list[pa.Table]) -> None:
    """Distinct pairs of 21 runs. A run is in some nineteen of them: they are many, and not independent."""
    found = same.rates(same.overlapping(sampled), 0.02)
    same.check_false_alarms(found, same.TRIALS)
    same.check_power(found, same.TRIALS, 1000, 0.02)


def test_two_hundred_independent_trials(sampled: list[pa.Table]) -> None:
    trials = same.independent(sampled)
    assert len(trials) == same.TRIALS
    assert {len(one) for one, _ in trials} == {50}
    found = same.rates(trials, 0.15)
    same.check_false_alarms(found, same.TRIALS)
    same.check_power(found, same.TRIALS, 50, 0.15)


def test_independent_runs_judged_on_their_way(sampled: list[pa.Table]) -> None:
    """Batch by batch on up to a thousand documents: disjoint pairs of runs, either against the other."""
    policy = same.policy(0.05, LOOKS)
    ends = [
        followed(*pair, same.TASK, policy)
        for one, other in zip(sampled[::2], sampled[1::2], strict=False)
        for pair in ((one, other), (other, one))
    ]
    assert len(ends) == 20
    assert all(end.outcome == Outcome.PASS for end in ends)
    assert sum(end.pairs for end in ends) / len(ends) < 500


def test_the_page_shows_what_was_recorded() -> None:
    shown = (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8")
    assert "\n".join(["<!-- what it catches: same -->", *same_table(), ""]) in shown
