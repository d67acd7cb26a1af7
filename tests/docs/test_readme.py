"""README is short, and its table and the whole output of the demo are what the program prints."""

from __future__ import annotations

import re

import pytest

from quantgate.model.home import ROOT
from tests.support.demo_bundles import summary

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
