"""Bundles of commit dbfbaaa (schema_version 3): they load, with the verdicts that they had, and today's runs pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from quantgate.bundles.history import RunHistory
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.schema import SAMPLES
from quantgate.bundles.store import BundleStore
from quantgate.judge.judge import pairs_of
from quantgate.judge.pairing import Pairs, Unpaired
from quantgate.model.home import ROOT
from warehouse.load import load_bundles
from warehouse.query import query

STORED = ROOT / "tests" / "fixtures" / "bundles-dbfbaaa"


def test_they_load_with_the_verdicts_that_they_had(tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse.duckdb"
    report = load_bundles(warehouse, STORED)
    assert report.problems == ()
    verdicts = query(warehouse, "SELECT verdict FROM verdicts WHERE use = 'all' ORDER BY run_id")
    assert verdicts["verdict"].to_pylist() == ["BASELINE", "VALIDATED", "REJECTED"]


def test_they_are_of_schema_version_3_and_know_no_content() -> None:
    history = RunHistory.read(BundleStore(STORED))
    assert [run.schema_version for run in history] == [3, 3, 3]
    results = [task for run in history for task in run.tasks]
    assert [(task.content_sha256, task.copies, task.floor) for task in results] == [(None, 0, None)] * 3


@pytest.fixture
def baseline() -> tuple[Manifest, pa.Table]:
    store = BundleStore(STORED)
    (run,) = [run for run in RunHistory.read(store) if run.baseline is None]
    return run, store.read_table(run, "samples.parquet")


def without_the_copy(samples: pa.Table, first: int | None = None) -> pa.Table:
    """What a candidate of today answers: no copy, in another order."""
    kept = [row for row in samples.to_pylist() if row["doc_id"] != "copy-0"]
    order = np.random.default_rng(1).permutation(len(kept))
    rows = [kept[number] | {"position": position} for position, number in enumerate(order[:first])]
    return pa.Table.from_pylist(rows, schema=SAMPLES)


def test_a_candidate_of_today_that_stopped_early_pairs_with_that_baseline(
    baseline: tuple[Manifest, pa.Table],
) -> None:
    run, samples = baseline
    candidate = without_the_copy(samples, 60)
    result = run.tasks[0].model_copy(update={"documents": 60, "documents_available": 150})
    pairs = pairs_of(samples, candidate, result, run.policy)
    assert isinstance(pairs, Pairs)
    assert pairs.candidate.tolist() == candidate["score"].to_pylist(), "as the candidate was asked"
    assert np.array_equal(pairs.baseline, pairs.candidate)


def test_one_that_answered_everything_is_refused_with_the_number_of_copies(
    baseline: tuple[Manifest, pa.Table],
) -> None:
    run, samples = baseline
    result = run.tasks[0].model_copy(update={"documents": 150, "documents_available": 150})
    assert pairs_of(samples, without_the_copy(samples), result, run.policy) == Unpaired(
        "task sums: 1 document without a pair (1 only in the baseline, 0 only in the candidate)"
    )


def test_a_silent_start_of_schema_version_4_counted_as_emulated_and_is_unknown_now(tmp_path: Path) -> None:
    stored, warehouse = ROOT / "tests" / "fixtures" / "bundles-v4", tmp_path / "warehouse.duckdb"
    assert '"kernel_mode": "emulated"' in (stored / "run-nvfp4" / "manifest.json").read_text()
    assert load_bundles(warehouse, stored).problems == ()
    table = query(
        warehouse,
        "SELECT DISTINCT run_id, kernel_mode, null_reasons['speedup_vs_baseline'] AS reason, "
        "usd_per_mtok_output > 0 AS priced FROM validated_table ORDER BY run_id",
    )
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ("run-bf16", "native", None, True),
        ("run-nvfp4", None, "unknown_kernel", True),
    ]
