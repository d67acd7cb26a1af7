"""Candidates that are judged on their way: they stop as soon as they are decided, and a kill asks nothing twice."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantgate.bundles import batches
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.schema import PROMPTS, SAMPLES
from quantgate.bundles.staging import open_staging
from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.enums import Family
from quantgate.model.errors import ConfigError
from quantgate.model.home import Home
from quantgate.model.records import BaselineRef, RunPlan, TaskContent
from tasks.resume import interim_looks
from tasks.resume.interim_looks import Asked, Baseline, next_documents
from tests.quantgate.bundles.test_seal import plan, sample
from tests.quantgate.bundles.test_staging import inputs
from tests.support.looked_runs import ALL, LOOKS, Killed, LookedRuns, looked_runs
from tests.support.sample_rows import task_result

__all__ = ["looked_runs"]


def positions(manifest: Manifest) -> list[int]:
    """Which documents a run's bundle holds, in their order."""
    place = f"{Home.current().bundles}/{manifest.run_id}/samples.parquet"
    return sorted(pq.read_table(place, columns=["position"])["position"].to_pylist())


def test_a_good_candidate_stops_early_and_a_bad_one_earlier(looked_runs: LookedRuns) -> None:
    baseline, good, bad = looked_runs.validate(looked_runs.good, looked_runs.bad)
    (all_of_it,), (stopped,), (rejected,) = baseline.tasks, good.tasks, bad.tasks
    assert (all_of_it.documents, all_of_it.documents_available, all_of_it.looks) == (ALL, ALL, ())
    assert (stopped.documents, stopped.documents_available) == (stopped.looks[-1], ALL)
    assert stopped.looks in {(60,), (60, 120)}
    assert (rejected.documents, rejected.looks) == (60, (60,))
    assert positions(baseline) == list(range(ALL))
    assert positions(good) == list(range(stopped.documents))
    assert looked_runs.asked_of(looked_runs.bad) == [(0, 60)]
    verdicts = looked_runs.verdicts()
    assert [verdicts[run.run_id]["verdict"] for run in (baseline, good, bad)] == [
        "BASELINE",
        "VALIDATED",
        "REJECTED",
    ]
    assert f"{stopped.documents} of 300 documents: validated within 5 points, stopped" in "\n".join(
        looked_runs.lines
    )


def test_a_kill_between_batches_asks_nothing_twice(looked_runs: LookedRuns) -> None:
    """The baseline was finished, the candidate had two batches: the same command asks the rest."""
    looked_runs.kill_before = 3
    with pytest.raises(Killed):
        looked_runs.validate(looked_runs.close)
    assert looked_runs.asked_of(looked_runs.close) == [(0, 60), (60, 120)]
    looked_runs.kill_before = None
    baseline, candidate = looked_runs.validate(looked_runs.close)
    (task,) = candidate.tasks
    assert looked_runs.asked == [("close", start, start + 60) for start in range(120, task.documents, 60)]
    assert positions(candidate) == list(range(task.documents))
    assert task.looks == tuple(range(60, task.documents + 60, 60))
    assert len(candidate.engine_starts) == 2
    assert sum("60 of 300 documents: undecided, going on" in line for line in looked_runs.lines) == 1
    assert list(Home.current().staging.glob("[!.]*")) == []
    assert positions(baseline) == list(range(ALL))


def test_a_task_that_the_baseline_cannot_do_stops_at_its_first_look(looked_runs: LookedRuns) -> None:
    """Its candidate answers as it does, and passed by the differences alone."""
    looked_runs.engine({"quantgate-demo-BF16": 0.02})
    baseline, candidate = looked_runs.validate(looked_runs.good)
    assert baseline.tasks[0].mean_score < 0.05
    assert (baseline.tasks[0].documents, candidate.tasks[0].documents) == (ALL, 60)
    assert looked_runs.asked_of(looked_runs.good) == [(0, 60)]
    lines = "\n".join(looked_runs.lines)
    assert "60 of 300 documents: stopped, more documents would change nothing: sums: insensitive" in lines
    verdict = looked_runs.verdicts()[candidate.run_id]
    assert verdict["verdict"] == "INCONCLUSIVE"
    assert "sums: insensitive: the baseline scores" in verdict["reason"]
    assert "of 300 documents" in verdict["reason"]
    looked_runs.lines.clear()
    assert looked_runs.validate(looked_runs.good)[1].run_id == candidate.run_id
    assert looked_runs.asked == []


