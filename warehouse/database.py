"""The DuckDB file: its migrations, its views, and inserts into its tables."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from quantgate.model.disk import REFUSALS
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.yaml_file import fingerprint_of

_HERE = Path(__file__).resolve().parent
MIGRATIONS = _HERE / "migrations"
VIEWS = _HERE / "views"

MATERIALIZED = ("table_points", "standing_verdicts")
"""Tables of schema store that keep what a view computes; each holds the rows of the view ``store.fresh_<table>``."""

Connection = duckdb.DuckDBPyConnection

UNEXPECTED = (
    duckdb.Error,
    pa.ArrowException,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What values that nobody thought of raise, somewhere between a bundle's files and a view. No errors of the disk."""


@contextmanager
def writing(path: Path) -> Iterator[Connection]:
    """Open a DuckDB file for writing, times in UTC; checkpoint it when the block succeeds.

    Raises:
        OSError: the disk is full, or refuses; DuckDB has no error of its own for it.
    """
    try:
        with duckdb.connect(str(path)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection
            connection.execute("CHECKPOINT")
    except duckdb.Error as error:
        numbers = [number for number in REFUSALS if os.strerror(number) in str(error)]
        if numbers:
            raise OSError(numbers[0], os.strerror(numbers[0]), str(path)) from None
        raise


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Commit what the block changes, all of it; an error leaves it to the connection's end to undo it."""
    connection.execute("BEGIN")
    yield
    connection.execute("COMMIT")


@dataclass(frozen=True)
class Migration:
    """One numbered SQL file of ``warehouse/migrations``."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Return the SHA-256 (hex) of its text; an applied migration is never edited."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> tuple[Migration, ...]:
    """Read the migrations, in order.

    Raises:
        RunError: their numbers aren't 1, 2, 3 …
    """
    steps = []
    for path in sorted(MIGRATIONS.glob("*.sql")):
        match = re.fullmatch(r"(\d{3})_\w+\.sql", path.name)
        if match is None:
            raise RunError("not named like 001_what.sql", where=path.name, hint="Rename the migration.")
        steps.append(Migration(int(match[1]), path.stem, path.read_text(encoding="utf-8")))
    if [step.version for step in steps] != list(range(1, len(steps) + 1)):
        raise RunError(
            "the numbers have a gap or are listed twice", where=MIGRATIONS.name, hint="Number from 001 on."
        )
    return tuple(steps)


def schema_digest() -> str:
    """Return the SHA-256 (hex) of all migrations and views; a warehouse with the same digest is up to date."""
    views = {path.name: path.read_text(encoding="utf-8") for path in sorted(VIEWS.glob("*.sql"))}
    return fingerprint_of([[m.sha256 for m in migrations()], views])


def migrate(connection: Connection, steps: tuple[Migration, ...] | None = None) -> int:
    """Bring a warehouse to the newest schema, each migration in a transaction, and checkpoint.

    The checkpoint keeps schema changes and later row writes out of one write-ahead log.

    Returns:
        The number of migrations applied.

    Raises:
        ConfigError: the warehouse is newer than this Quantgate, or an applied migration was edited since.
    """
    steps = migrations() if steps is None else steps
    connection.execute("CREATE SCHEMA IF NOT EXISTS store")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS store.schema_migrations (version INTEGER NOT NULL, name VARCHAR NOT NULL, "
        "sha256 VARCHAR NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())"
    )
    rows = connection.execute(
        "SELECT version, name, sha256 FROM store.schema_migrations ORDER BY version"
    ).fetchall()
    known = {step.version: step for step in steps}
    for version, name, sha256 in rows:
        if version not in known:
            raise ConfigError(
                f"it has migration {name}, which this Quantgate doesn't know",
                where="warehouse",
                hint="Update Quantgate, or move the warehouse away and load the bundles again.",
            )
        if known[version].sha256 != sha256:
            raise ConfigError(
                f"migration {name} was changed after it had been applied",
                where="warehouse",
                hint="Restore the file and add a new migration, or rebuild the warehouse from its bundles.",
            )
    pending = [step for step in steps if step.version > len(rows)]
    for step in pending:
        with transaction(connection):
            connection.execute(step.sql)
            connection.execute(
                "INSERT INTO store.schema_migrations (version, name, sha256) VALUES (?, ?, ?)",
                [step.version, step.name, step.sha256],
            )
    if pending:
        connection.execute("CHECKPOINT")
    return len(pending)


def create_views(connection: Connection) -> None:
    """Create or replace every view and macro, in the order of their files."""
    for path in sorted(VIEWS.glob("*.sql")):
        connection.execute(path.read_text(encoding="utf-8"))


def defined() -> frozenset[str]:
    """Return the names of the views and macros that this version of Quantgate creates."""
    statement = re.compile(r"^CREATE OR REPLACE (?:VIEW|MACRO) ([a-z_0-9]+)", re.MULTILINE)
    return frozenset(
        name for path in VIEWS.glob("*.sql") for name in statement.findall(path.read_text(encoding="utf-8"))
    )


def refresh_materialized(connection: Connection) -> None:
    """Fill every materialized table from its view; a load that changed anything calls it, so no row is outdated."""
    with transaction(connection):
        for table in MATERIALIZED:
            connection.execute(f"DELETE FROM store.{table}")  # noqa: S608
            connection.execute(f"INSERT INTO store.{table} BY NAME FROM store.fresh_{table}")


def fetch(connection: Connection, sql: str, **values: Any) -> list[dict[str, Any]]:
    """Return the rows of a query as records; ``values`` are those of its ``$name`` parameters."""
    rows: list[dict[str, Any]] = connection.sql(sql, params=values or None).to_arrow_table().to_pylist()
    return rows


def insert_arrow(connection: Connection, table: str, rows: pa.Table) -> None:
    """Append an Arrow table to ``store.<table>``, columns matched by name."""
    connection.register("incoming", rows)
    connection.execute(f"INSERT INTO store.{table} BY NAME SELECT * FROM incoming")  # noqa: S608
    connection.unregister("incoming")


def insert_rows(connection: Connection, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append records to ``store.<table>``; drop keys that are no column, store a missing key as NULL."""
    schema = connection.sql(f"SELECT * FROM store.{table} LIMIT 0").to_arrow_table().schema  # noqa: S608
    records = list(rows)
    if records:
        insert_arrow(connection, table, pa.Table.from_pylist(records, schema=schema))


def replace_rows(connection: Connection, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace the content of ``store.<table>`` by these records, as `insert_rows` takes them."""
    connection.execute(f"DELETE FROM store.{table}")  # noqa: S608
    insert_rows(connection, table, rows)


def setting(connection: Connection, name: str) -> str | None:
    """Read a value of ``store.settings``; None if it isn't set."""
    rows = connection.execute("SELECT value FROM store.settings WHERE name = ?", [name]).fetchall()
    return str(rows[0][0]) if rows else None


def set_setting(connection: Connection, name: str, value: str) -> None:
    """Store a value of ``store.settings``."""
    connection.execute("DELETE FROM store.settings WHERE name = ?", [name])
    connection.execute("INSERT INTO store.settings VALUES (?, ?)", [name, value])
