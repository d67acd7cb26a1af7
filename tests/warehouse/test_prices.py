"""Offers: imported whole or not at all, kept for a rebuild, and what SQL makes of them."""

from __future__ import annotations

import csv
import json
import math
import random
import re
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.model.errors import ConfigError
from quantgate.model.prices import PriceOffer
from warehouse.configuration import CONFIGS, import_prices, read_configuration
from warehouse.database import insert_rows, migrate, migrations
from warehouse.load import load_bundles
from warehouse.offer_lines import parse_offer, read_lines
from warehouse.prices import BadOffersError, import_offers, imported_folder
from warehouse.query import query
from warehouse.render import render
from warehouse.rows import run_row

TODAY = date(2026, 11, 1)
OFFER: dict[str, Any] = {
    "provider": "acme",
    "gpu": "h100",
    "price_kind": "on_demand",
    "usd_per_hour": 1.5,
    "valid_from": "2026-06-01",
    "source": "acme's list",
}
OWN = read_configuration()
SAME_DAYS = {"valid_from": "2026-06-01", "valid_to": "2026-07-01"}


def written(path: Path, *offers: dict[str, Any]) -> Path:
    """Offers as a CSV or JSON file, whichever the name asks for."""
    if path.suffix == ".json":
        path.write_text(json.dumps(list(offers), indent=1))
        return path
    names = list(dict.fromkeys(name for offer in offers for name in offer))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(offers)
    return path


@pytest.fixture
def take(place: Any) -> Callable[..., Any]:
    """Import offers into an empty home, as of a fixed day."""

    def take(*offers: dict[str, Any], name: str = "offers.csv") -> Any:
        folder = imported_folder(place.warehouse)
        return import_offers(
            written(place.path / name, *offers), folder, OWN.own_offers, OWN.gpus.gpus, TODAY
        )

    return take


def problems(take: Callable[..., Any], *offers: dict[str, Any], name: str = "offers.csv") -> list[str]:
    with pytest.raises(BadOffersError) as caught:
        take(*offers, name=name)
    assert all("\n" not in str(problem) for problem in caught.value.problems)
    return [re.sub(r"/\S*/", "", str(problem)) for problem in caught.value.problems]


def rows(place: Any, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = query(place.warehouse, sql).to_pylist()
    return found


@pytest.fixture(scope="module")
def bare(module_place: Any) -> Any:
    """A warehouse of the configuration alone, to be read only."""
    load_bundles(module_place.warehouse, module_place.bundles)
    return module_place


@pytest.fixture
def runs(place: Any, spec: Any) -> None:
    """Two GPUs' runs without quality, so that nothing is judged, loaded."""
    place.write(spec("run-h100", tasks={}), spec("run-h200", gpu="h200", tasks={}))
    load_bundles(place.warehouse, place.bundles)


@pytest.mark.parametrize("name", ["offers.csv", "offers.json"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"gpu": "h10"}, "nothing is called 'h10'. Did you mean 'h100'?"),
        ({"usd_per_hour": 0}, "key 'usd_per_hour': input should be greater than 0 (found"),
        ({"usd_per_hour": -2.5}, "key 'usd_per_hour': input should be greater than 0 (found"),
        ({"usd_per_hour": "1,5"}, "key 'usd_per_hour': input should be a valid number"),
        ({"usd_per_hour": "inf"}, "key 'usd_per_hour': input should be a finite number (found 'inf')"),
        ({"gpu_count": 0}, "key 'gpu_count': input should be greater than or equal to 1"),
        ({"price_kind": "reserve"}, "key 'price_kind': input should be 'on_demand', 'spot' or 'reserved'"),
        (
            {"valid_from": "2026-11-02"},
            "valid_from 2026-11-02 lies in the future (today is 2026-11-01, UTC).",
        ),
        ({"valid_from": "20260601"}, "key 'valid_from': a day is written like 2026-03-20 (found '20260601')"),
        ({"valid_from": "2026-02-30"}, "key 'valid_from': input should be a valid date"),
        ({"valid_to": "2026-06-01"}, "valid_to 2026-06-01 isn't after valid_from 2026-06-01."),
        ({"currency": "EUR"}, "currency 'EUR': only USD is priced. Convert it, and name the rate"),
        ({"source": None}, "key 'source' is missing. Add it."),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_imported(
    place: Any, take: Callable[..., Any], name: str, change: dict[str, Any], told: str
) -> None:
    (problem,) = problems(take, OFFER, OFFER | {"provider": "other"} | change, name=name)
    line = 3 if name.endswith("csv") else 10
    assert problem.startswith(f"{name}:{line}: {told}")
    assert not imported_folder(place.warehouse).exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"usd_per_hour": True}, "key 'usd_per_hour': it should be a number (found True)."),
        ({"valid_from": 20260601}, "key 'valid_from': a day is written like 2026-03-20 (found 20260601)."),
        ({"evidence": "measured"}, "unknown key 'evidence'. Leave it out: what is imported is `imported`."),
        ({"gpus": 2}, "unknown key 'gpus'. Did you mean 'gpu'?"),
        ({"provider": ""}, "key 'provider': string should have at least 1 character"),
    ],
)
def test_what_only_json_can_get_wrong(take: Callable[..., Any], change: dict[str, Any], told: str) -> None:
    (problem,) = problems(take, OFFER | change, name="offers.json")
    assert problem.startswith(f"offers.json:2: {told}")


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ({}, {}, "the same offer as"),
        ({}, {"usd_per_hour": 2}, "overlaps the offer of 1.5 USD/h, 2026-06-01 to the next, at"),
        (
            SAME_DAYS,
            SAME_DAYS | {"usd_per_hour": 2},
            "overlaps the offer of 1.5 USD/h, 2026-06-01 to 2026-07-01",
        ),
        (SAME_DAYS, {"valid_from": "2026-06-30"}, "overlaps the offer of 1.5 USD/h"),
        ({"valid_from": "2026-06-30"}, SAME_DAYS, "overlaps the offer of 1.5 USD/h, 2026-06-30 to the next"),
    ],
)
def test_two_prices_for_one_day_are_refused(
    place: Any, take: Callable[..., Any], first: dict[str, Any], second: dict[str, Any], told: str
) -> None:
    (problem,) = problems(take, OFFER | first, OFFER | second)
    assert problem.startswith(f"offers.csv:3: {told}")
    assert "offers.csv:2. " in problem
    assert not imported_folder(place.warehouse).exists()


