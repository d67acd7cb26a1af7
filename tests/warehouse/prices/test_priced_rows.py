"""What SQL makes of offers and GPUs: imported offers price, survive a rebuild and leave history alone."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from quantgate.model.errors import ConfigError
from tests.support.offers import OFFER, import_into, rows
from warehouse.configuration import CONFIGS, read_configuration
from warehouse.database import insert_rows, migrate, migrations
from warehouse.load import load_bundles
from warehouse.prices.offers import imported_folder
from warehouse.query import query
from warehouse.report.render import render
from warehouse.report.summary import summary_table
from warehouse.rows import run_row


@pytest.fixture
def take(place: Any, begun: None) -> Callable[..., Any]:
    """Import offers into a home without runs, as of a fixed day."""
    return partial(import_into, place)


@pytest.fixture(scope="module")
def bare(module_place: Any) -> Any:
    """A warehouse of the configuration alone, to be read only."""
    return module_place


@pytest.fixture
def runs(place: Any, begun: None, spec: Any) -> None:
    """Two GPUs' runs without quality, so that nothing is judged, loaded."""
    place.write(spec("run-h100", tasks={}), spec("run-h200", gpu="h200", tasks={}))
    load_bundles(place.warehouse, place.bundles)


def test_imported_offers_price_and_survive_a_rebuild(
    place: Any, take: Callable[..., Any], runs: None
) -> None:
    take(OFFER)
    assert load_bundles(place.warehouse, place.bundles).swapped
    sql = "SELECT provider, usd_per_hour, evidence, origin FROM prices WHERE provider = 'acme'"
    (offer,) = rows(place, sql)
    assert offer["origin"].startswith("prices/")
    assert (offer["usd_per_hour"], offer["evidence"]) == (1.5, "imported")
    costs = "SELECT * EXCLUDE measured_at FROM cost_per_token_at('2026-08-01') WHERE provider = 'acme' ORDER BY ALL"
    priced = rows(place, costs)
    assert len(priced) == 2
    assert {row["usd_per_hour"] for row in priced} == {1.5}
    assert load_bundles(place.warehouse, place.bundles).swapped is False
    place.warehouse.unlink()
    load_bundles(place.warehouse, place.bundles)
    assert rows(place, costs) == priced
    assert rows(place, sql) == [offer]


def test_answers_before_the_day_of_an_import_stay_bit_identical(
    place: Any, take: Callable[..., Any], runs: None
) -> None:
    views = ("validated_table_at", "cost_per_token_at", "gpu_prices_at", "reserved_ranges_at")

    def answers(moment: str) -> list[str]:
        return [
            render(query(place.warehouse, f"SELECT * FROM {view}('{moment}') ORDER BY ALL"), "csv")
            for view in views
        ]

    before, after = "2026-05-31 23:59:59.999999Z", "2026-06-01 00:00:00Z"
    old = answers(before), answers(after)
    take(
        OFFER | {"provider": "spheron", "usd_per_hour": 1.0},
        OFFER | {"provider": "spheron", "price_kind": "spot", "usd_per_hour": 0.5, "gpu": "b200"},
    )
    load_bundles(place.warehouse, place.bundles)
    assert answers(before) == old[0]
    assert all(new != was for new, was in zip(answers(after), old[1], strict=True))
    cheaper = rows(place, f"SELECT DISTINCT usd_per_hour FROM validated_table_at('{after}')")
    assert sorted(row["usd_per_hour"] for row in cheaper) == [0.99, 1.0, 1.78, 4.54]


def test_an_own_price_takes_the_place_of_the_assumed_one(
    place: Any, take: Callable[..., Any], begun: None, spec: Any
) -> None:
    place.write(spec("run-cpu", gpu="cpu", tasks={}), spec("run-h100", tasks={}))
    load_bundles(place.warehouse, place.bundles)
    before, after = "2026-05-31", "2026-08-01"
    views = ("validated_table_at", "cost_per_token_at", "gpu_prices_at")

    def providers(view: str, moment: str, gpu: str = "cpu") -> list[dict[str, Any]]:
        sql = f"SELECT provider, count(*) AS n FROM {view}('{moment}') WHERE gpu = '{gpu}' AND provider IS NOT NULL"
        return rows(place, f"{sql} GROUP BY ALL ORDER BY ALL")

    assumed = {view: providers(view, after) for view in views}
    others = {view: providers(view, after, "h100") for view in views}
    assert {row["provider"] for found in assumed.values() for row in found} == {"assumed"}
    take(OFFER | {"provider": "own", "gpu": "cpu", "price_kind": "spot", "usd_per_hour": 5.0})
    load_bundles(place.warehouse, place.bundles)
    for view in views:
        assert providers(view, before) == assumed[view], "before the day of the import nothing changes"
        assert providers(view, after) == [row | {"provider": "own"} for row in assumed[view]], "not doubled"
        assert providers(view, after, "h100") == others[view], "a published offer is no assumption"
    lowest = f"SELECT min(usd_per_gpu_hour) AS usd FROM gpu_prices_at('{after}') WHERE gpu = 'cpu'"
    assert rows(place, lowest) == [{"usd": 5.0}]
    listed = rows(place, "SELECT provider, current FROM prices WHERE gpu = 'cpu' ORDER BY provider")
    assert listed == [{"provider": "assumed", "current": False}, {"provider": "own", "current": True}]
    text = summary_table(place.warehouse, datetime(2026, 8, 1, tzinfo=UTC), published=False)
    assert "Price: own spot, 5 USD/h of 2026-06-01" in text
    assert "No on-demand price of cpu is valid at this time, so costs are at this one." in text
    assert "assum" not in text


