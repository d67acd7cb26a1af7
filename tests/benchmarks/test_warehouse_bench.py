"""The warehouse's benchmark runs at a tiny size, and its result holds what is promised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from benchmarks.fleet import RUNS_PER_MODEL, Fleet, Size
from quantgate.bundles.schema import BUNDLE_FILES
from quantgate.bundles.store import BundleStore
from quantgate.model.home import ROOT


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("bench")
    command = [
        sys.executable,
        "-m",
        "benchmarks.warehouse",
        "--samples",
        "1000",
        "--points",
        "60",
        "--runs",
        "15",
    ]
    command += ["--repeats", "1", "--every-column", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["result.json", "result.md"], "the data is deleted"
    assert (out / "result.md").read_text() in done.stdout
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    return found


def test_the_result_says_what_was_measured_and_where(result: dict[str, Any]) -> None:
    assert result["command"].startswith("python -m benchmarks.warehouse --samples 1000")
    assert {"cpu", "cores", "memory_bytes", "duckdb", "python"} <= set(result["machine"])
    (size,) = result["sizes"]
    # 15 runs: 5 tasks of 14 documents, a sweep of 4
    assert (size["samples"], size["points"], size["runs"]) == (1050, 60, 15)
    assert list(size["steps"]) == ["make", "first", "query", "whole", "again"]
    for step in size["steps"].values():
        assert step["peak_memory_bytes"] > 50e6
        assert len(step["load_average"]) == 2


def test_everything_was_loaded_and_judged(result: dict[str, Any]) -> None:
    steps = result["sizes"][0]["steps"]
    first, again = steps["first"], steps["again"]
    assert (first["loaded"], first["judged"], first["problems"]) == (14, 9, [])
    assert (again["loaded"], again["judged"], again["problems"]) == (1, 1, [])
    assert again["rows"] | {"verdicts": 0, "task_verdicts": 0} == {
        "runs": 15, "samples": 1050, "load_points": 60, "table_points": 60, "verdicts": 0, "task_verdicts": 0,
    }  # fmt: skip
    parts = {
        "read",
        "insert",
        "bounds",
        "judge",
        "judge_read",
        "judge_count",
        "judge_test",
        "materialize",
        "all",
    }
    assert parts <= set(first["seconds"])
    assert "copy" in again["seconds"]
    assert "copy" not in first["seconds"]
    assert first["warehouse_bytes"] > 1e6


def test_queries_fetch_every_row_and_column(result: dict[str, Any]) -> None:
    steps = result["sizes"][0]["steps"]
    table = steps["query"]["validated_table"]
    # 14 runs (the last, a B300's, came later), each 4 points × 5 uses; on demand and spot but for B200 and B300
    assert table["rows"] == (9 * 2 + 5) * 4 * 5
    assert table["columns"] > 50
    for query in steps["query"].values():
        if isinstance(query, dict):
            assert {"ms", "ms_min", "ms_max", "fresh_ms", "cold_ms", "arrow_bytes"} <= set(query)
    assert steps["whole"]["validated_table"]["rows"] == table["rows"], "there is one model"
    assert steps["whole"]["validated_table_counted"]["rows"] == 1


def test_a_seed_gives_the_same_bundles_and_every_one_is_sound(tmp_path: Path) -> None:
    size = Size(runs=RUNS_PER_MODEL + 1, samples=400, points=32)
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        Fleet(size, seed).write(tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == size.runs * (len(BUNDLE_FILES) + 1)
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    assert any((tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes() for file in files)
    store = BundleStore(tmp_path / "a")
    bundles = [store.read(run_id) for run_id in store.run_ids()]
    assert sum(bundle.tables["samples.parquet"].num_rows for bundle in bundles) == size.samples_in_all
    assert {bundle.manifest.baseline is None for bundle in bundles} == {True, False}
    ids = {bundle.manifest.run_id for bundle in bundles}
    assert all(b.manifest.baseline is None or b.manifest.baseline.run_id in ids for b in bundles)
    written = pq.ParquetFile(tmp_path / "a" / min(ids) / "samples.parquet").metadata.row_group(0).column(0)
    assert written.compression == "ZSTD", "as a run writes them"
