"""The published files: the validated table as Parquet, CSV and markdown, each with its as_of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from quantgate.model.yaml_file import Strict
from warehouse.query import read_only
from warehouse.report.render import Format, render
from warehouse.report.summary import summarize
from warehouse.swap import exclusive, remove_leftovers, replacing

NAME = "validated_table"


class Published(Strict):
    """What was published."""

    files: tuple[Path, ...]
    as_of: datetime = Field(description="The time whose prices were used, UTC; every file carries it.")
    rows: int


def publish(warehouse: Path, folder: Path, as_of: datetime | None = None) -> Published:
    """Write ``validated_table.{parquet,csv,md}`` into a folder.

    Each file is written beside its place and renamed over it once all three are whole. All carry the same
    as_of (a column of the Parquet and CSV files, the Parquet file's metadata, a line of the markdown), by
    which a reader who came between two renames can tell.

    Args:
        warehouse: the DuckDB file.
        folder: where the files go; made if it doesn't exist.
        as_of: the time whose prices are used; now if empty.

    Raises:
        ConfigError: there is no warehouse.
        RunError: it can't be read, or somebody else has been publishing there for long.
    """
    moment = (as_of or datetime.now(UTC)).astimezone(UTC)
    with read_only(warehouse) as connection:
        table: pa.Table = connection.sql(
            "SELECT v.*, $ts::TIMESTAMPTZ AS as_of FROM validated_table_at($ts::TIMESTAMPTZ) v",
            params={"ts": moment},
        ).to_arrow_table()
        summary = summarize(connection, moment, markdown=True)
    stamp = moment.isoformat().replace("+00:00", "Z")
    table = table.replace_schema_metadata({"as_of": stamp, "warehouse": warehouse.name})
    page = f"# Validated table\n\nas_of: {stamp}\n\n{summary}\n"
    writers: dict[str, Callable[[Path], object]] = {
        "parquet": lambda path: pq.write_table(table, path),
        "csv": lambda path: path.write_text(render(table, Format.CSV) + "\n", encoding="utf-8"),
        "md": lambda path: path.write_text(page, encoding="utf-8"),
    }
    files = _write_all({folder / f"{NAME}.{suffix}": write for suffix, write in writers.items()})
    return Published(files=files, as_of=moment, rows=table.num_rows)


def _write_all(writers: dict[Path, Callable[[Path], object]]) -> tuple[Path, ...]:
    """Write every file beside its place, then rename them one after the other."""
    places = list(writers)
    with exclusive(places[0].with_name(NAME)):
        for path in places:
            remove_leftovers(path)
        _write_nested(places, writers)
    return tuple(places)


def _write_nested(places: list[Path], writers: dict[Path, Callable[[Path], object]]) -> None:
    """All temporary files are whole before the innermost is renamed."""
    if places:
        with replacing(places[0]) as temporary:
            writers[places[0]](temporary)
            _write_nested(places[1:], writers)
