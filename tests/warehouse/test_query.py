"""SQL that reads the warehouse and nothing else, and what it is written as."""

from __future__ import annotations

import csv
import io
import json
import math
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantgate.model.errors import ConfigError, RunError
from quantgate.model.text import csv_text
from warehouse.query import PAGE_ROWS, pages, query, query_frame
from warehouse.report.render import Format, render, written

SQL = (
    "SELECT precision, verdict, quality_delta, usd_per_mtok_output FROM validated_table "
    "WHERE use = 'all' AND price_kind = 'spot'"
)


def test_the_contract_s_question_as_table_csv_and_json(loaded: Any) -> None:
    table = query(loaded.warehouse, SQL)
    rows = json.loads(render(table, "json"))
    assert [(row["precision"], row["verdict"], row["quality_delta"]) for row in rows[::2]] == [
        ("bf16", "BASELINE", None),
        ("fp8", "VALIDATED", 0.0),
        ("nvfp4", "REJECTED", -0.3),
    ]
    assert rows[1]["usd_per_mtok_output"] == pytest.approx(0.99 / (400 * 3600) * 1e6)
    parsed = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert [row["quality_delta"] for row in parsed[::2]] == ["", "0.0", "-0.3"]
    assert [float(row["usd_per_mtok_output"]) for row in parsed] == [
        row["usd_per_mtok_output"] for row in rows
    ]
    lines = render(table, "table").splitlines()
    assert lines[0].split() == ["precision", "verdict", "quality_delta", "usd_per_mtok_output"]
    assert lines[2].split() == ["bf16", "BASELINE", "–", "2.75"]
    assert len({len(line) for line in lines}) == 1, "aligned"
    assert query_frame(loaded.warehouse, SQL)["verdict"].tolist()[::2] == [
        "BASELINE",
        "VALIDATED",
        "REJECTED",
    ]


def test_json_has_native_types(loaded: Any) -> None:
    sql = (
        "SELECT null_reasons, validity_reasons, measured_at, price_as_of, stale, concurrency, "
        "sum(concurrency) OVER () AS s FROM validated_table WHERE run_id = 'run-fp8' LIMIT 1"
    )
    (row,) = json.loads(render(query(loaded.warehouse, sql), "json"))
    assert row["null_reasons"]["usd_per_mtok_goodput"] == "no_slo"
    assert row["validity_reasons"] == []
    assert row["measured_at"] == "2026-04-01T13:05:00Z"
    assert row["price_as_of"] == "2026-03-20"
    assert row["stale"] is True
    assert (type(row["concurrency"]), type(row["s"])) == (int, int)


