"""Read the lines of a price file, CSV or JSON, each with its position in the file."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantgate.model.bounded import read_bytes, reason
from quantgate.model.config.prices import PriceOffer
from quantgate.model.enums import Evidence
from quantgate.model.errors import ConfigError
from quantgate.model.secrets import refuse_secrets
from quantgate.model.yaml_file import parse_record

FIELDS = tuple(name for name in PriceOffer.model_fields if name != "evidence")
"""Fields of a line; it can't set `evidence`, which is `imported`."""

REQUIRED = tuple(name for name in FIELDS if PriceOffer.model_fields[name].is_required())


@dataclass(frozen=True)
class Line:
    """The unchecked fields of a line; ``problem`` if it can't be split into fields."""

    where: str
    fields: dict[str, Any]
    problem: ConfigError | None = None


def parse_offer(line: Line, evidence: Evidence = Evidence.PUBLISHED) -> PriceOffer:
    """Return the line as an offer with this evidence.

    Raises:
        ConfigError: the first error of the line.
    """
    if line.problem is not None:
        raise line.problem
    if "evidence" in line.fields:
        raise ConfigError(
            "unknown key 'evidence'", where=line.where, hint="Leave it out: imported offers have `imported`."
        )
    currency = line.fields.get("currency", "USD")
    if currency != "USD":
        raise ConfigError(
            f"currency '{currency}': only USD is priced",
            where=line.where,
            hint="Convert it, and name the rate and its date in the source.",
        )
    refuse_secrets(line.fields, line.where)
    return parse_record(PriceOffer, {**line.fields, "evidence": evidence}, line.where)


def read_lines(path: Path) -> list[Line]:
    """Read a CSV file with a header, or a JSON list of objects; the file's suffix decides.

    Raises:
        ConfigError: the file can't be read, has another suffix, is no JSON list, has a wrong header, or has no
            offer.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")  # keeps newlines: a cell may contain one
    except FileNotFoundError:
        raise ConfigError(
            "no such file", where=str(path), hint="Give the path of a CSV or JSON file."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"can't be read ({reason(error)})", where=str(path), hint="Give it in UTF-8."
        ) from None
    readers = {".csv": _csv_lines, ".json": _json_lines}
    if path.suffix.lower() not in readers:
        raise ConfigError(
            f"'{path.suffix}' is neither .csv nor .json", where=str(path), hint="Rename or convert the file."
        )
    lines = readers[path.suffix.lower()](text, str(path))
    if not lines:
        raise ConfigError("it has no offer", where=str(path), hint=f"A line needs {', '.join(REQUIRED)}.")
    return lines


def _csv_lines(text: str, where: str) -> list[Line]:
    """Read CSV; skip empty lines, and leave out the fields of empty cells."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: list[Line] = []
    header: list[str] | None = None
    ended = 0
    try:
        for cells in reader:
            line, ended = f"{where}:{ended + 1}", reader.line_num
            values = [cell.strip() for cell in cells]
            if not any(values):
                continue
            if header is None:
                header = values
                _check_header(header, line)
            elif len(values) == len(header):
                lines.append(Line(line, {name: v for name, v in zip(header, values, strict=True) if v}))
            else:
                what = f"{len(values)} cells under a header of {len(header)}"
                problem = ConfigError(what, where=line, hint="Quote a cell that contains a comma.")
                lines.append(Line(line, {}, problem))
    except csv.Error as error:
        raise ConfigError(
            f"not valid CSV ({error})", where=f"{where}:{reader.line_num}", hint="Correct the line."
        ) from None
    return lines


def _check_header(header: list[str], where: str) -> None:
    repeated = [name for name in header if header.count(name) > 1]
    unknown = [name for name in header if name not in FIELDS]
    missing = [name for name in REQUIRED if name not in header]
    if repeated:
        raise ConfigError(f"column '{repeated[0]}' is listed twice", where=where, hint="Remove one.")
    if unknown:
        hint = f"Known columns: {', '.join(FIELDS)}."
        raise ConfigError(f"unknown column '{unknown[0]}'", where=where, hint=hint)
    if missing:
        raise ConfigError(f"column '{missing[0]}' is missing", where=where, hint="Add it to the header.")


def _json_lines(text: str, where: str) -> list[Line]:
    """Read JSON element by element, to know the line of each."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
    lines: list[Line] = []
    at = _expect(text, 0, "[", where)
    if text[_skip_blanks(text, at) : _skip_blanks(text, at) + 1] == "]":
        return lines
    while True:
        at = _skip_blanks(text, at)
        start = f"{where}:{_line_number(text, at)}"
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            line = f"{where}:{error.lineno}"
            raise ConfigError(f"not valid JSON ({error.msg})", where=line, hint="Correct it there.") from None
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"not valid JSON ({error})", where=start, hint="Correct it there.") from None
        if isinstance(value, dict):
            lines.append(Line(start, {name: item for name, item in value.items() if item is not None}))
        else:
            problem = ConfigError("expected an object", where=start, hint='Write {"provider": …, …}.')
            lines.append(Line(start, {}, problem))
        at = _skip_blanks(text, at)
        if text[at : at + 1] != ",":
            break
        at += 1
    end = _skip_blanks(text, _expect(text, at, "]", where))
    if end < len(text):
        raise ConfigError(
            "something follows the list", where=f"{where}:{_line_number(text, end)}", hint="Remove it."
        )
    return lines


def _line_number(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _skip_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _expect(text: str, at: int, sign: str, where: str) -> int:
    at = _skip_blanks(text, at)
    if text[at : at + 1] != sign:
        raise ConfigError(
            f"expected '{sign}'",
            where=f"{where}:{_line_number(text, at)}",
            hint="Give a JSON list of objects.",
        )
    return at + 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ValueError(f"key '{repeated[0]}' is listed twice")
    return dict(pairs)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
