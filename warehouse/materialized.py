"""Tables that hold what a view computes, so that a query needn't: filled anew whenever the warehouse changes."""

from __future__ import annotations

from warehouse.database import Connection

MATERIALIZED = ("table_points", "standing_verdicts")
"""Tables of schema store; each holds the rows of the view ``store.fresh_<table>``."""


def refresh_materialized(connection: Connection) -> None:
    """Fill every materialized table from its view; nothing in them outlives a load that changed anything."""
    connection.execute("BEGIN")
    for table in MATERIALIZED:
        connection.execute(f"DELETE FROM store.{table}")  # noqa: S608
        connection.execute(f"INSERT INTO store.{table} BY NAME FROM store.fresh_{table}")
    connection.execute("COMMIT")
