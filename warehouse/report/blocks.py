"""Write blocks of a report (a heading, a table and notes) as plain text or Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, set_cell_size

from quantgate.model.text import in_markdown, inert
from warehouse.report.render import aligned

WIDTH = 100
"""Maximum length of a line, columns of a terminal, where nothing says how wide the terminal is."""


@dataclass(frozen=True)
class Block:
    """A heading, a table and the lines below it."""

    heading: str
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[bool, ...]
    notes: tuple[str, ...] = ()
    droppable: tuple[str, ...] = ()
    """Columns to drop, in this order, if the table is too wide."""


@dataclass(frozen=True)
class Column:
    """A column of a block: its name, what it shows of a row, and True if it is aligned to the right."""

    name: str
    cell: Callable[[dict[str, Any]], str]
    right: bool = False


def block_of(
    heading: str,
    columns: Sequence[Column],
    rows: Sequence[dict[str, Any]],
    *,
    notes: tuple[str, ...] = (),
    droppable: tuple[str, ...] = (),
) -> Block:
    """Return the block that shows rows of a query in columns."""
    return Block(
        heading,
        names=tuple(column.name for column in columns),
        rows=tuple(tuple(column.cell(row) for column in columns) for row in rows),
        right=tuple(column.right for column in columns),
        notes=notes,
        droppable=droppable,
    )


def wrapped(text: str, width: int, *, initial_indent: str = "", subsequent_indent: str = "") -> str:
    """Return a text in lines of at most ``width`` columns, unless a word is longer: no line ends inside a word."""
    return textwrap.fill(
        text,
        width,
        initial_indent=initial_indent,
        subsequent_indent=subsequent_indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def plain(block: Block, width: int = WIDTH) -> str:
    """Return a block as text of at most ``width`` columns; a longer word of a note stays whole."""
    notes = (wrapped(inert(note), width, subsequent_indent="  ") for note in block.notes)
    return "\n".join([wrapped(inert(block.heading), width), _fitting(block, width), *notes])


def _fitting(block: Block, width: int) -> str:
    """Return the table; if it is too wide, drop droppable columns, then shorten the widest one of words.

    A cut figure would be another figure.
    """
    kept = list(range(len(block.names)))
    for name in ("", *block.droppable):
        kept = [i for i in kept if block.names[i] != name]
        columns = [[inert(block.names[i]), *(inert(row[i]) for row in block.rows)] for i in kept]
        right = [block.right[i] for i in kept]
        table = _table(columns, right)
        excess = max(map(cell_len, table.splitlines())) - width
        if excess <= 0:
            return table
    widths = [max(map(cell_len, column)) for column in columns]
    words = [i for i, at_right in enumerate(right) if not at_right] or range(len(widths))
    widest = max(words, key=widths.__getitem__)
    room = max(1, widths[widest] - excess)
    columns[widest] = [fit(cell, room) for cell in columns[widest]]
    return _table(columns, right)


def fit(text: str, room: int) -> str:
    """Cut a text to ``room`` terminal columns; an ellipsis marks the cut."""
    return text if cell_len(text) <= room else set_cell_size(text, room - 1).rstrip() + "…"


def _table(columns: list[list[str]], right: list[bool]) -> str:
    names, *rows = zip(*columns, strict=True)
    return aligned(names, rows, right)


def markdown(block: Block) -> str:
    """Return a block as Markdown, with all its columns."""
    rule = "|" + "|".join("---:" if at_right else "---" for at_right in block.right) + "|"
    table = [markdown_line(block.names), rule, *map(markdown_line, block.rows)]
    notes = [f"- {in_markdown(note)}" for note in block.notes]
    return "\n".join([f"## {in_markdown(block.heading)}", "", *table, *(["", *notes] if notes else [])])


def markdown_line(cells: Iterable[str]) -> str:
    """Return a row of a table in Markdown, in which no cell acts."""
    return f"| {' | '.join(map(in_markdown, cells))} |"
