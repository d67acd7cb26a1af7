"""Offers to import in a test, and what is shared by the tests of prices."""

from __future__ import annotations

import csv
import json
from datetime import date
from pathlib import Path
from typing import Any

from warehouse.configuration import read_configuration
from warehouse.prices.offers import import_offers, imported_folder
from warehouse.query import query

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


def import_into(place: Any, *offers: dict[str, Any], name: str = "offers.csv") -> Any:
    """Import offers into a home, as of a fixed day."""
    return import_offers(
        written(place.path / name, *offers),
        imported_folder(place.warehouse),
        OWN.own_offers,
        OWN.gpus.gpus,
        TODAY,
    )


def rows(place: Any, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = query(place.warehouse, sql).to_pylist()
    return found
