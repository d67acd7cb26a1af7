"""Read the bundles of a store: whole and checked, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from quantgate.bundles.claims import Declaration
from quantgate.bundles.manifest import MANIFEST, FileEntry, Manifest, damaged, parse_manifest
from quantgate.bundles.order import declared_order
from quantgate.bundles.schema import (
    BUNDLE_FILES,
    CONTROL_SAMPLES_FILE,
    LATER_COLUMNS,
    LATER_FILES,
    PROMPTS_FILE,
    SAMPLES_FILE,
)
from quantgate.model.bounded import DATA_BYTES, RefusedError, parse_json, read_bytes
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.yaml_file import explained

DECLARED = ".declared"
"""Folder of the runs that were declared: a file for each, named by its number and its id. Nothing removes them."""
ORDER_DIGITS = 9
_DOCUMENTS = ".documents"
"""Ending of the file with the hashes of a declared question's documents."""
_SCORED = ".scored"
"""Ending of the file of a run that has scored enough answers to decide something."""

_YEAR_1_US, _YEAR_9999_US = -62_135_596_800_000_000, 253_370_764_800_000_000
"""Microseconds from 1970 to the year 9999; times are no further from 1970 than that, either way."""

_KEYS = {
    "samples.parquet": ("task", "filter", "doc_id", "doc_repeat"),
    "control_samples.parquet": ("task", "filter", "doc_id", "doc_repeat"),
    "fidelity.parquet": ("text_id", "engine_start_id", "token_index"),
    "prompts.parquet": ("prompt_hash",),
    "load_points.parquet": ("operating_point",),
    "requests.parquet": ("operating_point", "request"),
}
"""Columns that tell a file's rows apart."""


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read whole: its manifest and a table for each of its files."""

    manifest: Manifest
    tables: dict[str, pa.Table]


@dataclass(frozen=True)
class Columns:
    """Some columns of a file."""

    table: pa.Table
    stored: dict[str, list[tuple[Any, ...]]]
    """By column, how each row group is stored: all that decoding depends on, and the bytes."""


class Answers(NamedTuple):
    """The answers of a run, with its prompts."""

    manifest: Manifest
    samples: pa.Table
    controls: pa.Table
    """Second answers (A/A), of a baseline."""
    prompts: pa.Table


class Declared(NamedTuple):
    """A question as it was declared."""

    name: str
    """Of its file."""
    question: Declaration
    scored: bool
    """True if enough answers were scored to decide something."""


def scored_runs(names: Iterable[str]) -> set[str]:
    """Return the ids of the runs that have scored enough answers to decide something.

    Args:
        names: files of the declared runs (``BundleStore.declared_names``).
    """
    return {name[ORDER_DIGITS + 1 : -len(_SCORED)] for name in names if name.endswith(_SCORED)}


def open_bundles(bundles_url: str) -> tuple[Any, str]:
    """Return the file system of a bundles store, and the store's path in it.

    Args:
        bundles_url: a folder or an fsspec URL.

    Raises:
        ConfigError: no file system serves such a URL here.
    """
    try:
        filesystem, root = fsspec.core.url_to_fs(bundles_url)
    except (ValueError, ImportError, OSError) as error:
        raise ConfigError(
            f"can't be opened ({error})",
            where=bundles_url,
            hint="Set QUANTGATE_BUNDLES to a folder or an fsspec URL whose package is installed.",
        ) from None
    return filesystem, str(root)


@contextmanager
def reached(bundles_url: str, what: str) -> Iterator[None]:
    """Report a store that refuses or is away in one line; what was measured stays in staging.

    Raises:
        RunError: an operating system error was raised within.
    """
    try:
        yield
    except OSError as error:
        raise RunError(
            f"bundles can't be {what} there ({error.strerror or error})",
            where=bundles_url,
            hint="Check QUANTGATE_BUNDLES and its credentials; what was measured is kept.",
        ) from None


class BundleStore:
    """A store of bundles: a folder or an fsspec URL.

    Args:
        bundles_url: the folder or URL; it need not exist yet.
    """

    def __init__(self, bundles_url: str | Path) -> None:
        """Open the store.

        Raises:
            ConfigError: no file system serves such a URL here.
        """
        self.url = str(bundles_url)
        self._fs, self._root = open_bundles(self.url)

    def run_ids(self) -> list[str]:
        """List the folders that are there now, sorted; hidden ones are somebody's unfinished work.

        File systems that cache their listings (S3 does) would hide what another process wrote meanwhile.

        Raises:
            RunError: the store can't be read.
        """
        with reached(self.url, "read"):
            self._fs.invalidate_cache()
            if not self._fs.isdir(self._root):
                return []
            entries = self._fs.ls(self._root, detail=True)
        names = (e["name"].rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")
        return sorted(name for name in names if not name.startswith("."))

    def manifests(self) -> list[Manifest]:
        """Read the manifests of the bundles that are there now, sorted by run id.

        Half-written folders are passed over, and so are manifests that can't be read: the loader reports them.

        Raises:
            RunError: the store can't be read.
        """
        manifests = []
        for run_id in self.run_ids():
            with contextlib.suppress(RunError):
                if self.is_bundle(run_id):
                    manifests.append(self.read_manifest(run_id))
        return manifests

    def latest_order(self) -> int:
        """Return the highest number that a run was declared with; 0 where none was.

        Raises:
            RunError: the store can't be read.
        """
        numbers = (name[:ORDER_DIGITS] for name in self.declared_names())
        return max((int(number) for number in numbers if number.isdecimal()), default=0)

    def declare(self, run_id: str, after: int = 0) -> int:
        """Record that a run begins, before it asks anything, and return its number (quantgate.bundles.order).

        Args:
            run_id: the run's.
            after: a number that it must exceed: the highest of the bundles, which may have come from another store.

        Raises:
            RunError: the store can't be read or written.
        """
        order = max(self.latest_order(), after) + 1
        with reached(self.url, "written"):
            self._fs.makedirs(f"{self._root}/{DECLARED}", exist_ok=True)
            self._fs.pipe_file(f"{self._root}/{DECLARED}/{order:0{ORDER_DIGITS}d}-{run_id}", b"")
        return order

    def declare_question(
        self, question: Declaration, documents: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        """Record what a run is about to ask, before it asks.

        Args:
            question: the declaration.
            documents: hashes of the documents of each task.

        Raises:
            RunError: the store can't be written.
        """
        name = f"{question.declared_order:0{ORDER_DIGITS}d}-{question.run_id}-{question.claim_key[:8]}"
        if documents:
            self._write_declared(f"{name}{_DOCUMENTS}", json.dumps(documents).encode())
        self._write_declared(f"{name}.json", question.model_dump_json().encode())

    def declared_documents(self, declared: Declared) -> dict[str, list[str]]:
        """Read the hashes of a declared question's documents, by task; empty where there are none.

        Raises:
            RunError: the store can't be read.
        """
        path = f"{self._root}/{DECLARED}/{declared.name.removesuffix('.json')}{_DOCUMENTS}"
        with reached(self.url, "read"), contextlib.suppress(FileNotFoundError, ValueError):
            documents: dict[str, list[str]] = parse_json(self._content(path))
            return documents if isinstance(documents, dict) else {}
        return {}

    def mark_scored(self, run_id: str, declared_order: int) -> None:
        """Record that a run has scored enough answers to decide something, so that it counts as a try if it is killed.

        Raises:
            RunError: the store can't be written.
        """
        self._write_declared(f"{declared_order:0{ORDER_DIGITS}d}-{run_id}{_SCORED}", b"")

    def _write_declared(self, name: str, content: bytes) -> None:
        with reached(self.url, "written"):
            self._fs.makedirs(f"{self._root}/{DECLARED}", exist_ok=True)
            self._fs.pipe_file(f"{self._root}/{DECLARED}/{name}", content)

    def declared_names(self) -> list[str]:
        """List the files of the runs that were declared, sorted: the first declared first.

        Raises:
            RunError: the store can't be read.
        """
        with reached(self.url, "read"):
            self._fs.invalidate_cache()
            if not self._fs.isdir(f"{self._root}/{DECLARED}"):
                return []
            return sorted(Path(path).name for path in self._fs.ls(f"{self._root}/{DECLARED}", detail=False))

    def declarations(self, known: Container[str] = (), problems: list[str] | None = None) -> list[Declared]:
        """Read what runs have declared before they asked, the first declared first.

        A file that can't be read is left out: its run's bundle counts.

        Args:
            known: names of files that need not be read again.
            problems: gets a line for each file that is left out.

        Raises:
            RunError: the store can't be read.
        """
        names = self.declared_names()
        scored = scored_runs(names)
        declared: list[Declared] = []
        for name in names:
            if not name.endswith(".json") or name in known:
                continue
            try:
                raw = self._content(f"{self._root}/{DECLARED}/{name}")
                question = Declaration.model_validate(parse_json(raw))
            except ValidationError as error:
                what = str(explained(Declaration, error, f"{DECLARED}/{name}"))
            except OSError as error:
                what = f"{DECLARED}/{name}: it can't be read ({error.strerror or error})"
            except RefusedError as error:
                what = f"{DECLARED}/{name}: it is not JSON ({error})"
            else:
                declared.append(Declared(name, question, question.run_id in scored))
                continue
            if problems is not None:
                problems.append(what)
        return sorted(declared, key=lambda entry: declared_order(entry.question))

    def is_bundle(self, run_id: str) -> bool:
        """Return True if a folder holds a manifest, which is written last."""
        return _is_run_id(run_id) and bool(self._fs.exists(f"{self._root}/{run_id}/{MANIFEST}"))

    def read(self, run_id: str) -> Bundle:
        """Read a bundle whole, checking versions, checksums, schemas, rows and keys.

        Raises:
            RunError: something in it is damaged or unknown; the message names the bundle and the file.
        """
        manifest = self.read_manifest(run_id)
        tables = {name: self.read_table(manifest, name) for name in BUNDLE_FILES}
        starts = {start.engine_start_id for start in manifest.engine_starts}
        if len(starts) < len(manifest.engine_starts):
            raise damaged(run_id, f"{MANIFEST} lists an engine start twice")
        for name in ("samples.parquet", "load_points.parquet", "control_samples.parquet", "fidelity.parquet"):
            unknown = set(tables[name].column("engine_start_id").unique().to_pylist()) - starts
            if unknown:
                raise damaged(
                    run_id, f"{name} names engine start {sorted(unknown)[0]}, which the manifest lacks"
                )
        return Bundle(manifest, tables)

    def read_manifest(self, run_id: str) -> Manifest:
        """Read a bundle's manifest.

        Raises:
            RunError: it is missing, damaged or of an unknown version.
        """
        manifest = parse_manifest(self._bytes(run_id, MANIFEST), run_id)
        if manifest.run_id != run_id:
            raise damaged(run_id, f"its manifest is of run {manifest.run_id}")
        return manifest

    def read_table(self, manifest: Manifest, name: str) -> pa.Table:
        """Read one checked table of the bundle of a manifest, e.g. ``samples.parquet`` for the judge.

        Raises:
            RunError: as `read`.
        """
        data = self._checked(manifest, name)
        if data is None:
            return BUNDLE_FILES[name].empty_table()
        try:
            table = pq.ParquetFile(pa.BufferReader(data)).read()
        except (pa.ArrowException, OSError):
            raise damaged(manifest.run_id, f"{name} is not a whole Parquet file") from None
        for column in _later_columns(manifest, name):
            table = table.append_column(
                column, pa.nulls(table.num_rows, BUNDLE_FILES[name].field(column).type)
            )
        problem = (
            _schema_problem(table.schema, name)
            or _rows_problem(table, name, manifest.files[name])
            or _content_problem(table)
            or _key_problem(table, name)
        )
        if problem:
            raise damaged(manifest.run_id, f"{name} {problem}")
        return table.cast(BUNDLE_FILES[name])

    def read_answers(self, manifest: Manifest) -> Answers:
        """Read the answers in the bundle of a manifest.

        Raises:
            RunError: as `read`.
        """
        files = (SAMPLES_FILE, CONTROL_SAMPLES_FILE, PROMPTS_FILE)
        return Answers(manifest, *(self.read_table(manifest, name) for name in files))

    def read_columns(
        self,
        manifest: Manifest,
        name: str,
        columns: Sequence[str],
        repetitive: Sequence[str] = (),
        like: Columns | None = None,
    ) -> Columns:
        """Read some columns of one table of the bundle of a manifest.

        The file's checksum, schema and number of rows are checked as by `read`, and that no row lacks what it
        must have in these columns; whether rows have the same key isn't.

        Args:
            manifest: the bundle's.
            name: the file's, e.g. ``samples.parquet``; its columns aren't nested.
            columns: which to read, in this order.
            repetitive: those of few different values, of which dictionaries are made.
            like: the same columns of another bundle. What is stored byte for byte as there is not decoded again:
                a candidate's documents and prompts are mostly its baseline's.

        Raises:
            RunError: as `read`.
        """
        run_id, later = manifest.run_id, _later_columns(manifest, name)
        data = self._checked(manifest, name)
        if data is None:
            return Columns(BUNDLE_FILES[name].empty_table().select(columns), {})
        try:
            file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=[*repetitive], pre_buffer=False)
            problem = _schema_problem(_without_dictionaries(file.schema_arrow), name, later)
            if problem:
                raise damaged(run_id, f"{name} {problem}")
            stored = _stored(file, pa.py_buffer(data), columns)
            alike = {c for c in stored if like is not None and stored[c] == like.stored.get(c)}
            table = file.read(columns=[c for c in stored if c not in alike], use_threads=False)
        except (pa.ArrowException, OSError):
            raise damaged(run_id, f"{name} is not a whole Parquet file") from None
        rows = file.metadata.num_rows
        by_name = {
            column: like.table[column]
            if like is not None and column in alike
            else pa.chunked_array([pa.nulls(rows, BUNDLE_FILES[name].field(column).type)])
            if column in later
            else table[column]
            for column in columns
        }
        table = pa.table(by_name)
        problem = _rows_problem(table, name, manifest.files[name])
        if problem:
            raise damaged(run_id, f"{name} {problem}")
        return Columns(table, stored)

    def _content(self, path: str) -> bytes:
        """Return a file's bytes; on a disk of this machine, a pipe or a device in its place is an OSError."""
        if isinstance(self._fs, LocalFileSystem):
            return read_bytes(Path(path), DATA_BYTES)
        content: bytes = self._fs.cat_file(path)
        return content

    def _bytes(self, run_id: str, name: str) -> bytes:
        if not _is_run_id(run_id):
            raise damaged(run_id, "a path is no run's id")
        try:
            data = self._content(f"{self._root}/{run_id}/{name}")
        except FileNotFoundError:
            raise damaged(run_id, f"{name} is missing") from None
        except OSError as error:
            raise damaged(run_id, f"{name} can't be read ({error})") from None
        return data

    def _checked(self, manifest: Manifest, name: str) -> bytes | None:
        """Read a file's bytes and check them; None where the bundle's layout had no such file yet."""
        run_id, entry = manifest.run_id, manifest.files.get(name)
        if entry is None and manifest.schema_version == 1 and name in LATER_FILES:
            return None
        if entry is None:
            raise damaged(run_id, f"its manifest doesn't list {name}")
        data = self._bytes(run_id, name)
        problem = _checksum_problem(data, entry)
        if problem:
            raise damaged(run_id, f"{name} {problem}")
        return data


