"""What the loader materializes is what its views and the samples say, after whatever happened to them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from warehouse.configuration import CONFIGS
from warehouse.database import MATERIALIZED
from warehouse.load import load_bundles
from warehouse.query import query

NOON = "2026-06-01 12:00:00+00"

# Every figure of the table from the loaded rows themselves: samples, load points, offers; no view of ours.
RECOMPUTED = f"""
WITH paired AS (
    SELECT
        c.run_id,
        c.task,
        avg(c.score - b.score) AS delta,
        avg((c.score <> b.score)::INTEGER) AS flips
    FROM store.samples c
    JOIN store.runs r USING (run_id)
    JOIN store.samples b
      ON b.run_id = r.baseline_run_id AND b.task = c.task AND b.doc_id = c.doc_id AND b.doc_repeat = c.doc_repeat
    GROUP BY ALL
),
offers AS (
    SELECT gpu, gpu_count, provider, region, price_kind, arg_max(usd_per_hour, valid_from) AS usd_per_hour
    FROM store.price_offers
    WHERE valid_from <= '{NOON}'::TIMESTAMPTZ::DATE
      AND (valid_to IS NULL OR '{NOON}'::TIMESTAMPTZ::DATE < valid_to)
    GROUP BY ALL
)
SELECT
    v.run_id,
    v.operating_point,
    v.price_kind,
    v.use,
    d.delta AS quality_delta,
    d.flips AS flip_rate,
    p.output_tok_s,
    o.usd_per_hour,
    o.usd_per_hour / p.output_tok_s / 3600 * 1e6 AS usd_per_mtok_output,
    o.usd_per_hour / p.total_tok_s / 3600 * 1e6 AS usd_per_mtok_total,
    p.output_tok_s / b.output_tok_s AS speedup_vs_baseline
FROM validated_table_at('{NOON}') v
JOIN store.runs r ON r.run_id = v.run_id
JOIN store.load_points p ON p.run_id = v.run_id AND p.operating_point = v.operating_point
JOIN offers o
  ON (o.gpu, o.gpu_count, o.provider, o.region, o.price_kind)
   = (v.gpu, v.gpu_count, v.provider, v.region, v.price_kind)
LEFT JOIN store.load_points b
  ON b.run_id = coalesce(r.baseline_run_id, r.run_id) AND b.operating_point = v.operating_point
LEFT JOIN paired d ON d.run_id = v.verdict_run_id AND d.task = v.worst_task
ORDER BY ALL
"""


def rows(warehouse: Path, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = query(warehouse, sql).to_pylist()
    return found


def check(warehouse: Path) -> list[dict[str, Any]]:
    """Compare what is stored with what is computed now; returns the table at noon of a fixed day."""
    for table in MATERIALIZED:
        stored, fresh = f"(FROM store.{table})", f"(FROM store.fresh_{table})"
        assert rows(warehouse, f"SELECT count(*) AS n FROM {stored}")[0]["n"] > 0
        assert rows(warehouse, f"{stored} EXCEPT ALL {fresh}") == []
        assert rows(warehouse, f"{fresh} EXCEPT ALL {stored}") == []
    recomputed = rows(warehouse, RECOMPUTED)
    table = rows(
        warehouse,
        f"SELECT {', '.join(recomputed[0])} FROM validated_table_at('{NOON}') ORDER BY ALL",
    )
    assert len(table) == len(recomputed)
    for shown, expected in zip(table, recomputed, strict=True):
        if shown["speedup_vs_baseline"] is None and expected["speedup_vs_baseline"] is not None:
            assert "nvfp4" in shown["run_id"], "only an emulated run may have none"
            expected["speedup_vs_baseline"] = None
        for name, value in expected.items():
            assert shown[name] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), (
                name
            )
    return rows(warehouse, f"FROM validated_table_at('{NOON}')")


def without(table: list[dict[str, Any]], *columns: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in columns} for row in table]


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    """The project's configuration without published figures, which are slow to load."""
    folder = tmp_path / "configs"
    shutil.copytree(CONFIGS, folder, ignore=shutil.ignore_patterns("reference", "*.csv"))
    return folder


def edited(path: Path, change: Callable[[Any], None]) -> None:
    data = yaml.safe_load(path.read_text())
    change(data)
    path.write_text(yaml.safe_dump(data))


def test_after_a_load_and_another(place: Any, configs: Path, three: Any, spec: Any) -> None:
    place.write(*three)
    load_bundles(place.warehouse, place.bundles, configs=configs)
    before = check(place.warehouse)
    again = replace(three[1], run_id="run-fp8-again", started_at=three[1].started_at + timedelta(days=1))
    other = spec("run-h200", gpu="h200", checkpoint="toy-h200")
    place.write(replace(again, points={1: 170.0}), other)
    load_bundles(place.warehouse, place.bundles, configs=configs)
    after = check(place.warehouse)
    assert {row["run_id"] for row in before} - {row["run_id"] for row in after} == set()
    assert [row for row in after if row["run_id"] == "run-nvfp4"] == [
        row for row in before if row["run_id"] == "run-nvfp4"
    ]