def test_more_answers_of_the_baseline_may_let_the_candidate_go_on(looked_runs: LookedRuns) -> None:
    """A few are right: of 20 documents they are not surely more than the margin of 5 points, of 300 they are."""
    looked_runs.engine({"quantgate-demo-BF16": 0.13})
    _, first = looked_runs.validate(looked_runs.good, limit=20)
    assert "insensitive" in looked_runs.verdicts()[first.run_id]["reason"]
    baseline, second = looked_runs.validate(looked_runs.good)
    assert baseline.tasks[0].documents == ALL
    assert (second.continues, second.tasks[0].documents > 20) == (first.run_id, True)
    assert looked_runs.verdicts()[second.run_id]["verdict"] == "VALIDATED"


TASK = SuiteTask(task="a", family=Family.MATH)


def planned(limit: int | None = None, **suite: object) -> RunPlan:
    """A candidate's, under a policy with looks."""
    return plan().model_copy(
        update={
            "policy": LOOKS,
            "baseline": BaselineRef(name="x", revision="sha256:1", run_id="r"),
            "suite": Suite(name="s", tasks=(TASK,), limit=limit),
            "inputs": inputs(suite=suite),
        }
    )


@pytest.mark.parametrize(
    ("clusters", "limit", "suite", "asked"),
    [
        (300, None, {}, Asked(0, 60)),
        (300, 40, {}, Asked(0, 40)),
        (300, None, {"full": True}, Asked(0, 300)),
        (300, 40, {"full": True}, Asked(0, 40)),
        (30, None, {}, Asked(0, 300)),  # judged at the end alone
        (30, 70, {}, Asked(0, 70)),
    ],
)
def test_what_is_asked_first(
    monkeypatch: pytest.MonkeyPatch,
    clusters: int,
    limit: int | None,
    suite: dict[str, object],
    asked: Asked,
) -> None:
    rows = [
        sample("a", number) | {"cluster": str(number % clusters), "position": number} for number in range(ALL)
    ]
    baseline = Baseline(pa.Table.from_pylist(rows, SAMPLES), {"a": ALL})
    monkeypatch.setattr(interim_looks, "baseline_of", lambda *_: baseline)
    staging = open_staging(Home.current(), inputs(), {"checkpoint": "x"})
    assert next_documents(planned(limit, **suite), TASK, staging, "place") == asked
    alone = planned(limit, **suite).model_copy(update={"baseline": None})
    assert next_documents(alone, TASK, staging, "place") == Asked(0, limit)
    once = planned(limit, **suite).model_copy(update={"policy": LOOKS.model_copy(update={"looks": ()})})
    assert next_documents(once, TASK, staging, "place") == Asked(0, limit)


@pytest.mark.parametrize(
    ("recorded", "why"),
    [
        ("today", None),
        (None, "a: 60 documents answered in the order of an earlier version, which others can't join"),
        ("changed", "a: 60 documents answered before its documents changed, which others can't join"),
    ],
)
@pytest.mark.parametrize("is_candidate", [False, True])
def test_answers_to_documents_of_another_order_are_not_gone_on_from(
    monkeypatch: pytest.MonkeyPatch, recorded: str | None, why: str | None, is_candidate: bool
) -> None:
    rows = [
        sample("a", number) | {"position": number, "score": number % 2, "filter": "none"}
        for number in range(ALL)
    ]
    monkeypatch.setattr(
        interim_looks, "baseline_of", lambda *_: Baseline(pa.Table.from_pylist(rows, SAMPLES), {"a": ALL})
    )
    staging = open_staging(Home.current(), inputs(), {"checkpoint": "x"})
    result = task_result("a", 60, documents_available=ALL, content_sha256=recorded, looks=(60,))
    wrong = [row | {"score": 1.0 - row["score"]} if number < 6 else row for number, row in enumerate(rows)]
    answered = pa.Table.from_pylist(wrong[:60], SAMPLES)
    batches.write_part(batches.batch_dir(staging, "a", 0), result, answered, PROMPTS.empty_table())
    content = TaskContent(task="a", content_sha256="today", documents=ALL)
    asking = planned().model_copy(update={"contents": (content,)})
    if not is_candidate:
        asking = asking.model_copy(update={"baseline": None})
    if why is None:
        assert next_documents(asking, TASK, staging, "place") == Asked(60, 120 if is_candidate else None)
    else:
        with pytest.raises(ConfigError, match="Measure it anew with --fresh") as raised:
            next_documents(asking, TASK, staging, "place")
        assert raised.value.what == why