def _is_run_id(name: str) -> bool:
    """Return True if a name leads to no other folder: a manifest may name any baseline."""
    return re.fullmatch(r"[^./\\\x00][^/\\\x00]*", name) is not None


def _later_columns(manifest: Manifest, name: str) -> tuple[str, ...]:
    """Return the columns that a file of the bundle's layout did not have yet."""
    return LATER_COLUMNS.get(name, ()) if manifest.schema_version == 1 else ()


def _checksum_problem(data: bytes, entry: FileEntry) -> str:
    if len(data) != entry.size_bytes:
        return f"has {len(data)} bytes where the manifest says {entry.size_bytes}"
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        return "doesn't match its checksum"
    return ""


def _stored(
    file: pq.ParquetFile, data: pa.Buffer, columns: Sequence[str]
) -> dict[str, list[tuple[Any, ...]]]:
    """Describe how columns are stored that aren't nested; those that the file lacks are left out."""
    stored: dict[str, list[tuple[Any, ...]]] = {}
    for index, name in enumerate(file.schema.names):
        if name not in columns:
            continue
        declared = file.schema.column(index)
        stored[name] = []
        for group in range(file.metadata.num_row_groups):
            chunk = file.metadata.row_group(group).column(index)
            begin = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
            stored[name].append(
                (
                    declared.physical_type,
                    str(declared.logical_type),
                    declared.max_definition_level,
                    chunk.compression,
                    chunk.num_values,
                    data.slice(begin, chunk.total_compressed_size),
                )
            )
    return stored


