"""Migrations: once, in order, whole, never edited."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from quantgate.model.errors import ConfigError
from warehouse.database import Migration, insert_rows, migrate, migrations


def test_migrations_apply_once_in_order_and_are_never_edited(tmp_path: Path) -> None:
    first = Migration(1, "001_a", "CREATE TABLE a (x INTEGER)")
    second = Migration(2, "002_b", "ALTER TABLE a ADD COLUMN y INTEGER")
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        assert migrate(connection, (first,)) == 1
        connection.execute("INSERT INTO a VALUES (1)")
        assert migrate(connection, (first, second)) == 1
        assert migrate(connection, (first, second)) == 0
        assert connection.sql("SELECT * FROM a").fetchall() == [(1, None)]
        with pytest.raises(ConfigError, match="migration 001_a was changed after"):
            migrate(connection, (replace(first, sql="CREATE TABLE b (x INTEGER)"), second))
        with pytest.raises(ConfigError, match="has migration 002_b, which this Quantgate doesn't know"):
            migrate(connection, (first,))


def test_a_failed_migration_leaves_the_schema_as_it_was(tmp_path: Path) -> None:
    broken = Migration(1, "001_a", "CREATE TABLE a (x INTEGER); CREATE TABLE a (x INTEGER)")
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        with pytest.raises(duckdb.CatalogException):
            migrate(connection, (broken,))
        connection.execute("ROLLBACK")
        assert (
            connection.sql("SELECT table_name FROM duckdb_tables() WHERE table_name = 'a'").fetchall() == []
        )


def test_a_stored_verdict_on_nothing_becomes_unvalidated(tmp_path: Path) -> None:
    key = {"run_id": "run", "baseline_run_id": "base", "policy": "p", "policy_fingerprint": "f"}
    figures = dict.fromkeys(
        (
            *(
                "margin",
                "baseline_score",
                "candidate_score",
                "quality_delta",
                "ci_low",
                "ci_high",
                "flip_rate",
            ),
            *("p_noninferior", "p_inferior", "p_inferior_holm", "p_degraded"),
        ),
        0.0,
    )
    task = {**figures, "task": "sums", "family": "math", "pairs": 9, "worse": 0, "better": 0}
    task |= {"degraded": False, "outcome": "undecided", "test": "exact", "reason": ""}
    with duckdb.connect(str(tmp_path / "w.duckdb")) as connection:
        migrate(connection, migrations()[:11])
        for prefix in ("", "post_hoc_"):
            for use, verdict in (("all", "INCONCLUSIVE"), ("code", "INCONCLUSIVE"), ("math", "VALIDATED")):
                insert_rows(
                    connection, f"{prefix}verdicts", [{**key, "use": use, "verdict": verdict, "reason": ""}]
                )
            insert_rows(connection, f"{prefix}task_verdicts", [{**key, **task, "use": "all"}])
        migrate(connection)
        for prefix in ("", "post_hoc_"):
            rows = connection.sql(f"SELECT use, verdict FROM store.{prefix}verdicts").fetchall()
            assert dict(rows) == {"all": "INCONCLUSIVE", "code": "UNVALIDATED", "math": "VALIDATED"}
