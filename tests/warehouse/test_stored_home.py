"""A home of commit 9deb27d: its warehouse opens and its bundles load, with the tables that they had then."""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantgate.bundles.history import RunHistory
from quantgate.bundles.store import BundleStore
from quantgate.model.home import ROOT
from warehouse.load import load_bundles
from warehouse.query import query

STORED = ROOT / "tests" / "fixtures" / "home-9deb27d"
MADE_AT = "2026-11-30 12:00:00+00"
"""The tables were written that day; what is stale is counted from then."""


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    """The warehouse as 9deb27d left it."""
    file = tmp_path / "warehouse.duckdb"
    with lzma.open(STORED / "warehouse.duckdb.xz") as packed, file.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    return file


def stored(name: str) -> pa.Table:
    return pq.read_table(STORED / f"{name}.parquet")


def shown(warehouse: Path, view: str, columns: list[str]) -> list[dict[str, object]]:
    listed = ", ".join(f'"{column}"' for column in columns)
    return sorted_rows(query(warehouse, f"SELECT {listed} FROM {view}"))


def sorted_rows(table: pa.Table) -> list[dict[str, object]]:
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        if "null_reasons" in row:  # of the columns that there were
            row["null_reasons"] = [(name, code) for name, code in row["null_reasons"] if name in row]
    return sorted(rows, key=str)


@pytest.mark.parametrize("rebuilt", [False, True], ids=["as it was stored", "rebuilt from its bundles"])
def test_its_tables_are_what_they_were(warehouse: Path, rebuilt: bool) -> None:
    if rebuilt:
        warehouse.unlink()
    report = load_bundles(warehouse, STORED / "bundles")
    assert report.problems == ()
    table, verdicts = stored("validated_table"), stored("verdicts")
    view = f"validated_table_at(TIMESTAMPTZ '{MADE_AT}')"
    assert shown(warehouse, view, table.column_names) == sorted_rows(table)
    left_out = {"verdict_key"} | ({"reason"} if rebuilt else set())
    columns = [name for name in verdicts.column_names if name not in left_out]
    assert shown(warehouse, "verdicts", columns) == sorted_rows(verdicts.select(columns)), (
        "keys are computed anew, the words of a reason may change, nothing else"
    )
    assert query(warehouse, "SELECT * FROM store.changed_verdicts").num_rows == 0


def test_it_can_be_asked_before_anything_is_loaded(warehouse: Path) -> None:
    verdicts = stored("verdicts")
    assert shown(warehouse, "verdicts", verdicts.column_names) == sorted_rows(verdicts)


def test_its_bundles_are_of_schema_version_2_and_come_in_the_order_of_their_clocks() -> None:
    history = RunHistory.read(BundleStore(STORED / "bundles"))
    assert {run.schema_version for run in history} == {2}
    assert [run.run_id for run in history] == sorted(run.run_id for run in history)
    assert history.latest_order == 0