def _schema_problem(schema: pa.Schema, name: str, later: Sequence[str] = ()) -> str:
    expected = [field for field in BUNDLE_FILES[name] if field.name not in later]
    names = [field.name for field in expected]
    if schema.names != names:
        odd = sorted(set(schema.names) ^ set(names))
        return f"has other columns than it should ({', '.join(odd) or 'their order'})"
    for field, wanted in zip(schema, expected, strict=True):
        if field.type != wanted.type:
            return f"has column {field.name} as {field.type} where {wanted.type} belongs"
    return ""


def _without_dictionaries(schema: pa.Schema) -> pa.Schema:
    """Return the schema of the file itself: a dictionary is how a column is read."""
    return pa.schema(
        [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in schema]
    )


def _rows_problem(table: pa.Table, name: str, entry: FileEntry) -> str:
    for column in table.schema.names:
        if not BUNDLE_FILES[name].field(column).nullable and table.column(column).null_count:
            return f"has rows without {column}"
    if table.num_rows != entry.rows:
        return f"has {table.num_rows} rows where the manifest says {entry.rows}"
    return ""


def _content_problem(table: pa.Table) -> str:
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        return f"holds a value that is none of its column's type ({error})"
    for field in table.schema:
        if pa.types.is_timestamp(field.type) and table.num_rows:
            ends = pc.min_max(table[field.name].cast(pa.int64())).values()
            if any(end.is_valid and not _YEAR_1_US <= end.as_py() < _YEAR_9999_US for end in ends):
                return f"holds times in {field.name} that no calendar has"
    return ""


def _key_problem(table: pa.Table, name: str) -> str:
    key = _KEYS.get(name)
    if key and table.group_by(list(key)).aggregate([]).num_rows != table.num_rows:
        return f"has rows with the same {', '.join(key)}"
    return ""
