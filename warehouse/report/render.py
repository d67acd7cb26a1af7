"""Write the rows of a query as an aligned table, records, CSV or JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from textwrap import wrap
from typing import Any

import pyarrow as pa
from rich.cells import cell_len

from quantgate.model.errors import ConfigError

NULL = "–"


class Format(StrEnum):
    """Format of the rows."""

    TABLE = "table"
    RECORD = "record"
    CSV = "csv"
    JSON = "json"


def render(table: pa.Table, output: Format | str = Format.TABLE, *, width: int | None = None) -> str:
    """Write a result as text, without a final newline.

    JSON is a list of objects with native types: times in ISO 8601, maps and structs as objects, NaN and infinity
    as null. CSV has a header and leaves NULL empty. The table is aligned plain text that shows NULL as a dash and
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
    columns = [column.to_pylist() for column in table.columns]
    types = [field.type for field in table.schema]
    native = [[_native(value, kind) for value in column] for column, kind in zip(columns, types, strict=True)]
    rows = list(zip(*native, strict=True))
    names = table.schema.names
    if chosen is Format.JSON:
        return _json(names, rows)
    if chosen is Format.CSV:
        return _csv(names, rows)
    cells = [[_cell(value) for value in row] for row in rows]
    if chosen is Format.RECORD:
        return _records(names, cells, width)
    return aligned(names, cells, [_is_numeric(kind) for kind in types])


def _records(names: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> str:
    """Write each row as a block: a line for each column, its name first; a value with a word too long is below it."""
    label = max(map(cell_len, names), default=0) + 2
    blocks = []
    for number, row in enumerate(rows, 1):
        lines = [f"── {number} of {len(rows)}"]
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
    widths = [max(map(cell_len, column)) for column in zip(names, *rows, strict=True)]
    lines = [names, ["─" * width for width in widths], *rows]
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
    text = _text(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _json(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(
            f"two columns are called '{repeated[0]}'",
            where="--format json",
            hint="Rename one of them with AS.",
        )
    lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in rows]
    return "[\n" + ",\n".join(lines) + "\n]" if lines else "[]"


def _csv(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Write CSV as of RFC 4180 with plain newlines; NULL is empty, an empty text is quoted.

    Python's csv writer doesn't quote a lone carriage return if its lines end in a newline, and readers then split
    the row.
    """
    cells = [[None if value is None else _text(value) for value in row] for row in rows]
    return "\n".join(",".join(map(_csv_cell, line)) or '""' for line in [names, *cells])


def _csv_cell(text: str | None) -> str:
    if text is None:
        return ""
    if text and not any(special in text for special in ',"\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'
