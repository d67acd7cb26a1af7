"""Write the rows of a query as an aligned table, records, CSV or JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from textwrap import wrap
from typing import Any

import numpy as np
import pyarrow as pa
from rich.cells import cell_len

from quantgate.model.errors import ConfigError
from quantgate.model.text import csv_text, inert, json_inert

NULL = "–"
_LAST_DAY, _LAST_TIME = 2**31 - 1, 2**63 - 1
"""How DuckDB stores infinite dates, in days, and infinite times, in whatever unit."""


class Format(StrEnum):
    """Format of the rows."""

    TABLE = "table"
    RECORD = "record"
    CSV = "csv"
    JSON = "json"


def render(table: pa.Table, output: Format | str = Format.TABLE, *, width: int | None = None) -> str:
    """Write a result as text, without a final newline.

    JSON is a list of objects with native types: times in ISO 8601, maps and structs as objects, NaN and infinity
    as null. CSV has a header, leaves NULL empty, and has an apostrophe before a text that a spreadsheet would take
    for a formula. The table is aligned plain text that shows NULL as a dash and
    is never cut. A record has a line for each column.

    Args:
        table: the rows.
        output: ``table``, ``record``, ``csv`` or ``json``.
        width: columns of the terminal, at which values of a record are wrapped; they are not if None.

    Raises:
        ConfigError: the format is unknown, or two columns have the same name, which JSON can't represent.
    """
    try:
        chosen = Format(output)
    except ValueError:
        raise ConfigError(
            f"unknown format '{output}'", where="--format", hint=f"Use {', '.join(Format)}."
        ) from None
    return "\n".join(written([table], chosen, width=width))


def written(
    pages: Iterable[pa.Table], output: Format = Format.TABLE, *, width: int | None = None
) -> Iterator[str]:
    """Write a result page by page, as `render` does; each piece is one or more lines without the last newline.

    Each page of an aligned table has widths and a header of its own. Records are counted to the end only where all are
    on one page.

    Args:
        pages: the rows, one page at least.
        output: the format.
        width: as of `render`.

    Raises:
        ConfigError: as `render`.
    """
    upcoming = iter(pages)
    page, begun, names = next(upcoming), 0, list[str]()
    while True:
        follows = next(upcoming, None)
        rows, begun = _rows(page), begun + page.num_rows
        names = page.schema.names
        is_first, is_last = begun == page.num_rows, follows is None
        if output is Format.JSON:
            yield _json(names, rows, is_first, is_last)
        elif output is Format.CSV:
            yield _csv(([names] if is_first else []) + rows)
        else:
            text = [[_cell(value) for value in row] for row in rows]
            if not is_first:
                yield ""
            if output is Format.RECORD:
                total = begun if is_first and is_last else None
                yield _records(list(map(inert, names)), text, width, begun - page.num_rows, total)
            else:
                yield aligned(names, text, [_is_numeric(field.type) for field in page.schema])
        if follows is None:
            return
        page = follows


def _rows(page: pa.Table) -> list[Sequence[Any]]:
    """Return the rows with values of types that JSON has."""
    native = [
        [_native(value, field.type) for value in _values(column)]
        for column, field in zip(page.columns, page.schema, strict=True)
    ]
    return list(zip(*native, strict=True))


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return values of Python's types, and text for times that Python can't hold."""
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):
        return [_value(scalar) for scalar in column]
    return values


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        pass
    if isinstance(scalar, pa.StructScalar):
        return {name: _value(item) for name, item in scalar.items()}
    if isinstance(scalar, pa.MapScalar):
        return [(_value(entry[0]), _value(entry[1])) for entry in scalar.values]
    if isinstance(scalar, pa.ListScalar):
        return [_value(item) for item in scalar.values]
    if isinstance(scalar, pa.UnionScalar):
        return _value(scalar.value)
    return _far_time(scalar)


def _far_time(scalar: pa.Scalar) -> str:
    """Write a date or time before the year 1 or after 9999, or DuckDB's infinite one, in ISO 8601."""
    whole = pa.types.is_date(scalar.type)
    if abs(scalar.value) >= (_LAST_DAY if whole else _LAST_TIME):
        return "infinity" if scalar.value > 0 else "-infinity"
    text = str(np.datetime64(scalar.value, "D" if whole else scalar.type.unit))
    text = re.sub(r"^-(\d+)", lambda year: f"-{year[1]:0>4}", text)  # NumPy writes 3 digits
    return text if whole or scalar.type.tz is None else f"{text}Z"


def _records(
    names: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, before: int, total: int | None
) -> str:
    """Write each row as a block: a line for each column, its name first; a value with a word too long is below it."""
    label = max(map(cell_len, names), default=0) + 2
    blocks = []
    for number, row in enumerate(rows, before + 1):
        lines = [f"── {number} of {total}" if total else f"── {number}"]
        for name, cell in zip(names, row, strict=True):
            parts = [cell] if width is None else _lines(cell, width - label)
            if width is not None and max(map(cell_len, parts)) > width - label:
                lines += [name, *(f"  {part}" for part in _lines(cell, width - 2))]
                continue
            lines += [f"{'' if index else name:<{label}}{part}".rstrip() for index, part in enumerate(parts)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) or "no rows"


def aligned(names: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Align cells in columns, two spaces apart, under a ruled header.

    Args:
        names: the header.
        rows: cells as text, one list per row.
        right: True for each column that is aligned to the right.
    """
    header, cells = list(map(inert, names)), [list(map(inert, row)) for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(header, *cells, strict=True)]
    lines = [header, ["─" * width for width in widths], *cells]
    padded = (map(_pad, line, widths, right) for line in lines)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _lines(cell: str, width: int) -> list[str]:
    """Return a cell in lines that end at spaces; a longer word stays whole."""
    return wrap(cell, width, break_long_words=False, break_on_hyphens=False) or [cell]


def _pad(cell: str, width: int, at_right: bool) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if at_right else cell + space


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _native(value: Any, kind: pa.DataType) -> Any:
    """Convert a value to a type of JSON."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if pa.types.is_map(kind):
        return {str(key): _native(item, kind.item_type) for key, item in value}
    if pa.types.is_struct(kind):
        return {name: _native(item, kind.field(name).type) for name, item in value.items()}
    if isinstance(value, list | tuple):
        inner = kind.value_type if hasattr(kind, "value_type") else pa.null()
        return [_native(item, inner) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date | time):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.hex() if isinstance(value, bytes) else str(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _cell(value: Any) -> str:
    if value is None:
        return NULL
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}={_cell(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    return inert(_text(value))


def _json(names: Sequence[str], rows: Sequence[Sequence[Any]], is_first: bool, is_last: bool) -> str:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(
            f"two columns are called '{repeated[0]}'",
            where="--format json",
            hint="Rename one of them with AS.",
        )
    lines = [json_inert(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False)) for row in rows]
    if not lines:
        return "[]"
    return ("[\n" if is_first else "") + ",\n".join(lines) + ("\n]" if is_last else ",")


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    """Write CSV as of RFC 4180 with plain newlines; NULL is empty, an empty text is quoted, and no text is a formula.

    Python's csv writer doesn't quote a lone carriage return if its lines end in a newline, and readers then split
    the row.
    """
    cells = [[_csv_value(value) for value in row] for row in rows]
    return "\n".join(",".join(map(_csv_cell, line)) or '""' for line in cells)


def _csv_value(value: Any) -> str | None:
    if value is None:
        return None
    return csv_text(value) if isinstance(value, str) else _text(value)


def _csv_cell(text: str | None) -> str:
    if text is None:
        return ""
    if text and not any(special in text for special in ',"\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'
