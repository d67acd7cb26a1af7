"""The baseline against itself over a restart of its engine (A/A): what is asked again, by whom, what a kill costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantgate.bundles.schema import PROMPTS, SAMPLES
from quantgate.bundles.staging import Staging, open_staging, write_json
from quantgate.model.config.policy import Policy, load_policy
from quantgate.model.home import Home
from quantgate.model.records import BaselineRef, RunPlan
from tasks.resume import aa_repeat
from tests.quantgate.bundles.test_seal import plan, sample
from tests.quantgate.bundles.test_staging import finish_task, inputs, start
from tests.support.looked_runs import LOOKS, Killed, LookedRuns, looked_runs  # noqa: F401 - a fixture


def few(aa_documents: int = 10) -> Policy:
    """The demo's policy for a few documents."""
    policy = load_policy("demo")
    families = {f: rule.model_copy(update={"min_documents": 20}) for f, rule in policy.families.items()}
    return policy.model_copy(update={"families": families, "aa_documents": aa_documents})


def planned(aa_documents: int = 10, **changes: Any) -> RunPlan:
    return plan().model_copy(update={"policy": few(aa_documents)} | changes)


def answered(staging: Staging, task: str, documents: int = 24, start_id: str = "s1") -> None:
    """A finished part of so many documents."""
    finish_task(staging, task, start_id)
    file = staging.task_dir(task) / "result.json"
    result = staging.task_result(task)
    assert result is not None
    write_json(file, result.model_copy(update={"documents": documents}).model_dump(mode="json"))
    rows = [sample(task, number) | {"engine_start_id": start_id} for number in range(documents)]
    pq.write_table(pa.Table.from_pylist(rows, SAMPLES), file.with_name("samples.parquet"))
    prompts = [{"prompt_hash": row["prompt_hash"], "text": "x"} for row in rows]
    pq.write_table(pa.Table.from_pylist(prompts, PROMPTS), file.with_name("prompts.parquet"))


@pytest.fixture
def staging() -> Staging:
    return open_staging(Home.current(), inputs(), {"checkpoint": "x"})


def test_a_baseline_is_asked_again_once_it_has_answered(staging: Staging) -> None:
    assert aa_repeat.missing(planned(), staging) == []
    answered(staging, "a")
    answered(staging, "b", documents=19)  # fewer than the policy asks for: it validates nothing
    assert [task.task for task in aa_repeat.missing(planned(), staging)] == ["a"]
    answered(staging.controls, "a", documents=10, start_id="s2")
    assert aa_repeat.missing(planned(), staging) == []


def test_neither_a_candidate_nor_a_policy_without_it_has_an_a_a(staging: Staging) -> None:
    answered(staging, "a")
    assert aa_repeat.missing(planned(0), staging) == []
    candidate = planned(baseline=BaselineRef(name="x", revision="sha256:1", run_id="r"))
    assert aa_repeat.missing(candidate, staging) == []


def test_it_asks_the_first_documents_up_to_the_limit() -> None:
    for limit, asked in ((None, 10), (24, 10), (4, 4)):
        suite = planned().suite
        assert suite is not None
        again = aa_repeat.once_more(planned(suite=suite.model_copy(update={"limit": limit})))
        assert again.suite == suite.model_copy(update={"limit": asked})
        assert again.checkpoint.path == planned().checkpoint.path


def test_only_another_start_of_the_same_engine_counts(staging: Staging) -> None:
    staging.add_start(start(1))
    answered(staging, "a")
    task = aa_repeat.missing(planned(), staging)[0]
    assert not aa_repeat.over_a_restart(planned(), staging, task, start(1))
    assert aa_repeat.over_a_restart(planned(), staging, task, start(2))
    assert staging.joins(start(2))
    assert not staging.joins(start(2, kernel="B"))


