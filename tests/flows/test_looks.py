"""Candidates that are judged on their way: they stop as soon as they are decided, and a kill asks nothing twice."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from quantgate.model.home import Home
from quantgate.model.records import Manifest
from tests.flows.looked_runs import ALL, Killed, LookedRuns, looked_runs

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
