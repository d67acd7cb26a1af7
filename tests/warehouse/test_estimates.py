"""What a planned run needs and costs, against the views it asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from quantgate.judge.power import KnownScore, SeenFlips
from tests.support.loaded_homes import Place
from tests.support.written_runs import BASELINE, FP8, NVFP4
from warehouse.configuration import configured_in_memory, import_prices
from warehouse.database import Connection
from warehouse.estimates import (
    Load,
    known_scores,
    memory_fits,
    on_demand_price,
    published_share,
    seconds_of,
    seen_flips,
    shape_of,
)
from warehouse.load import load_bundles

HEADER = "provider,gpu,price_kind,usd_per_hour,valid_from,source,gpu_count\n"


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a warehouse will be, with imported prices beside it."""
    place = tmp_path_factory.mktemp("home") / "warehouse.duckdb"
    offers = place.with_name("offers.csv")
    offers.write_text(
        HEADER
        + "acme,b300,on_demand,64,2026-01-01,x,8\n"
        + "other,b300,on_demand,9,2026-01-01,x,1\n"
        + "acme,b300,spot,1,2026-01-01,x,1\n"
    )
    import_prices(offers, place)
    return place


@pytest.fixture(scope="module")
def db(warehouse: Path) -> Iterator[Connection]:
    with configured_in_memory(warehouse=warehouse) as connection:
        yield connection


def test_the_cheapest_on_demand_gpu_hour_counts_imported_ones_too(db: Connection, warehouse: Path) -> None:
    assert not warehouse.exists(), "nothing was ever loaded"
    assert on_demand_price(db, "h100") == 2.01
    assert on_demand_price(db, "b300") == 8.0, "64 USD/h for eight, and spot doesn't count"
    assert on_demand_price(db, "none-such") is None


def test_a_shape_by_any_name(db: Connection) -> None:
    shape = shape_of(db, "meta-llama/Llama-3.1-70B")
    assert shape is not None
    assert (shape.model, shape.context_max_tokens) == ("Llama-3.1-70B", 131072)
    assert shape_of(db, "unheard-of") is None


def test_memory_as_the_view_has_it(db: Connection) -> None:
    settings = {"context_tokens": 4096, "utilization": 0.8, "kv_dtype": "fp8", "counts": [1, 4]}
    found = memory_fits(db, "Llama-3.1-70B", "fp8", "h200", **settings)  # type: ignore[arg-type]
    rows = db.execute(
        "SELECT gpu_count, kv_cache_tokens FROM memory_fit_at(context := 4096, utilization := 0.8, "
        "kv_dtype := 'fp8', counts := [1, 4]) WHERE model = 'Llama-3.1-70B' AND precision = 'fp8' "
        "AND gpu = 'h200' AND memory_model = 'practical' ORDER BY ALL"
    ).fetchall()
    assert [(one.gpu_count, one.kv_cache_tokens) for one in found] == rows
    assert [one.fits for one in found] == [True, True]
    other = settings | {"kv_dtype": "no-such"}
    assert memory_fits(db, "Llama-3.1-70B", "fp8", "h200", **other) == []  # type: ignore[arg-type]


def test_seconds_are_tokens_over_a_share_of_the_limit(db: Connection) -> None:
    what = {"model": "Llama-3.1-70B", "precision": "fp8", "gpu": "h100", "gpu_count": 1}
    (bound,) = db.execute(
        "SELECT bound_tok_s FROM bounds_at(isl_tokens := 128, osl_tokens := 128, levels := [8]) "
        "WHERE model = 'Llama-3.1-70B' AND precision = 'fp8' AND gpu = 'h100' AND gpu_count = 1"
    ).fetchall()
    load = Load(isl_tokens=128, osl_tokens=128, concurrency=8, requests=40)
    seconds, why = seconds_of(db, [load], share=0.5, **what)  # type: ignore[arg-type]
    assert why is None
    assert seconds == pytest.approx(40 * 128 / (0.5 * bound[0]))
    both, _ = seconds_of(db, [load, load], share=0.25, **what)  # type: ignore[arg-type]
    assert both == pytest.approx(4 * (seconds or 0))
    assert seconds_of(db, [load], share=0.5, **(what | {"gpu": "cpu"})) == (None, "no_kernel")  # type: ignore[arg-type]


def test_an_estimate_reads_the_experts_of_even_routing(db: Connection) -> None:
    """The limit reads those of one token, and would make a mixture of experts several times too fast."""
    what = {"model": "Qwen3-30B-A3B", "precision": "fp8", "gpu": "h100", "gpu_count": 1}
    ((limit,),) = db.execute(
        "SELECT bound_tok_s FROM bounds_at(isl_tokens := 128, osl_tokens := 128, levels := [8]) "
        "WHERE model = 'Qwen3-30B-A3B' AND precision = 'fp8' AND gpu = 'h100' AND gpu_count = 1"
    ).fetchall()
    load = Load(isl_tokens=128, osl_tokens=128, concurrency=8, requests=8)
    seconds, _ = seconds_of(db, [load], share=1.0, **what)  # type: ignore[arg-type]
    assert seconds is not None
    assert seconds > 2 * 8 * 128 / limit


def test_published_engines_reach_less_than_the_limit(db: Connection) -> None:
    assert 0.1 < published_share(db) < 0.6


def test_flips_of_the_same_precision_and_task_go_before_those_of_the_family(place: Place) -> None:
    """Fp8 changed 4 sums of 100 and 2 clozes, nvfp4 30 sums; algebra is of the sums' family."""
    changed = {"sums": [1, 2, 3, 4], "cloze": [1, 2]}
    place.write(BASELINE, replace(FP8, wrong=changed), replace(NVFP4, wrong={"sums": range(1, 31)}))
    load_bundles(place.warehouse, place.bundles)
    asked = {"sums": "math", "algebra": "math", "code": "code"}
    assert seen_flips(place.warehouse, asked, {"fp8"}) == {
        "sums": SeenFlips(0.04, "fp8", "this task"),
        "algebra": SeenFlips(0.04, "fp8", "this family"),
    }
    worst = seen_flips(place.warehouse, {"sums": "math"}, {"fp8", "nvfp4"})["sums"]
    assert worst.precision == "nvfp4"
    other = seen_flips(place.warehouse, {"cloze": "conversation"}, {"int4"})["cloze"]
    assert other == SeenFlips(0.02, "fp8", "this task"), "another precision where there is none of this one"


def test_no_flips_are_known_without_a_warehouse(tmp_path: Path) -> None:
    assert seen_flips(tmp_path / "none.duckdb", {"sums": "math"}, {"fp8"}) == {}


def test_published_scores_of_a_baseline_are_found_by_its_name(place: Place) -> None:
    load_bundles(place.warehouse, place.bundles)
    found = known_scores(place.warehouse, "deepseek-ai/DeepSeek-R1")
    assert {(known.task, known.score, known.source) for known in found} >= {
        ("qg_gsm8k_boxed", 0.963, "published")
    }
    assert all(isinstance(known, KnownScore) for known in found)
    assert known_scores(place.warehouse, "nobody/nothing") == []
    assert known_scores(place.path / "none.duckdb", "deepseek-ai/DeepSeek-R1") == []