@pytest.mark.parametrize(
    "sql",
    [
        "SHOW TABLES",
        "DESCRIBE validated_table",
        "FROM runs",
        "EXPLAIN FROM runs",
        "WITH x AS (FROM runs) FROM x",
        "PIVOT verdicts ON verdict USING count(*) GROUP BY use",
        "SUMMARIZE gpus",
    ],
)
def test_statements_that_read_are_let_through(loaded: Any, sql: str) -> None:
    assert query(loaded.warehouse, sql).num_rows > 0


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO store.runs FROM store.runs",
        "DELETE FROM store.runs",
        "UPDATE store.runs SET gpu = 'x'",
        "DROP TABLE store.runs",
        "CREATE TABLE mine (x INTEGER)",
        "CREATE TEMP TABLE mine (x INTEGER)",
        "CREATE VIEW mine AS SELECT 1",
        "COPY (SELECT 1) TO '{file}'",
        "COPY store.runs FROM '{file}'",
        "EXPORT DATABASE '{file}'",
        "ATTACH '{file}' AS other",
        "ATTACH ':memory:' AS other",
        "DETACH warehouse",
        "USE memory",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET threads = 1",
        "RESET lock_configuration",
        "PRAGMA enable_profiling",
        "CALL enable_logging()",
        "CHECKPOINT",
        "EXPLAIN ANALYZE INSERT INTO store.runs FROM store.runs",
        "SELECT 1; DROP TABLE store.runs",
        "FROM read_csv('{file}')",
        "FROM read_text('{file}')",
        "FROM read_parquet('{file}')",
        "FROM '{file}'",
        "FROM glob('/*')",
        "FROM sqlite_scan('{file}', 'x')",
        "FROM read_csv('https://example.org/x.csv')",
    ],
)
def test_what_writes_or_leaves_the_warehouse_is_refused_in_one_line(
    loaded: Any, tmp_path: Path, sql: str
) -> None:
    file = tmp_path / "secret.csv"
    file.write_text("secret\n42\n")
    before = loaded.warehouse.read_bytes()
    with pytest.raises(ConfigError) as caught:
        query(loaded.warehouse, sql.format(file=file))
    assert str(caught.value).startswith("sql: ")
    assert "\n" not in str(caught.value)
    assert "42" not in str(caught.value)
    assert loaded.warehouse.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.csv"]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT precison FROM validated_table", '"precison" not found'),
        ("FROM validated_tabel", 'Did you mean "validated_table"'),
        ("", "expected one SQL statement, found 0"),
        ("SELECT 'a'::INTEGER", "Could not convert"),
        ("SELECT frobnicate(1)", "frobnicate"),
        ("SELECT '\udcff'", "the statement is no UTF-8"),
    ],
)
def test_a_mistake_is_one_clear_line(loaded: Any, sql: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        query(loaded.warehouse, sql)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "LINE 1" not in str(caught.value)


def test_a_python_variable_is_no_table(loaded: Any) -> None:
    variable = pa.table({"x": [1]})
    assert variable.num_rows == 1
    with pytest.raises(ConfigError, match="variable does not exist"):
        query(loaded.warehouse, "FROM variable")


def test_a_missing_warehouse_names_the_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no warehouse yet\. Run `quantgate demo`, or `quantgate load`"):
        query(tmp_path / "warehouse.duckdb", "SELECT 1")
    (tmp_path / "broken.duckdb").write_bytes(b"x" * 5000)
    with pytest.raises(RunError, match="rebuilt from the bundles"):
        query(tmp_path / "broken.duckdb", "SELECT 1")


@pytest.mark.parametrize("name", ["claims", "cost_per_token_at('2026-06-01')"])
def test_a_warehouse_of_an_older_version_names_the_mend(tmp_path: Path, loaded: Any, name: str) -> None:
    older = tmp_path / "older.duckdb"
    older.write_bytes(loaded.warehouse.read_bytes())
    with duckdb.connect(str(older)) as connection:
        connection.execute("DROP VIEW claims; DROP MACRO TABLE cost_per_token_at")
    refusal = f"no '{name.split('(', maxsplit=1)[0]}' yet. `quantgate load` brings it to this version."
    with pytest.raises(ConfigError) as caught:
        query(older, f"FROM {name}")
    assert str(caught.value).endswith(refusal)


def test_a_warehouse_whose_path_holds_a_quote(place: Any, loaded: Any) -> None:
    path = place.path / "it's here.duckdb"
    path.write_bytes(loaded.warehouse.read_bytes())
    assert query(path, "SELECT count(*) AS n FROM runs").to_pylist() == [{"n": 3}]


def test_formats_refuse_what_they_cannot_hold() -> None:
    table = pa.table([[1], [2]], names=["a", "a"])
    with pytest.raises(ConfigError, match="two columns are called 'a'"):
        render(table, "json")
    assert render(table, "csv") == "a,a\n1,2"
    with pytest.raises(ConfigError, match=r"unknown format 'xml'\. Use table, record, csv, json"):
        render(table, "xml")


def test_a_terminal_gets_no_control_characters_and_no_cut() -> None:
    text = "a\x1b[31m\n" + "x" * 500
    out = render(pa.table({"t": [text]}))
    assert "\x1b" not in out
    assert len(out.splitlines()) == 3
    assert "x" * 500 in out


def test_a_record_has_a_line_for_each_column() -> None:
    table = pa.table({"precision": ["fp8", None], "reason": ["it is un-decided so far", ""]})
    assert render(table, "record").splitlines() == [
        "── 1 of 2",
        "precision  fp8",
        "reason     it is un-decided so far",
        "",
        "── 2 of 2",
        "precision  –",
        "reason",
    ]
    narrow = render(table, "record", width=25).splitlines()
    assert narrow[1:5] == ["precision  fp8", "reason     it is", "           un-decided so", "           far"]
    hashed = render(pa.table({"verdict_key": ["a" * 64]}), "record", width=70)
    assert hashed.splitlines()[1:] == ["verdict_key", "  " + "a" * 64], "no word is broken"


def test_an_empty_result() -> None:
    table = pa.table({"a": pa.array([], pa.int64())})
    assert render(table, "record") == "no rows"
    assert (render(table, "json"), render(table, "csv"), render(table)) == ("[]", "a", "a\n─")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.fixed_dictionaries({
    "text": st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    "number": st.none() | st.floats(),
    "count": st.none() | st.integers(-(2**63), 2**63 - 1),
    "flag": st.none() | st.booleans(),
    "list": st.none() | st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=3),
}), max_size=6))  # fmt: skip
def test_json_and_csv_give_back_what_was_written(rows: list[dict[str, Any]]) -> None:
    schema = pa.schema(
        {
            "text": pa.string(),
            "number": pa.float64(),
            "count": pa.int64(),
            "flag": pa.bool_(),
            "list": pa.list_(pa.string()),
        }
    )
    table = pa.Table.from_pylist(rows, schema=schema)
    expected = [
        row | {"number": None if row["number"] is None or not math.isfinite(row["number"]) else row["number"]}
        for row in rows
    ]
    assert json.loads(render(table, "json")) == expected
    parsed = list(csv.DictReader(io.StringIO(render(table, "csv") + "\n", newline="")))
    for found, row in zip(parsed, expected, strict=True):
        assert found["text"] == csv_text(row["text"] or "")
        assert found["number"] == ("" if row["number"] is None else str(row["number"]))
        assert found["count"] == ("" if row["count"] is None else str(row["count"]))
        assert found["flag"] == ("" if row["flag"] is None else str(row["flag"]).lower())
        assert (json.loads(found["list"]) if found["list"] else None) == row["list"]
    render(table)


