"""The lines of a price file, CSV or JSON, each with its place in the file."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantgate.model.config.prices import PriceOffer
from quantgate.model.errors import ConfigError
from quantgate.model.yaml_file import parse_record

FIELDS = tuple(name for name in PriceOffer.model_fields if name != "evidence")
"""What a line may say: an imported offer's evidence is `imported`."""

REQUIRED = tuple(name for name in FIELDS if PriceOffer.model_fields[name].is_required())


@dataclass(frozen=True)
class Line:
    """What one line says, unchecked; ``problem`` where it can't even be told apart into fields."""

    where: str
    fields: dict[str, Any]
    problem: ConfigError | None = None


def parse_offer(line: Line) -> PriceOffer:
    """The line as an offer.

    Raises:
        ConfigError: the first thing that is wrong with it.
    """
    if line.problem is not None:
        raise line.problem
    if "evidence" in line.fields:
        raise ConfigError(
            "unknown key 'evidence'", where=line.where, hint="Leave it out: what is imported is `imported`."
        )
    currency = line.fields.get("currency", "USD")
    if currency != "USD":
        raise ConfigError(
            f"currency '{currency}': only USD is priced",
            where=line.where,
            hint="Convert it, and name the rate and its date in the source.",
        )
    return parse_record(PriceOffer, line.fields, line.where)


def read_lines(path: Path) -> list[Line]:
    """The offers of a CSV file with a header, or of a JSON list of objects; the name's ending says which.

    Raises:
        ConfigError: the file can't be read, has another ending, is no JSON list, has no header that names the
            required fields and no others, or holds no offer.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # newlines as they are: a cell may hold one
    except FileNotFoundError:
        raise ConfigError(
            "no such file", where=str(path), hint="Give the path of a CSV or JSON file."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't be read ({error})", where=str(path), hint="Give it in UTF-8.") from None
    readers = {".csv": _csv_lines, ".json": _json_lines}
    if path.suffix.lower() not in readers:
        raise ConfigError(
            f"'{path.suffix}' is neither .csv nor .json", where=str(path), hint="Rename or convert the file."
        )
    lines = readers[path.suffix.lower()](text, str(path))
    if not lines:
        raise ConfigError("holds no offer", where=str(path), hint=f"A line needs {', '.join(REQUIRED)}.")
    return lines


def _csv_lines(text: str, where: str) -> list[Line]:
    """An empty cell is a field that isn't given; an empty line is none."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: list[Line] = []
    header: list[str] | None = None
    ended = 0
    try:
        for cells in reader:
            place, ended = f"{where}:{ended + 1}", reader.line_num
            values = [cell.strip() for cell in cells]
            if not any(values):
                continue
            if header is None:
                header = values
                _check_header(header, place)
            elif len(values) == len(header):
                lines.append(Line(place, {name: v for name, v in zip(header, values, strict=True) if v}))
            else:
                what = f"{len(values)} cells under a header of {len(header)}"
                problem = ConfigError(what, where=place, hint="Quote a cell that holds a comma.")
                lines.append(Line(place, {}, problem))
    except csv.Error as error:
        raise ConfigError(
            f"not valid CSV ({error})", where=f"{where}:{reader.line_num}", hint="Correct the line."
        ) from None
    return lines


def _check_header(header: list[str], place: str) -> None:
    twice = [name for name in header if header.count(name) > 1]
    strange = [name for name in header if name not in FIELDS]
    missing = [name for name in REQUIRED if name not in header]
    if twice:
        raise ConfigError(f"column '{twice[0]}' stands twice", where=place, hint="Remove one.")
    if strange:
        hint = f"Known columns: {', '.join(FIELDS)}."
        raise ConfigError(f"unknown column '{strange[0]}'", where=place, hint=hint)
    if missing:
        raise ConfigError(f"column '{missing[0]}' is missing", where=place, hint="Add it to the header.")


def _json_lines(text: str, where: str) -> list[Line]:
    """Elements are decoded one by one, since only that tells where each begins."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
    lines: list[Line] = []
    at = _expect(text, 0, "[", where)
    if text[_blank(text, at) : _blank(text, at) + 1] == "]":
        return lines
    while True:
        at = _blank(text, at)
        place = f"{where}:{text.count(chr(10), 0, at) + 1}"
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            line = f"{where}:{error.lineno}"
            raise ConfigError(f"not valid JSON ({error.msg})", where=line, hint="Correct it there.") from None
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"not valid JSON ({error})", where=place, hint="Correct it there.") from None
        if isinstance(value, dict):
            lines.append(Line(place, {name: item for name, item in value.items() if item is not None}))
        else:
            problem = ConfigError("expected an object", where=place, hint='Write {"provider": …, …}.')
            lines.append(Line(place, {}, problem))
        at = _blank(text, at)
        if text[at : at + 1] != ",":
            break
        at += 1
    end = _blank(text, _expect(text, at, "]", where))
    if end < len(text):
        raise ConfigError(
            "something follows the list",
            where=f"{where}:{text.count(chr(10), 0, end) + 1}",
            hint="Remove it.",
        )
    return lines


def _blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _expect(text: str, at: int, sign: str, where: str) -> int:
    at = _blank(text, at)
    if text[at : at + 1] != sign:
        line = text.count("\n", 0, at) + 1
        raise ConfigError(f"expected '{sign}'", where=f"{where}:{line}", hint="Give a JSON list of objects.")
    return at + 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key '{twice}' stands twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")
