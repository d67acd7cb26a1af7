"""Read-only SQL against the warehouse, also while a load is going on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pandas as pd
import pyarrow as pa

from quantgate.model.errors import ConfigError, RunError
from warehouse.database import Connection, defined

_BARE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # otherwise a table name could refer to one of our Python variables
}
_READING = frozenset({duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.MULTI})
"""Statement types that can only read; PIVOT is a MULTI, DESCRIBE, SHOW and SUMMARIZE are SELECTs."""
_AS_TEXT = frozenset({"UHUGEINT", "BIGNUM", "BIT", "TIME", "TIME WITH TIME ZONE", "INTERVAL", "VARIANT"})
"""Types of which Arrow or Python would lose something: DuckDB writes their values as text."""
PAGE_ROWS = 10_000
"""Rows that are in memory together when a result is streamed."""

T = TypeVar("T")


@contextmanager
def read_only(warehouse: Path) -> Iterator[Connection]:
    """Open a connection that can read the warehouse and nothing else: no file, no extension, no setting.

    Each connection has its own DuckDB instance. It keeps the state of the moment it was opened, even if a load
    replaces the warehouse meanwhile. Times are in UTC.

    Raises:
        ConfigError: the warehouse doesn't exist yet.
        RunError: the file is no DuckDB database that this version of DuckDB can read, or has not this version's views.
    """
    if not warehouse.is_file():
        raise ConfigError(
            "there is no warehouse yet",
            where=str(warehouse),
            hint="Run `quantgate demo`, or `quantgate load` if you have bundles already.",
        )
    connection = duckdb.connect(":memory:", config=_BARE)
    try:
        path = str(warehouse).replace("'", "''")
        try:
            connection.execute(f"ATTACH '{path}' AS warehouse (READ_ONLY)")
        except duckdb.Error as error:
            raise RunError(
                f"can't be opened ({_first_line(error)})",
                where=str(warehouse),
                hint="Move it away and run `quantgate load`: it is rebuilt from the bundles.",
            ) from None
        for setting in ("USE warehouse", "SET TimeZone = 'UTC'", "SET enable_external_access = false"):
            connection.execute(setting)
        connection.execute("SET lock_configuration = true")
        try:
            yield connection
        except (duckdb.BinderException, duckdb.CatalogException) as error:
            raise RunError(
                f"it is another version's ({_first_line(error)})",
                where=str(warehouse),
                hint="`quantgate load` brings it to this version.",
            ) from None
    finally:
        connection.close()


def query(warehouse: Path, sql: str, values: Mapping[str, Any] | None = None) -> pa.Table:
    """Run one read-only statement and return its rows.

    Args:
        warehouse: the DuckDB file.
        sql: a SELECT (or FROM, WITH, PIVOT, DESCRIBE, SHOW, SUMMARIZE, EXPLAIN) statement.
        values: values of its ``$name`` parameters.

    Raises:
        ConfigError: the statement is wrong or not read-only, or the warehouse doesn't exist.
        RunError: the warehouse can't be read.
    """
    with read_only(warehouse) as connection, _explaining():
        return _awaited(connection, lambda: _relation(connection, sql, values).to_arrow_table())


def pages(warehouse: Path, sql: str) -> Iterator[pa.Table]:
    """Run one read-only statement and yield its rows, at most `PAGE_ROWS` at a time; one empty page where it has none.

    Raises:
        ConfigError: as `query`, also between two pages.
        RunError: the warehouse can't be read.
    """
    with read_only(warehouse) as connection, _explaining():
        reader = _awaited(connection, lambda: _relation(connection, sql).to_arrow_reader(PAGE_ROWS))
        batch = _awaited(connection, lambda: next(reader, None))
        if batch is None:
            yield reader.schema.empty_table()
        while batch is not None:
            yield pa.Table.from_batches([batch])
            batch = _awaited(connection, lambda: next(reader, None))


def _relation(
    connection: Connection, sql: str, values: Mapping[str, Any] | None = None
) -> duckdb.DuckDBPyRelation:
    """Return what a read-only statement gives, with text for values that Arrow or Python would change."""
    _check_reads(connection, sql)
    relation = connection.sql(sql, params=dict(values) if values else None)
    if relation is None:
        raise _refused()
    if _AS_TEXT.isdisjoint(map(str, relation.types)):
        return relation
    columns = []
    for number, (name, kind) in enumerate(zip(relation.columns, relation.types, strict=True), 1):
        quoted = name.replace('"', '""')
        columns.append(f'CAST(#{number} AS {"VARCHAR" if str(kind) in _AS_TEXT else kind}) AS "{quoted}"')
    return relation.project(", ".join(columns))


def _awaited(connection: Connection, work: Callable[[], T]) -> T:
    """Do DuckDB's work in a thread: a signal that ends this one interrupts the statement, however long it takes."""
    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(work).result()
        except BaseException:
            connection.interrupt()
            raise


@contextmanager
def _explaining() -> Iterator[None]:
    """Report in one line what DuckDB refuses.

    Raises:
        ConfigError: an error of DuckDB was raised within, or one of Arrow while it read DuckDB's rows.
    """
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:  # Arrow passes on DuckDB's as an OSError
        raise _explained(error) from None


def query_frame(warehouse: Path, sql: str) -> pd.DataFrame:
    """Return the rows of `query` as a pandas frame."""
    frame: pd.DataFrame = query(warehouse, sql).to_pandas()
    return frame


def _check_reads(connection: Connection, sql: str) -> None:
    if not sql.isascii() and sql != sql.encode("utf-8", "replace").decode():
        raise ConfigError("the statement is no UTF-8", where="sql", hint="Give it in UTF-8.")
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise ConfigError(
            f"expected one SQL statement, found {len(statements)}",
            where="sql",
            hint='Give one, e.g. "SELECT precision, verdict FROM validated_table".',
        )
    if statements[0].type not in _READING:
        raise _refused()


def _refused() -> ConfigError:
    return ConfigError(
        "only statements that read are allowed",
        where="sql",
        hint="Use SELECT; only the loader writes.",
    )


def _first_line(error: Exception) -> str:
    """Return DuckDB's message without its class and without the lines that point into the statement."""
    return re.sub(r"^\w+(?: \w+)? Error: ", "", str(error).split("\n", 1)[0]).rstrip(".! ")


def _explained(error: Exception) -> ConfigError:
    text = str(error)
    if isinstance(error, duckdb.PermissionException):
        return ConfigError(
            "files and extensions can't be reached from here",
            where="sql",
            hint="Query the views of the warehouse; `SHOW TABLES` lists them.",
        )
    missing = re.search(r"(?:Table|Function) with name (\w+) does not exist", text)
    if missing and missing[1].lower() in defined():
        return ConfigError(
            f"this warehouse, made by another version of Quantgate, has no '{missing[1]}' yet",
            where="sql",
            hint="`quantgate load` brings it to this version.",
        )
    suggestion = re.search(r'(Did you mean "[^"]+"\??|Candidate bindings: [^\n]+)', text)
    return ConfigError(
        _first_line(error),
        where="sql",
        hint=suggestion[1] if suggestion else "`SHOW TABLES` lists the views, `DESCRIBE` one.",
    )
