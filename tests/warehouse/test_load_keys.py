"""A warehouse of an earlier Quantgate takes its runs' verdict keys anew, and then leaves them alone."""

from __future__ import annotations

import shutil
from typing import Any

import duckdb

from warehouse import load
from warehouse.load import load_bundles
from warehouse.query import query

KEYS = "SELECT run_id, verdict_key FROM store.runs ORDER BY run_id"


def write(place: Any, *statements: str) -> None:
    with duckdb.connect(str(place.warehouse)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_keys_of_before_are_made_anew_once(place: Any, three: Any, begun: None, monkeypatch: Any) -> None:
    place.write(*three)
    load_bundles(place.warehouse, place.bundles)
    keys = query(place.warehouse, KEYS).to_pylist()
    shutil.rmtree(place.bundles / three[2].run_id)
    old = "UPDATE store.runs SET verdict_key = 'old'"
    write(place, old, "UPDATE store.settings SET value = '1' WHERE name IN ('verdict_keys', 'configuration')")
    monkeypatch.setattr(load, "VERDICT_KEYS", "as if it had changed")
    assert load_bundles(place.warehouse, place.bundles).swapped
    gone = [{"run_id": three[2].run_id, "verdict_key": "old"}]
    expected = [row for row in keys if row["run_id"] != three[2].run_id]
    assert query(place.warehouse, KEYS).to_pylist() == sorted(
        [*expected, *gone], key=lambda row: row["run_id"]
    )

    write(place, old)
    place.write(three[2])
    load_bundles(place.warehouse, place.bundles)
    assert {row["verdict_key"] for row in query(place.warehouse, KEYS).to_pylist()} == {"old"}