def test_times_are_in_utc_whatever_the_machine_s_zone(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    row = query(
        loaded.warehouse, "SELECT TIMESTAMPTZ '2026-04-01 00:00' AS t, current_setting('TimeZone') AS z"
    )
    assert row.to_pylist()[0]["t"] == datetime(2026, 4, 1, tzinfo=UTC)


FAR = {
    "'infinity'::DATE": "infinity",
    "'-infinity'::DATE": "-infinity",
    "'infinity'::TIMESTAMP": "infinity",
    "'-infinity'::TIMESTAMPTZ": "-infinity",
    "'infinity'::TIMESTAMP_S": "infinity",
    "'290000-01-01'::DATE": "290000-01-01",
    "'290000-01-01'::TIMESTAMPTZ": "290000-01-01T00:00:00.000000Z",
    "'0044-03-15 (BC)'::DATE": "-0043-03-15",
    "['infinity'::DATE, NULL]": ["infinity", None],
    "union_value(a := 'infinity'::DATE)": "infinity",
    "['infinity'::DATE]::DATE[1]": ["infinity"],
    "{'a': 'infinity'::DATE}": {"a": "infinity"},
    "MAP {'a': '-infinity'::TIMESTAMP}": {"a": "-infinity"},
}
OTHER = {
    "'10101'::BIT": "10101",
    "'12:00:00+02:00'::TIMETZ": "12:00:00+02",
    "'24:00:00'::TIME": "24:00:00",
    "'340282366920938463463374607431768211455'::UHUGEINT": "340282366920938463463374607431768211455",
    "12345678901234567890123456789::BIGNUM": "12345678901234567890123456789",
    "170141183460469231731687303715884105727::HUGEINT": 170141183460469231731687303715884105727,
    "99999999999999999999999999999999999999::DECIMAL(38, 0)": 99999999999999999999999999999999999999,
    "INTERVAL 3 MONTH": "3 months",
    "'b'::ENUM ('a', 'b')": "b",
    "'\\xAA'::BLOB": "aa",
    "'6a93a8b4-1d0f-4c1a-9a86-0f2f4f5f6a7b'::UUID": "6a93a8b4-1d0f-4c1a-9a86-0f2f4f5f6a7b",
    "union_value(x := 1)": 1,
    "[1, 2]::INTEGER[2]": [1, 2],
    "'nan'::DOUBLE": None,
}


def shown(warehouse: Path, sql: str, form: str = "json") -> str:
    return "\n".join(written(pages(warehouse, sql), Format(form)))


@pytest.mark.parametrize(("value", "expected"), [*FAR.items(), *OTHER.items()])
def test_a_value_that_python_lacks_is_written_in_each_format(
    loaded: Any, value: str, expected: object
) -> None:
    sql = f'SELECT 1 AS "a ""b""", {value} AS v, 2 AS v2'
    assert json.loads(shown(loaded.warehouse, sql)) == [{'a "b"': 1, "v": expected, "v2": 2}]
    for form in ("table", "record", "csv"):
        text = shown(loaded.warehouse, sql, form)
        assert not isinstance(expected, str) or expected in text


def test_an_endless_result_is_written_page_by_page(loaded: Any) -> None:
    rows = pages(loaded.warehouse, "FROM range(1_000_000_000_000)")
    assert [page.num_rows for page in islice(rows, 2)] == [PAGE_ROWS, PAGE_ROWS]
    rows.close()  # type: ignore[attr-defined]


def test_pages_make_the_result_that_one_table_makes(loaded: Any) -> None:
    sql = f"SELECT range AS n, 'a' AS text FROM range({2 * PAGE_ROWS + 1})"
    whole = query(loaded.warehouse, sql)
    for form in ("json", "csv"):
        assert shown(loaded.warehouse, sql, form) == render(whole, form)
    table = shown(loaded.warehouse, sql, "table").splitlines()
    assert len(table) == whole.num_rows + 3 * 2 + 2, "three headers, and two lines between the pages"
    assert shown(loaded.warehouse, sql, "record").splitlines()[-3] == f"── {whole.num_rows}"
    for form in Format:
        empty = "SELECT 1 AS a WHERE false"
        assert shown(loaded.warehouse, empty, form) == render(query(loaded.warehouse, empty), form)


def test_a_mistake_in_a_later_row_is_one_line(loaded: Any) -> None:
    sql = f"SELECT if(range > {2 * PAGE_ROWS}, 'x', '1')::INTEGER FROM range({3 * PAGE_ROWS})"
    with pytest.raises(ConfigError, match="Could not convert string 'x' to INT32"):
        list(pages(loaded.warehouse, sql))
