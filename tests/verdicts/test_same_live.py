"""The same checkpoint against itself on the real engine: `make test-damage`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from quantgate.model.config import load_policy
from quantgate.model.enums import Verdict
from tests.verdicts import same, scores
from tests.verdicts.live import SUITE, ask, recorded_to, renamed, sampled_tasks, serving, shuffled_tasks
from warehouse.judge import judge

pytestmark = [pytest.mark.damage, pytest.mark.timeout(3600)]

RUNS, TEMPERATURE = 40, 0.7
WAYS = [
    # restart, order of the documents in the file, requests at once, prompts a request
    (0, None, 8, 32),
    (0, 1, 1, 1),
    (1, 2, 8, 1),
    (1, None, 1, 32),
]


def differing(one: pa.Table, other: pa.Table, column: str) -> int:
    """Documents on which two runs differ."""
    there = dict(zip(one["doc_id"].to_pylist(), one[column].to_pylist(), strict=True))
    here = dict(zip(other["doc_id"].to_pylist(), other[column].to_pylist(), strict=True))
    assert there.keys() == here.keys()
    return sum(there[doc_id] != here[doc_id] for doc_id in there)


def test_greedy_over_restarts_orders_concurrencies_and_batches(home: Path, tmp_path: Path) -> None:
    runs: dict[str, pa.Table] = {}
    for restart in (0, 1):
        with serving(home) as running:
            for _, order, at_once, batch in [way for way in WAYS if way[0] == restart]:
                name = f"start {restart}, order {order}, {at_once} at once, batches of {batch}"
                folder = tmp_path / name.replace(" ", "-")
                tasks = SUITE.tasks if order is None else shuffled_tasks(folder / "tasks", order)
                parts = [
                    ask(running, task, folder / task.task, num_concurrent=at_once, batch_size=batch)
                    for task in tasks
                ]
                runs[name] = pa.concat_tables(parts)
    if (file := recorded_to("greedy")) is not None:
        scores.write(scores.compact(runs), file)
    first, *others = runs.items()
    for name, samples in others:
        told = {column: differing(first[1], samples, column) for column in ("score", "answer", "responses")}
        print(f"{first[0]} against {name}: of 3,000 documents differ {told}", flush=True)
        verdict = judge(first[1], samples, "demo", load_policy("demo"), scores.tasks_of(samples))[0]
        assert verdict.verdict is Verdict.VALIDATED
        assert not verdict.degraded


def test_sampled_decoding(home: Path, tmp_path: Path) -> None:
    with serving(home) as running:
        tasks = sampled_tasks(tmp_path / "tasks", RUNS, TEMPERATURE)
        answered = [ask(running, task, tmp_path / "runs" / task.task) for task in tasks]
    runs = renamed(answered, same.TASK.task)
    if (file := recorded_to("sampled")) is not None:
        scores.write(scores.compact({f"{number:02d}": run for number, run in enumerate(runs)}), file)
    runs = [scores.as_samples(run).sort_by("position") for run in runs]
    for make, documents, margin in ((same.overlapping, 1000, 0.02), (same.independent, 100, 0.1)):
        found = same.rates(make(runs), margin)
        print(f"{documents} documents, margin {100 * margin:g} points: {found}", flush=True)
        same.check_false_alarms(found, same.TRIALS)
        same.check_power(found, same.TRIALS, documents, margin)