def test_parts_of_another_engine_take_their_second_answers_with_them(staging: Staging) -> None:
    staging.add_start(start(1))
    answered(staging, "a")
    answered(staging.controls, "a", start_id="s2")
    staging.add_start(start(3, kernel="B"))
    assert staging.controls.task_result("a") is None


def again(documents: int) -> Policy:
    """A policy that judges at the end alone and asks so many documents again."""
    return LOOKS.model_copy(update={"looks": (), "aa_documents": documents})


def test_the_engine_is_started_once_more_and_a_kill_then_costs_the_a_a_alone(
    looked_runs: LookedRuns,  # noqa: F811
) -> None:
    looked_runs.policy, looked_runs.kill_before = again(10), 1
    with pytest.raises(Killed):
        looked_runs.validate(looked_runs.good, limit=60)
    (staged,) = Home.current().staging.glob("[!.]*/quality/[!.]*/samples.parquet")
    kept = pq.read_table(staged)
    looked_runs.kill_before = None
    manifest, candidate = looked_runs.validate(looked_runs.good, limit=60)
    assert looked_runs.asked_of(looked_runs.baseline) == [(0, 10)]

    bundle = Path(Home.current().bundles) / manifest.run_id
    own, second = (pq.read_table(bundle / f"{name}.parquet") for name in ("samples", "control_samples"))
    assert own.equals(kept)
    starts = [set(table["engine_start_id"].to_pylist()) for table in (own, second)]
    assert starts[0].isdisjoint(starts[1])
    assert starts[0] | starts[1] <= {one.engine_start_id for one in manifest.engine_starts}
    assert sorted(second["position"].to_pylist()) == list(range(10))
    one, two = (table.drop_columns(["engine_start_id"]).to_pylist() for table in (own, second))
    assert all(row in one for row in two), "the stub says the same after a restart"
    assert any("quantgate-demo-BF16 once more (A/A): sums: done" in line for line in looked_runs.lines)
    assert candidate.files["control_samples.parquet"].rows == 0


def test_an_engine_that_comes_up_with_other_kernels_gives_no_a_a_and_takes_nothing_away(
    looked_runs: LookedRuns,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_runs.policy = again(10)
    monkeypatch.setattr(Staging, "joins", lambda *_: False)
    manifest, _ = looked_runs.validate(looked_runs.good, limit=60)
    assert manifest.files["control_samples.parquet"].rows == 0
    assert manifest.files["samples.parquet"].rows == 60
    assert len(manifest.engine_starts) == 1
    assert any("chose other kernels at this start" in line for line in looked_runs.lines)


def test_a_baseline_that_goes_on_answers_again_what_its_short_a_a_left_out(
    looked_runs: LookedRuns,  # noqa: F811
) -> None:
    """By way of the same question, and of another workload's bundle."""
    looked_runs.policy = again(50)
    short, _ = looked_runs.validate(looked_runs.good, limit=40)
    assert short.files["control_samples.parquet"].rows == 40
    for parameters in ({"limit": 100}, {"limit": 150, "concurrency": [3]}):
        longer, _ = looked_runs.validate(looked_runs.good, **parameters)
        asked = looked_runs.asked_of(looked_runs.baseline)
        assert asked == ([(40, 100), (40, 50)] if parameters["limit"] == 100 else [(100, 150)])
        second = pq.read_table(Path(Home.current().bundles) / longer.run_id / "control_samples.parquet")
        assert sorted(second["position"].to_pylist()) == list(range(50))
        assert longer.continues == (short.run_id if parameters["limit"] == 100 else None)
    looked_runs.policy = again(50).model_copy(update={"alpha": 0.04})
    looked_runs.validate(looked_runs.good, limit=45)
    assert looked_runs.asked_of(looked_runs.baseline) == []
    looked_runs.policy = again(60)
    looked_runs.validate(looked_runs.good, limit=100)
    assert looked_runs.asked_of(looked_runs.baseline) == [(50, 60)]
