"""Blocks of a report, a table with a heading and notes, as plain text or markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from warehouse.report.render import aligned

WIDTH = 100
"""Columns of a terminal that every line fits."""


@dataclass(frozen=True)
class Block:
    """A heading, a table and the lines below it."""

    heading: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[bool, ...]
    notes: tuple[str, ...] = ()
    droppable: tuple[str, ...] = ()
    """Columns that go, first ones first, where the table is wider than the terminal."""


def plain(block: Block) -> str:
    """A block as text of at most `WIDTH` columns."""
    wrapped = (
        textwrap.fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in block.notes
    )
    return "\n".join([textwrap.fill(block.heading, WIDTH), _fitting(block), *wrapped])


def _fitting(block: Block) -> str:
    """The table, without droppable columns and then with its widest one shortened where it is too wide."""
    kept = list(range(len(block.names)))
    for name in ("", *block.droppable):
        kept = [i for i in kept if block.names[i] != name]
        columns = [[block.names[i], *(row[i] for row in block.rows)] for i in kept]
        right = [block.right[i] for i in kept]
        table = _table(columns, right)
        excess = max(map(len, table.splitlines())) - WIDTH
        if excess <= 0:
            return table
    widths = [max(map(len, column)) for column in columns]
    widest = widths.index(max(widths))
    room = max(1, widths[widest] - excess)
    columns[widest] = [cell if len(cell) <= room else f"{cell[: room - 1]}…" for cell in columns[widest]]
    return _table(columns, right)


def _table(columns: list[list[str]], right: list[bool]) -> str:
    names, *rows = zip(*columns, strict=True)
    return aligned(names, rows, right)


def markdown(block: Block) -> str:
    """A block as markdown, with all its columns."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = "|" + "|".join("---:" if at_right else "---" for at_right in block.right) + "|"
    table = [line(block.names), rule, *map(line, block.rows)]
    notes = [f"- {note}" for note in block.notes]
    return "\n".join([f"## {block.heading}", "", *table, *(["", *notes] if notes else [])])
