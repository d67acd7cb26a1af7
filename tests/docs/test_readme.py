"""README is short, and its table and the whole output of the demo are what the program prints."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from rich.cells import cell_len

from commands.outcome import EVERY_COLUMN
from quantgate.model.home import ROOT
from tests.support.command import QUANTGATE, at_terminal
from tests.support.demo_bundles import summary, warehouse

README = (ROOT / "README.md").read_text(encoding="utf-8")
STARTED = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def printed() -> list[str]:
    """What the fixture's bundles give again."""
    return summary().strip().splitlines()


def test_readme_is_short_and_says_what_it_is() -> None:
    assert len(README.splitlines()) <= 150
    assert "a workflow pipeline for scheduled quantization validation and benchmarking" in README


def test_the_whole_output_is_the_programs(printed: list[str]) -> None:
    table = re.search(r"<!-- demo table -->\n```text\n(.*?)```", STARTED, re.DOTALL)
    assert table is not None
    assert table[1].strip().splitlines() == printed


def test_the_excerpt_is_the_beginning_of_it(printed: list[str]) -> None:
    table = re.search(r"<!-- demo table: excerpt -->\n```text\n(.*?)```", README, re.DOTALL)
    assert table is not None
    lines = table[1].splitlines()
    assert len(lines) == 12
    assert lines == printed[: len(lines)]


def test_the_demos_last_line_is_a_query_that_fits_a_terminal(home: Path, tmp_path: Path) -> None:
    shutil.copy(warehouse(tmp_path), home / "warehouse.duckdb")
    assert len(f"  {EVERY_COLUMN}") <= 80
    lines = at_terminal([str(QUANTGATE), *shlex.split(EVERY_COLUMN)[1:]], columns=80).splitlines()
    assert lines[0].startswith("── 1 of ")
    assert any(line.split() == ["verdict", "BASELINE"] for line in lines)
    assert max(map(cell_len, lines)) <= 80