def test_overlaps_are_found_against_what_is_known(take: Callable[..., Any]) -> None:
    own = {"provider": "spheron", "valid_from": "2026-03-20", "usd_per_hour": 1.0}
    with pytest.raises(BadOffersError) as caught:
        take(OFFER | own)
    assert "overlaps the offer of 2.01 USD/h, 2026-03-20 to the next, at prices.yaml: prices.1." in str(
        caught.value.problems[0]
    )
    take(OFFER | SAME_DAYS)
    with pytest.raises(BadOffersError) as caught:
        take(OFFER | {"valid_from": "2026-06-15"})
    assert "2026-06-01 to 2026-07-01, at prices/" in str(caught.value.problems[0])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"valid_from": "2026-06-02"}),  # an open offer ends where the next begins
        (SAME_DAYS, {"valid_from": "2026-07-01"}),
        ({}, {"region": "eu"}),
        ({}, {"gpu_count": 8}),
        ({}, {"price_kind": "spot"}),
        ({}, {"provider": "other"}),
    ],
)
def test_one_price_a_day_and_series_is_no_overlap(
    take: Callable[..., Any], first: dict[str, Any], second: dict[str, Any]
) -> None:
    assert take(OFFER | first, OFFER | second).imported == 2


def test_every_bad_line_is_told_at_once(place: Any, take: Callable[..., Any]) -> None:
    bad = [OFFER | change for change in ({"gpu": "x"}, {}, {"usd_per_hour": 0}, {"currency": "GBP"})]
    found = problems(take, *bad)
    assert [line.split(": ")[0] for line in found] == ["offers.csv:2", "offers.csv:4", "offers.csv:5"]
    with pytest.raises(ConfigError, match="3 of 4 offers are wrong, nothing was imported"):
        take(*bad)
    assert not imported_folder(place.warehouse).exists()


def test_importing_again_changes_nothing(place: Any, take: Callable[..., Any]) -> None:
    later = OFFER | {"valid_from": "2026-07-01", "usd_per_hour": 1.2}
    first = take(OFFER)
    assert (first.imported, first.known) == (1, 0)
    again = take(OFFER | {"source": "somebody else"}, name="again.json")
    assert (again.imported, again.known, again.file) == (0, 1, None)
    both = take(OFFER, later)
    assert (both.imported, both.known) == (1, 1)
    assert sorted(imported_folder(place.warehouse).iterdir()) == sorted([first.file, both.file])


def test_csv_and_json_are_the_same_offers(place: Any, take: Callable[..., Any]) -> None:
    offers = [OFFER | {"note": 'a "quoted", long\nnote', "gpu_count": 8}, OFFER | {"price_kind": "spot"}]
    kept = take(*offers).file
    text = kept.read_text()
    kept.unlink()
    other = take(*offers, name="offers.json").file
    assert other == kept
    assert yaml.safe_load(other.read_text()) == yaml.safe_load(text)
    (placed, _) = read_configuration(imported=imported_folder(place.warehouse)).imported
    assert placed.offer == PriceOffer(**offers[0], evidence="imported")