def configs_with(folder: Path, change: Callable[[dict[str, Any]], object], file: str) -> Path:
    """The project's configuration with one file edited."""
    configs = folder / "configs"
    shutil.copytree(CONFIGS, configs, dirs_exist_ok=True)
    data = yaml.safe_load((configs / file).read_text())
    change(data)
    (configs / file).write_text(yaml.safe_dump(data, sort_keys=False))
    return configs


def test_one_changed_price_changes_the_rows_that_depend_on_it(place: Any, runs: None) -> None:
    sql = "SELECT * FROM cost_per_token_at('2026-08-01') ORDER BY run_id, operating_point, price_kind"
    old = rows(place, sql)

    def dearer(data: dict[str, Any]) -> None:
        (offer,) = (o for o in data["prices"] if (o["gpu"], o["price_kind"]) == ("h100", "spot"))
        offer["usd_per_hour"] = 1.98

    load_bundles(place.warehouse, place.bundles, configs=configs_with(place.path, dearer, "prices.yaml"))
    changed = 0
    for was, row in zip(old, rows(place, sql), strict=True):
        if (row["gpu"], row["price_kind"]) == ("h100", "spot"):
            assert row["usd_per_mtok_output"] == pytest.approx(2 * was["usd_per_mtok_output"], rel=1e-12)
            changed += 1
        else:
            assert row == was
    assert changed == 2


def test_one_changed_figure_of_a_gpu_changes_its_row(bare: Any, place: Any) -> None:
    old = {row["gpu"]: row for row in rows(bare, "FROM gpus")}
    changed = configs_with(place.path, lambda data: data["gpus"]["h200"].update(vram_gb=150), "gpus.yaml")
    load_bundles(place.warehouse, place.bundles, configs=changed)
    new = {row["gpu"]: row for row in rows(place, "FROM gpus")}
    assert {gpu for gpu in old if old[gpu] != new[gpu]} == {"h200"}
    assert new["h200"] == old["h200"] | {"vram_gb": 150}


def test_every_figure_of_a_gpu_has_a_source_and_a_misspelt_one_is_refused(bare: Any, place: Any) -> None:
    (b300,) = rows(bare, "FROM gpus WHERE gpu = 'b300'")
    assert dict(b300["formats"]) == {
        "fp16": "native",
        "bf16": "native",
        "fp8": "native",
        "nvfp4": "native",
        "int8": "none",
        "int4": "weight_only",
        "mxfp4": "native",
        "mxfp8": "native",
    }
    assert dict(b300["mig_profiles"])["1g.34gb"] == 7
    assert "datasheet" in dict(b300["sources"])["dense_fp8_tflops"]
    modes = rows(bare, "SELECT gpu, formats['nvfp4'] AS mode FROM gpus WHERE gpu <> 'cpu'")
    assert {row["gpu"] for row in modes if row["mode"] == "native"} == {"b200", "b300"}
    wrong = configs_with(
        place.path, lambda data: data["gpus"]["l40s"]["sources"].update(vram="x"), "gpus.yaml"
    )
    with pytest.raises(ConfigError, match="'vram' is no figure of a GPU"):
        read_configuration(wrong)


def test_what_has_no_price_says_so(bare: Any) -> None:
    sql = "SELECT gpu, price_kind, usd_per_hour, null_reason FROM gpu_prices_at('2026-04-01')"
    found = {(row["gpu"], row["price_kind"]): row for row in rows(bare, sql)}
    unpriced = {key for key, row in found.items() if row["null_reason"] == "no_price"}
    assert {key for key in unpriced if key[1] != "reserved" and key[0] != "cpu"} == {
        ("b200", "spot"),
        ("b300", "on_demand"),
        ("b300", "spot"),
    }
    assert all((row["usd_per_hour"] is None) == (key in unpriced) for key, row in found.items())
    early = rows(bare, "SELECT DISTINCT null_reason FROM gpu_prices_at('2025-01-01')")
    assert early == [{"null_reason": "no_price"}]