def test_after_a_rejudgement(place: Any, configs: Path, three: Any, spec: Any) -> None:
    """A candidate that waited for its baseline is judged; one that continued with more documents keeps its verdict."""
    baseline, fp8, _ = three
    short = replace(fp8, run_id="run-fp8-short", documents=40, fingerprint="goes on")
    place.write(
        replace(
            fp8, run_id="run-fp8-waits", checkpoint="waits", baseline=replace(baseline, run_id="run-late")
        ),
        short,
    )
    place.write(replace(baseline, documents=40))
    load_bundles(place.warehouse, place.bundles, configs=configs)
    first = {row["run_id"]: row for row in check(place.warehouse) if row["use"] == "all"}
    assert first["run-fp8-short"]["verdict"] == "INCONCLUSIVE"
    assert first["run-fp8-waits"]["verdict"] == "NOT_COMPARABLE"
    late = replace(baseline, run_id="run-late", started_at=baseline.started_at + timedelta(days=1))
    longer = replace(
        fp8,
        run_id="run-fp8-more",
        baseline=late,
        wrong={"sums": [1]},
        fingerprint=short.fingerprint,
        continues=short.run_id,
        started_at=fp8.started_at + timedelta(days=2),
    )
    place.write(late, longer)
    report = load_bundles(place.warehouse, place.bundles, configs=configs)
    assert set(report.judged) == {"run-fp8-waits", "run-fp8-more"}
    second = {row["run_id"]: row for row in check(place.warehouse) if row["use"] == "all"}
    assert second["run-fp8-more"]["verdict"] == "VALIDATED"
    assert second["run-fp8-more"]["verdict_run_id"] == "run-fp8-more"
    assert second["run-fp8-more"]["quality_delta"] == pytest.approx(-0.01)
    assert "run-fp8-short" not in second, "another run continues it"


def test_after_a_price_change(place: Any, configs: Path, three: Any) -> None:
    place.write(*three)
    load_bundles(place.warehouse, place.bundles, configs=configs)
    before = check(place.warehouse)

    def dearer(data: Any) -> None:
        for offer in data["prices"]:
            if (offer["gpu"], offer["price_kind"]) == ("h100", "spot"):
                offer["usd_per_hour"] *= 2

    edited(configs / "prices.yaml", dearer)
    load_bundles(place.warehouse, place.bundles, configs=configs)
    after = check(place.warehouse)
    costs = ("usd_per_hour", "usd_per_mtok_output", "usd_per_mtok_total")
    assert without(after, *costs) == without(before, *costs)
    for was, row in zip(before, after, strict=True):
        factor = 2 if row["price_kind"] == "spot" else 1
        assert [row[cost] for cost in costs] == pytest.approx(
            [factor * was[cost] for cost in costs], rel=1e-12
        )


def test_after_a_change_of_hardware(place: Any, configs: Path, three: Any) -> None:
    """The limits, of which pct_of_bound is a share, are recomputed, and nothing else."""

    def known(data: Any) -> None:
        data["architectures"]["Llama-3.1-8B"]["names"].append("toy")

    def faster(data: Any) -> None:
        data["gpus"]["h100"]["bandwidth_gb_s"] *= 2

    baseline, fp8, nvfp4 = (replace(one, points={1: 0.1}) for one in three)
    place.write(baseline, replace(fp8, baseline=baseline), replace(nvfp4, baseline=baseline))
    edited(configs / "architectures" / "llama.yaml", known)
    load_bundles(place.warehouse, place.bundles, configs=configs)
    before = check(place.warehouse)
    edited(configs / "gpus.yaml", faster)
    load_bundles(place.warehouse, place.bundles, configs=configs)
    after = check(place.warehouse)
    assert without(after, "pct_of_bound") == without(before, "pct_of_bound")
    shares = [
        (was["pct_of_bound"], row["pct_of_bound"])
        for was, row in zip(before, after, strict=True)
        if row["kernel_mode"] != "emulated"
    ]
    assert len(shares) == 2 * 2 * 3, "runs × offers × uses"
    assert all(now == pytest.approx(was / 2) for was, now in shares), "one request waits for memory only"


def test_after_a_deletion(place: Any, configs: Path, three: Any, tmp_path: Path) -> None:
    """A bundle is deleted by hand and the warehouse rebuilt: as if it had never been there."""
    baseline, fp8, nvfp4 = three
    place.write(baseline, nvfp4)
    never = tmp_path / "never.duckdb"
    load_bundles(never, place.bundles, configs=configs)
    place.write(fp8)
    load_bundles(place.warehouse, place.bundles, configs=configs)
    assert "run-fp8" in {row["run_id"] for row in check(place.warehouse)}
    shutil.rmtree(place.bundles / fp8.run_id)
    place.warehouse.unlink()
    load_bundles(place.warehouse, place.bundles, configs=configs)
    assert check(place.warehouse) == check(never)
