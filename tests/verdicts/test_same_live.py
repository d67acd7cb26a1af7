"""The same checkpoint against itself on the real engine: `make test-damage`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from quantgate.judge.judge import judge
from quantgate.model.enums import Verdict
from tests.verdicts import same, scores
from tests.verdicts.live import SUITE, ask, recorded_to, runs_of, sampled_task, serving, shuffled_tasks

pytestmark = [pytest.mark.damage, pytest.mark.timeout(3600)]

RUNS, TEMPERATURE = 21, 0.7
WAYS = {
    "one engine, 8 at once, batches of 32": (None, 1000, 8, 32),
    "another engine, another order, 2 at once, no batches": (1, 300, 2, 1),
}
"""Order of the documents in the file (None: the demo's), documents, requests at once, prompts a request."""


def differing(one: pa.Table, other: pa.Table, column: str) -> int:
    """Documents on which two runs differ, of those that the second has."""
    there = dict(zip(one["doc_id"].to_pylist(), one[column].to_pylist(), strict=True))
    return sum(
        there[doc_id] != value
        for doc_id, value in zip(other["doc_id"].to_pylist(), other[column].to_pylist(), strict=True)
    )


def test_greedy_over_restarts_orders_concurrencies_and_batches(home: Path, tmp_path: Path) -> None:
    runs: dict[str, pa.Table] = {}
    for number, (name, (order, documents, at_once, batch)) in enumerate(WAYS.items()):
        folder = tmp_path / str(number)
        tasks = SUITE.tasks if order is None else shuffled_tasks(folder / "tasks", order)
        with serving(home) as running:
            parts = [
                ask(
                    running,
                    task,
                    folder / task.task,
                    documents=documents,
                    num_concurrent=at_once,
                    batch_size=batch,
                )
                for task in tasks
            ]
        runs[name] = pa.concat_tables(parts)
    if (file := recorded_to("greedy")) is not None:
        scores.write(scores.compact(runs), file)
    first, second = runs.values()
    assert (len(first), len(second)) == (3000, 900)
    differ = {column: differing(first, second, column) for column in ("score", "answer", "responses")}
    print(f"{' against '.join(runs)}: of 900 documents differ {differ}", flush=True)
    asked = first.filter(pc.is_in(first["doc_id"], second["doc_id"].combine_chunks()))
    verdict = judge(asked, second, "same", same.policy(0.02), scores.tasks_of(second))[0]
    assert verdict.verdict is Verdict.VALIDATED
    assert not verdict.degraded


def test_sampled_decoding(home: Path, tmp_path: Path) -> None:
    with serving(home) as running:
        task = sampled_task(tmp_path / "tasks", RUNS, TEMPERATURE)
        runs = runs_of(ask(running, task, tmp_path / "answers"))
    assert len(runs) == RUNS
    if (file := recorded_to("sampled")) is not None:
        scores.write(scores.compact({f"{number:02d}": run for number, run in enumerate(runs)}), file)
    runs = [scores.as_samples(run).sort_by("position") for run in runs]
    for make, documents, margin in ((same.overlapping, 1000, 0.02), (same.independent, 50, 0.15)):
        found = same.rates(make(runs), margin)
        print(f"{documents} documents, margin {100 * margin:g} points: {found}", flush=True)
        same.check_false_alarms(found, same.TRIALS)
        same.check_power(found, same.TRIALS, documents, margin)
