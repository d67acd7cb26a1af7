"""Blocks of a report fit the terminal."""

from __future__ import annotations

from rich.cells import cell_len

from warehouse.report.blocks import WIDTH, Block, plain


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
