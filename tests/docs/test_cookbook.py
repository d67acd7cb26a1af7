"""Every query of docs/sql-cookbook.md answers on a warehouse of the demo's runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quantgate.model.home import ROOT
from tests.support.demo_bundles import warehouse
from warehouse.query import query

PAGE = (ROOT / "docs" / "sql-cookbook.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"(<!-- may be empty -->\n)?```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warehouse(tmp_path_factory.mktemp("cookbook"))


def test_there_are_queries() -> None:
    assert len(QUERIES) >= 15


@pytest.mark.parametrize(("may_be_empty", "sql"), QUERIES)
def test_the_query_answers(may_be_empty: str, sql: str, loaded: Path) -> None:
    table = query(loaded, sql)
    assert table.num_columns >= 2
    assert may_be_empty or table.num_rows >= 1


def test_the_views_that_are_listed_exist(loaded: Path) -> None:
    listed = re.findall(r"^\| ((?:`\w+`,? ?)+)\|", PAGE, re.MULTILINE)
    names = {name for cell in listed for name in re.findall(r"\w+", cell)}
    assert len(names) >= 20
    assert names <= set(query(loaded, "SHOW TABLES").column("name").to_pylist())
