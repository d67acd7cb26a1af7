"""Offers: imported whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.model.config.prices import PriceOffer
from quantgate.model.errors import ConfigError
from tests.support.offers import OFFER, OWN, TODAY, import_into, written
from warehouse.configuration import import_prices, read_configuration
from warehouse.prices.offer_file import parse_offer, read_lines
from warehouse.prices.offers import (
    BadOffersError,
    LocatedOffer,
    _Known,
    import_offers,
    imported_folder,
    read_imported,
)

SAME_DAYS = {"valid_from": "2026-06-01", "valid_to": "2026-07-01"}


@pytest.fixture
def take(place: Any) -> Callable[..., Any]:
    """Import offers into an empty home, as of a fixed day."""
    return partial(import_into, place)


def problems(take: Callable[..., Any], *offers: dict[str, Any], name: str = "offers.csv") -> list[str]:
    with pytest.raises(BadOffersError) as caught:
        take(*offers, name=name)
    assert all("\n" not in str(problem) for problem in caught.value.problems)
    return [re.sub(r"/\S*/", "", str(problem)) for problem in caught.value.problems]


@pytest.mark.parametrize("name", ["offers.csv", "offers.json"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu": "h10"}, "nothing is called 'h10'. Did you mean 'h100'?"),
        (
            {"gpu": "rtx-pro-6000"},
            "nothing is called 'rtx-pro-6000'. Known: b200, b300, cpu, h100, h200, l40s. Add a board to ",
        ),
        (
            {"usd_per_hour": 0},
            "key 'usd_per_hour': input should be greater than or equal to 0.000000001 (found",
        ),
        (
            {"usd_per_hour": -2.5},
            "key 'usd_per_hour': input should be greater than or equal to 0.000000001 (found",
        ),
        (
            {"usd_per_hour": 1e-320},
            "key 'usd_per_hour': input should be greater than or equal to 0.000000001 (found",
        ),
        ({"usd_per_hour": "1,5"}, "key 'usd_per_hour': input should be a valid number"),
        ({"usd_per_hour": "inf"}, "key 'usd_per_hour': input should be a finite number (found 'inf')"),
        ({"gpu_count": 0}, "key 'gpu_count': input should be greater than or equal to 1"),
        ({"gpu_count": 2**31}, "key 'gpu_count': input should be less than 2147483648"),
        ({"usd_per_hour": 1e300}, "key 'usd_per_hour': input should be less than or equal to 1000000000"),
        ({"source": "x" * 10_001}, "key 'source': string should have at most 10000 characters"),
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
    place: Any, take: Callable[..., Any], name: str, change: dict[str, Any], message: str
) -> None:
    (problem,) = problems(take, OFFER, OFFER | {"provider": "other"} | change, name=name)
    line = 3 if name.endswith("csv") else 10
    assert problem.startswith(f"{name}:{line}: {message}")
    assert not imported_folder(place.warehouse).exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"usd_per_hour": True}, "key 'usd_per_hour': it should be a number (found True)."),
        ({"valid_from": 20260601}, "key 'valid_from': a day is written like 2026-03-20 (found 20260601)."),
        ({"evidence": "measured"}, "unknown key 'evidence'. Leave it out: imported offers have `imported`."),
        ({"gpus": 2}, "unknown key 'gpus'. Did you mean 'gpu'?"),
        ({"provider": ""}, "key 'provider': string should have at least 1 character"),
    ],
)
def test_what_only_json_can_get_wrong(take: Callable[..., Any], change: dict[str, Any], message: str) -> None:
    (problem,) = problems(take, OFFER | change, name="offers.json")
    assert problem.startswith(f"offers.json:2: {message}")


@pytest.mark.parametrize(
    ("first", "second", "message"),
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
    place: Any, take: Callable[..., Any], first: dict[str, Any], second: dict[str, Any], message: str
) -> None:
    (problem,) = problems(take, OFFER | first, OFFER | second)
    assert problem.startswith(f"offers.csv:3: {message}")
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


def test_an_offer_that_the_warehouse_refuses_is_not_kept(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any) -> None:
        raise duckdb.ConversionException("too wide")

    monkeypatch.setattr("warehouse.configuration.create_views", refuse)
    file = written(place.path / "offers.csv", OFFER)
    with pytest.raises(
        ConfigError, match=r"offers.csv: the warehouse refuses it \(too wide\). Correct the values"
    ):
        import_prices(file, place.warehouse, today=TODAY)
    assert list(imported_folder(place.warehouse).glob("*")) == []


def test_what_is_kept_is_read_back_whatever_its_text(place: Any, take: Callable[..., Any]) -> None:
    odd = OFFER | {
        "source": "line\u2028separator \x85 \x7f\ttab 😀",
        "note": "- {\nprices:\n",
        "provider": "null",
    }
    later = OFFER | {"valid_from": "2026-07-01", "usd_per_hour": 1}
    kept = take(odd, later, name="offers.json").file
    read = read_imported(imported_folder(place.warehouse))
    assert [located.offer for located in read.offers] == [
        PriceOffer(**offer, evidence="imported") for offer in (odd, later)
    ]
    assert [located.where for located in read.offers] == [f"prices/{kept.name}: prices.{n}" for n in (0, 1)]


def test_a_file_that_an_earlier_version_kept_is_read(place: Any) -> None:
    folder = imported_folder(place.warehouse)
    folder.mkdir()
    text = "# Imported by an earlier version.\n" + yaml.safe_dump(
        {"prices": [OFFER | {"evidence": "imported"}]}
    )
    (folder / "old.yaml").write_text(text)
    (located,) = read_imported(folder).offers
    assert located.offer == PriceOffer(**OFFER, evidence="imported")


def test_an_offer_within_a_long_one_overlaps_it(take: Callable[..., Any]) -> None:
    """Offers of prices.yaml may overlap: then all are looked at, not the nearest two alone."""
    long = PriceOffer(**OFFER | {"valid_from": "2026-01-01", "valid_to": "2026-12-31"})
    short = PriceOffer(**OFFER | {"valid_from": "2026-02-01", "valid_to": "2026-02-02"})
    known = _Known()
    for offer in (long, short):
        located = LocatedOffer("prices.yaml", offer)
        known.is_disjoint &= known.overlapped(offer) is None
        known.add(located)
    new = PriceOffer(**OFFER | {"valid_from": "2026-03-01", "valid_to": "2026-03-02"})
    assert known.overlapped(new) == LocatedOffer("prices.yaml", long)


HEADER = "provider,gpu,price_kind,usd_per_hour,valid_from,source"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "'.txt' is neither .csv nor .json"),
        (
            "a.csv",
            "",
            "it has no offer. A line needs provider, gpu, price_kind, usd_per_hour, valid_from, source",
        ),
        ("a.csv", HEADER + "\n\n", "it has no offer"),
        ("a.csv", "provider,price\n", ":1: unknown column 'price'. Known columns: provider, region, gpu,"),
        ("a.csv", "provider;gpu\n", ":1: unknown column 'provider;gpu'"),
        ("a.csv", "\nprovider,gpu\n", ":2: column 'price_kind' is missing"),
        ("a.csv", HEADER + ",gpu\n", ":1: column 'gpu' is listed twice"),
        ("a.csv", HEADER + '\n"acme', ":2: not valid CSV (unexpected end of data)"),
        ("a.csv", "\xff", "can't be read"),
        ("a.json", "", ":1: expected '['. Give a JSON list of objects."),
        ("a.json", '{"prices": []}', ":1: expected '['"),
        ("a.json", "[]", "it has no offer"),
        ("a.json", '[\n{"a": 1,}]', ":2: not valid JSON ("),
        ("a.json", '[{"gpu": "a", "gpu": "b"}]', ":1: not valid JSON (key 'gpu' is listed twice)"),
        ("a.json", '[{"usd_per_hour": NaN}]', ":1: not valid JSON (NaN is not a number)"),
        ("a.json", "[{}\n{}]", ":2: expected ']'"),
        ("a.json", "[{}]\n\nx", ":3: something follows the list"),
    ],
)
def test_a_file_that_is_none(place: Any, name: str, text: str, message: str) -> None:
    file = place.path / name
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        import_offers(file, imported_folder(place.warehouse), (), OWN.gpus.gpus)
    line = str(caught.value)
    assert message in line
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
