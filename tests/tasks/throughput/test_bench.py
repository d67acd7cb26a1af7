"""The ladder and its rows, from results as vLLM's bench writes them (tests/fixtures/bench)."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from quantgate.bundles.schema import LOAD_POINTS, REQUESTS
from quantgate.model.config.workloads import Workload
from tasks.engine.endpoint import EngineEndpoint
from tasks.progress import Reporter
from tasks.throughput import bench
from tests.tasks.engine.test_process import plant

WORKLOAD = Workload(name="w", isl_tokens=32, osl_tokens=32, concurrency=(1, 8), min_prompts=4, seed=7)
RESULT = json.loads((Path(__file__).parents[2] / "fixtures" / "bench" / "c8.json").read_text())


def finish(folder: Path, concurrency: int, **changes: Any) -> None:
    level = {
        **RESULT,
        "operating_point": f"c{concurrency}",
        "concurrency": concurrency,
        "engine_start_id": "s",
    }
    result = level.pop("result") | changes.pop("result", {})
    (folder / f"c{concurrency}.json").write_text(json.dumps({**level, "result": result, **changes}))


@pytest.fixture
def one_level(tmp_path: Path) -> Workload:
    finish(tmp_path, 1)
    return WORKLOAD.model_copy(update={"concurrency": (1,)})


def test_every_level_has_prompts_of_its_own(tmp_path: Path) -> None:
    first, second = bench.levels(WORKLOAD, tmp_path)
    assert (first["requests"], second["requests"]) == (4, 32)
    assert (first["warmup_requests"], second["warmup_requests"]) == (1, 8)
    assert first["seed"] != second["seed"]


def test_finished_levels_are_kept(tmp_path: Path) -> None:
    finish(tmp_path, 1)
    assert [level["operating_point"] for level in bench.unfinished(WORKLOAD, tmp_path)] == ["c8"]


def test_rows_are_what_the_bench_measured(tmp_path: Path, one_level: Workload) -> None:
    points, requests, _ = bench.rows(one_level, tmp_path)
    assert set(points[0]) == set(LOAD_POINTS.names)
    table = pa.Table.from_pylist(points, LOAD_POINTS)
    (point,) = table.to_pylist()
    result = RESULT["result"]
    assert point["output_tok_s"] == pytest.approx(result["total_output_tokens"] / result["duration"])
    assert point["ttft_p50_ms"] == pytest.approx(result["median_ttft_ms"])
    assert point["validity"] == "valid"
    assert point["failed"] == 0
    rows = pa.Table.from_pylist(requests, REQUESTS).to_pylist()
    assert len(rows) == point["completed"] == 32
    for row in rows:
        assert row["output_tokens"] == 32 >= len(row["itl_ms"]) + 1  # tokens may come several at a time
        assert row["e2el_ms"] == pytest.approx(row["ttft_ms"] + sum(row["itl_ms"]))
    tpots = sorted((row["e2el_ms"] - row["ttft_ms"]) / 31 for row in rows)
    assert point["tpot_p50_ms"] == pytest.approx((tpots[15] + tpots[16]) / 2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"client_cpu_share": 0.95}, "client_saturated"),
        ({"prefix_cache_hit_tokens": 64}, "prefix_cache_hits"),
        ({"result": {"failed": 2}}, "failed_requests"),
        ({"result": {"median_itl_ms": 0.01}}, "client_starved"),
        ({"result": {"completed": 0, "failed": 32}}, "no_request_completed"),
        ({"result": {"completed": 30}}, "fewer_requests"),
        ({"result": {"total_input_tokens": 1013}}, "fewer_input_tokens"),
        ({"result": {"total_output_tokens": 1013}}, "fewer_output_tokens"),
        ({"result": {"errors": ["", "broke off"]}}, "in_band_errors"),
        ({"engine_errors": 1}, "in_band_errors"),
        ({"result": {"duration": 0.6}}, "duration_mismatch"),
        ({"result": {"output_throughput": 900.0}}, "duration_mismatch"),
    ],
)
def test_what_must_not_be_used_is_quarantined(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    finish(tmp_path, 1, **changes)
    (point,), _, _ = bench.rows(WORKLOAD.model_copy(update={"concurrency": (1,)}), tmp_path)
    assert point["validity"] == "quarantined"
    assert reason in point["validity_reasons"]


def test_streams_that_broke_off_leave_no_valid_point(tmp_path: Path) -> None:
    """Sixteen requests of 32 tokens, of which four broke off after 2 tokens and count as completed."""
    asked = {"completed": 16, "failed": 0, "total_input_tokens": 512, "total_output_tokens": 392}
    finish(tmp_path, 1, requests=16, result=asked | {"output_throughput": 392 / RESULT["result"]["duration"]})
    (point,), _, _ = bench.rows(WORKLOAD.model_copy(update={"concurrency": (1,)}), tmp_path)
    assert (point["validity"], point["validity_reasons"]) == ("quarantined", ["fewer_output_tokens"])


def test_a_shortfall_within_one_percent_is_no_reason(tmp_path: Path) -> None:
    finish(tmp_path, 1, result={"total_output_tokens": 1014, "total_input_tokens": 1014})
    (point,), _, _ = bench.rows(WORKLOAD.model_copy(update={"concurrency": (1,)}), tmp_path)
    assert point["validity_reasons"] == []


def test_latencies_of_nothing_are_unknown_not_zero(tmp_path: Path) -> None:
    finish(tmp_path, 1, result={"completed": 0, "failed": 32, "median_ttft_ms": 0.0})
    (point,), _, _ = bench.rows(WORKLOAD.model_copy(update={"concurrency": (1,)}), tmp_path)
    assert point["ttft_p50_ms"] is None


def test_a_request_that_failed_has_no_latency(tmp_path: Path) -> None:
    errors = ["" for _ in RESULT["result"]["errors"]]
    errors[3] = "Connection refused"
    finish(tmp_path, 1, result={"errors": errors})
    _, requests, _ = bench.rows(WORKLOAD.model_copy(update={"concurrency": (1,)}), tmp_path)
    assert requests[3]["error"] == "Connection refused"
    assert requests[3]["ttft_ms"] is None


def test_the_load_goes_to_what_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the bench is told; it isn't run here."""
    told: list[dict[str, Any]] = []

    def run_tied(command: list[str], **_: Any) -> str:
        told.append(json.loads(Path(command[-1]).read_text()))
        finish(tmp_path, 1)
        return ""

    monkeypatch.setattr(bench, "run_tied", run_tied)
    environment = SimpleNamespace(config=SimpleNamespace(environment={}), python=Path("python"))
    engine = SimpleNamespace(
        endpoint=EngineEndpoint(base_url="http://127.0.0.1:1", served_model="adapter", engine_start_id="s"),
        environment=environment,
    )
    for trusted in (False, True):
        (tmp_path / "c1.json").unlink(missing_ok=True)
        bench.measure_load(
            engine,  # type: ignore[arg-type]
            WORKLOAD.model_copy(update={"concurrency": (1,)}),
            tokenizer="folder",
            out_dir=tmp_path,
            log=tmp_path / "log",
            report=Reporter(lambda _: None),
            title="t",
            trust_remote_code=trusted,
        )
    assert [(one["model"], one["tokenizer"], one["trust_remote_code"]) for one in told] == [
        ("adapter", "folder", False),
        ("adapter", "folder", True),
    ]


def test_the_bench_runs_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its interpreter is a stand-in that writes its environment down and measures nothing."""
    plant(monkeypatch)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\n")
    python.chmod(0o755)
    engine = SimpleNamespace(
        endpoint=EngineEndpoint(
            base_url="http://127.0.0.1:1",
            served_model="m",
            engine_start_id="s",
            api_key="key-of-the-engine",
        ),
        environment=SimpleNamespace(config=SimpleNamespace(environment={"SET_FOR": "it"}), python=python),
    )
    bench.measure_load(
        engine,  # type: ignore[arg-type]
        WORKLOAD,
        tokenizer="folder",
        out_dir=tmp_path / "load",
        log=tmp_path / "log",
        report=Reporter(lambda _: None),
        title="t",
        trust_remote_code=True,
    )
    got = (tmp_path / "environment").read_text()
    assert "planted" not in got
    for line in ("OPENAI_API_KEY=key-of-the-engine", "SET_FOR=it", "HF_HUB_OFFLINE=1", "OMP_NUM_THREADS=2"):
        assert f"{line}\n" in got
