"""Publish the validated table as Parquet, CSV and Markdown files, each with its as_of."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
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
    """The published files."""

    files: tuple[Path, ...]
    as_of: datetime = Field(description="The time whose prices were used, UTC; every file has it.")
    rows: int


def publish(warehouse: Path, folder: Path, as_of: datetime | None = None) -> Published:
    """Write ``validated_table.{parquet,csv,md}`` into a folder.

    Temporary files are renamed once all three are whole. All have the same as_of (a column of the Parquet and CSV
    files, the Parquet file's metadata, a line of the Markdown): a reader that comes between two renames sees that
    they differ.

    Args:
        warehouse: the DuckDB file.
        folder: folder of the files; created if it doesn't exist.
        as_of: the time whose prices are used; now if empty.

    Raises:
        ConfigError: the warehouse doesn't exist.
        RunError: it can't be read, or another process has been publishing to the folder for too long.
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
    files = {folder / f"{NAME}.{suffix}": write for suffix, write in writers.items()}
    with exclusive(folder / NAME), ExitStack() as renames:  # all are written before the first rename
        for path, write in files.items():
            remove_leftovers(path)
            write(renames.enter_context(replacing(path)))
    return Published(files=tuple(files), as_of=moment, rows=table.num_rows)