def test_a_reservation_is_a_range_until_somebody_offers_one(
    place: Any, take: Callable[..., Any], runs: None
) -> None:
    ranges = "SELECT * FROM reserved_ranges_at('2026-08-01') WHERE gpu = 'h100'"
    (row,) = rows(place, ranges)
    assert row["usd_per_hour_low"] == pytest.approx(2.01 * 0.5, rel=1e-12)
    assert row["usd_per_hour_high"] == pytest.approx(2.01 * 0.7, rel=1e-12)
    assert (row["evidence"], row["provider"]) == ("estimated", "spheron")
    assert rows(place, "FROM reserved_ranges WHERE gpu = 'cpu'") == [], "an assumed price gives no range"
    kinds = "SELECT DISTINCT price_kind FROM validated_table_at('2026-08-01') ORDER BY ALL"
    assert [row["price_kind"] for row in rows(place, kinds)] == ["on_demand", "spot"]
    take(OFFER | {"provider": "spheron", "price_kind": "reserved", "usd_per_hour": 1.3})
    load_bundles(place.warehouse, place.bundles)
    assert rows(place, ranges) == []
    assert [row["price_kind"] for row in rows(place, kinds)] == ["on_demand", "reserved", "spot"]


def test_the_effective_price_of_spot(bare: Any) -> None:

    def effective(rate: float, reload_s: float) -> float | None:
        (row,) = rows(bare, f"SELECT effective_spot_usd_per_hour(0.99, {rate}, {reload_s}) AS usd")
        usd: float | None = row["usd"]
        return usd

    assert effective(0, 600) == effective(0.2, 0) == 0.99
    assert effective(0.2, 600) == pytest.approx(0.99 * math.exp(0.2 / 6), rel=1e-12)
    assert effective(-0.1, 600) is None
    assert effective(0.1, -1) is None
    rate, reload_h = 2.0, 0.25
    draw = random.Random(1)
    lives_h = [draw.expovariate(rate) for _ in range(200_000)]
    useful = sum(max(0.0, life - reload_h) for life in lives_h) / sum(lives_h)
    assert effective(rate, reload_h * 3600) == pytest.approx(0.99 / useful, rel=0.01)


def test_an_imported_offer_that_prices_yaml_has_too_counts_once(place: Any, take: Callable[..., Any]) -> None:
    take(OFFER)
    folder = imported_folder(place.warehouse)
    (folder / ".0.yaml.next-1-ab").write_text("prices: [half")  # what a kill leaves
    same = configs_with(place.path, lambda data: data["prices"].append(OFFER), "prices.yaml")
    read = read_configuration(same, folder)
    assert (len(read.own_offers), read.imported) == (9, ())
    other = configs_with(
        place.path, lambda data: data["prices"].append(OFFER | {"usd_per_hour": 9}), "prices.yaml"
    )
    read = read_configuration(other, folder)
    (problem,) = read.problems
    assert read.imported == ()
    assert problem.startswith("prices/")
    assert (
        "two offers for acme, any, h100, 1, on_demand, 2026-06-01, the other at prices.yaml: prices.8."
        in problem
    )


def test_what_nvml_told_of_a_run_is_kept(manifest_of: Any, spec: Any) -> None:
    recorded = {
        "cuda_version": "13.0",
        "sm_clock_max_mhz": 1980,
        "memory_clock_max_mhz": 2619,
        "power_limit_w": 700.0,
    }
    manifest = manifest_of(spec("run-h100"))
    manifest = manifest.model_copy(update={"hardware": manifest.hardware.model_copy(update=recorded)})
    with duckdb.connect(":memory:") as connection:
        migrate(connection)
        insert_rows(connection, "runs", [run_row(manifest)])
        kept = connection.execute(f"SELECT {', '.join(recorded)} FROM store.runs").fetchall()
    assert kept == [tuple(recorded.values())]


def test_an_older_warehouse_is_brought_up(place: Any, spec: Any) -> None:
    with duckdb.connect(str(place.warehouse)) as connection:
        migrate(connection, migrations()[:1])
        connection.execute(
            "INSERT INTO store.price_offers VALUES ('p', 'any', 'h100', 1, 'spot', 1, '2026-01-01', NULL, 's', NULL)"
        )
    place.write(spec("run-h100", tasks={}))
    load_bundles(place.warehouse, place.bundles)
    assert rows(place, "SELECT count(*) AS n FROM prices WHERE provider = 'p'") == [{"n": 0}]
    assert rows(place, "SELECT count(*) AS n FROM gpus WHERE nvml_memory_mib > 0") == [{"n": 5}]
    recorded = rows(place, "SELECT DISTINCT cuda_version, power_limit_w FROM runs")
    assert recorded == [{"cuda_version": None, "power_limit_w": None}]