HEADER = "provider,gpu,price_kind,usd_per_hour,valid_from,source"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.txt", "", "'.txt' is neither .csv nor .json"),
        (
            "a.csv",
            "",
            "holds no offer. A line needs provider, gpu, price_kind, usd_per_hour, valid_from, source",
        ),
        ("a.csv", HEADER + "\n\n", "holds no offer"),
        ("a.csv", "provider,price\n", ":1: unknown column 'price'. Known columns: provider, region, gpu,"),
        ("a.csv", "provider;gpu\n", ":1: unknown column 'provider;gpu'"),
        ("a.csv", "\nprovider,gpu\n", ":2: column 'price_kind' is missing"),
        ("a.csv", HEADER + ",gpu\n", ":1: column 'gpu' stands twice"),
        ("a.csv", HEADER + '\n"acme', ":2: not valid CSV (unexpected end of data)"),
        ("a.csv", "\xff", "can't be read"),
        ("a.json", "", ":1: expected '['. Give a JSON list of objects."),
        ("a.json", '{"prices": []}', ":1: expected '['"),
        ("a.json", "[]", "holds no offer"),
        ("a.json", '[\n{"a": 1,}]', ":2: not valid JSON ("),
        ("a.json", '[{"gpu": "a", "gpu": "b"}]', ":1: not valid JSON (key 'gpu' stands twice)"),
        ("a.json", '[{"usd_per_hour": NaN}]', ":1: not valid JSON (NaN is no number)"),
        ("a.json", "[{}\n{}]", ":2: expected ']'"),
        ("a.json", "[{}]\n\nx", ":3: something follows the list"),
    ],
)
def test_a_file_that_is_none(place: Any, name: str, text: str, told: str) -> None:
    file = place.path / name
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        import_offers(file, imported_folder(place.warehouse), (), OWN.gpus.gpus)
    line = str(caught.value)
    assert told in line
    assert "\n" not in line
    assert not imported_folder(place.warehouse).exists()


def test_a_file_is_checked_against_the_projects_own_offers(place: Any) -> None:
    with pytest.raises(ConfigError, match=r"none.csv: no such file. Give the path of a CSV or JSON file."):
        import_prices(place.path / "none.csv", place.warehouse)
    file = written(place.path / "offers.csv", OFFER | {"provider": "spheron", "valid_from": "2026-03-20"})
    with pytest.raises(BadOffersError) as caught:
        import_prices(file, place.warehouse, today=TODAY)
    assert "at prices.yaml: prices.1." in str(caught.value.problems[0])


def test_a_line_is_counted_where_it_begins(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(
        "﻿" + HEADER + '\nacme,h100,spot,1,2026-06-01,"two\nlines"\n\nacme,h100\n', encoding="utf-8"
    )
    first, second = read_lines(file)
    assert (first.where, second.where) == (f"{file}:2", f"{file}:5")
    assert parse_offer(first).source == "two\nlines"
    with pytest.raises(ConfigError, match="2 cells under a header of 6"):
        parse_offer(second)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["csv", "json"]), st.text() | st.text(alphabet='[]{}",:\n 1anul'))
def test_any_text_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, kind: str, text: str
) -> None:
    file = tmp_path_factory.mktemp("offers") / f"a.{kind}"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        for line in read_lines(file):
            parse_offer(line)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017


WORDS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).map(
    lambda text: f"x{text}x"
)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.builds(
            PriceOffer,
            provider=WORDS,
            region=WORDS,
            gpu=WORDS,
            gpu_count=st.integers(1, 10**6),
            price_kind=st.sampled_from(["on_demand", "spot", "reserved"]),
            usd_per_hour=st.floats(1e-9, 1e9),
            valid_from=st.dates(min_value=date(1900, 1, 1)),
            valid_to=st.none() | st.dates(min_value=date(1900, 1, 1)),
            source=WORDS,
            note=st.none() | WORDS,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_what_is_written_as_csv_or_json_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, offers: list[PriceOffer]
) -> None:
    folder = tmp_path_factory.mktemp("offers")
    plain = [offer.model_dump(mode="json", exclude={"evidence"}) for offer in offers]
    for name in ("a.csv", "a.json"):
        lines = read_lines(written(folder / name, *plain))
        assert [parse_offer(line) for line in lines] == offers


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
    with pytest.raises(ConfigError) as caught:
        read_configuration(other, folder)
    assert str(caught.value).startswith("prices/")
    assert (
        "two offers for acme, any, h100, 1, on_demand, 2026-06-01, the other at prices.yaml: prices.8."
        in str(caught.value)
    )


def test_what_nvml_told_of_a_run_is_kept(manifest_of: Any, spec: Any) -> None:
    told = {
        "cuda_version": "13.0",
        "sm_clock_max_mhz": 1980,
        "memory_clock_max_mhz": 2619,
        "power_limit_w": 700.0,
    }
    manifest = manifest_of(spec("run-h100"))
    manifest = manifest.model_copy(update={"hardware": manifest.hardware.model_copy(update=told)})
    with duckdb.connect(":memory:") as connection:
        migrate(connection)
        insert_rows(connection, "runs", [run_row(manifest)])
        kept = connection.execute(f"SELECT {', '.join(told)} FROM store.runs").fetchall()
    assert kept == [tuple(told.values())]


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
    told = rows(place, "SELECT DISTINCT cuda_version, power_limit_w FROM runs")
    assert told == [{"cuda_version": None, "power_limit_w": None}]
