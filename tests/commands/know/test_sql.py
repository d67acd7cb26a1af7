"""``quantgate sql`` at a terminal."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.command import QUANTGATE, at_terminal
from tests.support.demo_bundles import warehouse


def test_a_table_wider_than_the_terminal_names_the_form_that_fits(home: Path, tmp_path: Path) -> None:
    shutil.copy(warehouse(tmp_path), home / "warehouse.duckdb")
    *table, hint = at_terminal(
        [str(QUANTGATE), "sql", "FROM validated_table LIMIT 1"], columns=80
    ).splitlines()
    assert hint == f"{max(map(len, table))} columns wide: --format record has a line for each column"
    narrow = at_terminal([str(QUANTGATE), "sql", "SELECT verdict FROM validated_table LIMIT 1"], columns=80)
    assert "columns wide" not in narrow
