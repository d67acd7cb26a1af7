"""Read the published evidence of ``configs/reference`` and store it as rows.

The catalogue translates names to this project's words; figures stay as they were published.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from quantgate.model.config.gpus import GpuFile
from quantgate.model.errors import ConfigError
from quantgate.model.yaml_file import choose, fingerprint_of, load_yaml, parse_record
from warehouse.database import Connection, replace_rows
from warehouse.evidence.claims import ClaimFile, claim_row
from warehouse.evidence.records import (
    Catalogue,
    Dataset,
    Guide,
    GuideRow,
    MlperfRow,
    ScoreRow,
    SourceFormat,
    TrtllmRow,
)

FOLDER = "reference"
CATALOGUE = "catalogue.yaml"
Row = dict[str, Any]
M = TypeVar("M", bound=BaseModel)

_TABLES = (
    "published_throughput",
    "published_scores",
    "guide",
    "reference_costs",
    "reference_ratios",
    "shown_models",
    "claims",
)


@dataclass(frozen=True)
class Reference:
    """The contents of ``configs/reference`` and ``configs/claims.yaml``, as rows of the warehouse."""

    digest: str = ""
    """SHA-256 (hex) of the files."""
    rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """By table of schema store."""
    problems: tuple[str, ...] = ()
    """One line for each imported file that can't be read; it stays where it is."""


def read_reference(configs: Path, gpus: GpuFile, imported: Path | None = None) -> Reference:
    """Read the published evidence of a configuration folder; empty if it has no ``reference/``.

    Args:
        configs: folder with ``reference/`` and ``claims.yaml``.
        gpus: the GPUs that the catalogue may refer to.
        imported: folder of imported MLPerf results; an entry that ``reference/`` has too counts once.

    An imported file that can't be read stops no other: it is a line of ``problems``.

    Raises:
        ConfigError: a file of the folder is missing or wrong, or names an unknown GPU, entry or file.
    """
    folder = configs / FOLDER
    if not folder.is_dir():
        return Reference()
    files = sorted(path for path in folder.iterdir() if path.suffix in {".csv", ".yaml"})
    extra = tuple(sorted(imported.glob("*.csv"))) if imported else ()
    contents = [
        (path.name, hashlib.sha256(path.read_bytes()).hexdigest() if os.access(path, os.R_OK) else "")
        for path in (*files, configs / "claims.yaml", *extra)
        if path.is_file()
    ]
    return _read(configs, frozenset(gpus.gpus), extra, fingerprint_of(contents))


@lru_cache(maxsize=4)
def _read(configs: Path, gpus: frozenset[str], imported: tuple[Path, ...], digest: str) -> Reference:
    """Read the files once for each content, for a process that loads often."""
    folder = configs / FOLDER
    catalogue = load_yaml(folder / CATALOGUE, Catalogue)
    guide = load_yaml(folder / "guide.yaml", Guide)
    claims = load_yaml(configs / "claims.yaml", ClaimFile)
    known = dict.fromkeys(gpus)
    for name, gpu in catalogue.hardware.items():
        choose(known, gpu, f"{FOLDER}/{CATALOGUE}: hardware.{name}")
    throughput: list[Row] = []
    scores: list[Row] = []
    for dataset, entry in catalogue.datasets.items():
        rows = scores if entry.format is SourceFormat.SCORES else throughput
        rows.extend(_READERS[entry.format](folder / entry.file, dataset, entry, catalogue))
    further, problems = _imported(imported, throughput, catalogue)
    throughput.extend(further)
    _check_costs(guide, known, throughput)
    return Reference(
        digest=digest,
        problems=tuple(problems),
        rows={
            "published_throughput": throughput,
            "published_scores": scores,
            "guide": [guide.model_dump(include={"provider", "prices_of"})],
            "reference_costs": _numbered(guide.costs),
            "reference_ratios": _numbered([*guide.ratios, *guide.break_evens]),
            "shown_models": [{"position": n, "model": model} for n, model in enumerate(catalogue.shown)],
            "claims": _claim_rows(claims),
        },
    )


def store_reference(connection: Connection, reference: Reference) -> None:
    """Replace the rows of `read_reference`."""
    for table in _TABLES:
        replace_rows(connection, table, reference.rows.get(table, ()))


def _numbered(records: Sequence[BaseModel]) -> list[Row]:
    return [{**record.model_dump(), "position": number} for number, record in enumerate(records)]


def _claim_rows(file: ClaimFile) -> list[Row]:
    names = [claim.claim_id for claim in file.claims]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(f"claim '{repeated[0]}' is listed twice", where="claims.yaml", hint="Rename one.")
    return [
        {**claim_row(claim, file.min_billion_parameters), "position": number}
        for number, claim in enumerate(file.claims)
    ]


def _check_costs(guide: Guide, gpus: dict[str, None], throughput: Sequence[Row]) -> None:
    entries = {(row["dataset"], row["entry"], row["model"]) for row in throughput}
    for number, cost in enumerate(guide.costs):
        where = f"{FOLDER}/guide.yaml: costs.{number}"
        choose(gpus, cost.gpu, f"{where}.gpu")
        if cost.scaled_from is not None:
            choose(gpus, cost.scaled_from, f"{where}.scaled_from")
        if (cost.dataset, cost.entry, cost.model) not in entries:
            raise ConfigError(
                f"{cost.dataset} has no entry '{cost.entry}' of {cost.model}",
                where=where,
                hint="Give the id of an entry of that file.",
            )


def read_csv(path: Path, model: type[M]) -> Iterator[M]:
    """Read the rows of a CSV file as records; an empty cell is an absent value.

    Raises:
        ConfigError: the file is missing, or a line is wrong; the message has its number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            for cells in reader:
                where = f"{path.name}:{reader.line_num}"
                if None in cells or None in cells.values():
                    raise ConfigError(
                        f"expected {len(reader.fieldnames or ())} cells",
                        where=where,
                        hint="Correct the line.",
                    )
                yield parse_record(model, {name: cell for name, cell in cells.items() if cell != ""}, where)
    except FileNotFoundError:
        raise ConfigError("no such file", where=path.name, hint=f"{CATALOGUE} lists it.") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"no CSV in UTF-8 ({error})", where=path.name, hint="Correct the file.") from None


def _origin(dataset: str, entry: Dataset, round_: str) -> Row:
    return {
        "dataset": dataset,
        "round": round_,
        "published_on": entry.published.get(round_),
        "source": entry.source,
        "licence": entry.licence,
        "by_guide": entry.format is SourceFormat.GUIDE,
    }


def _model(name: str, catalogue: Catalogue) -> Row:
    model, size = catalogue.model_of(name)
    return {"benchmark": name, "model": model, "billion_parameters": size}


def _check_per_gpu(total: float, gpus: int, stated: float, where: str) -> None:
    """Check a total over all accelerators against the file's figure per GPU, which is rounded to a tenth or finer."""
    if abs(total / gpus - stated) > 0.051:
        raise ConfigError(
            f"{total:g} tokens/s over {gpus} GPUs aren't {stated:g} each",
            where=where,
            hint="Totals are over accelerators per node times nodes.",
        )


def _mlperf(path: Path, dataset: str, entry: Dataset, catalogue: Catalogue) -> Iterator[Row]:
    for row in read_csv(path, MlperfRow):
        gpus = row.accelerators_per_node * row.nodes
        _check_per_gpu(row.tokens_per_s, gpus, row.tokens_per_s_per_accelerator, f"{path.name}: {row.entry}")
        correction = next((rule for rule in catalogue.corrections if rule.fits(row)), None)
        declared = catalogue.precisions.get(row.weight_data_types.lower())
        yield {
            **_origin(dataset, entry, row.round),
            **_model(row.model, catalogue),
            **row.model_dump(include={"entry", "submitter", "availability", "system", "nodes", "scenario"}),
            "hardware": row.accelerator,
            "gpu": catalogue.hardware.get(row.accelerator),
            "gpu_count": gpus,
            "precision": correction.precision if correction else declared,
            "precision_declared": row.weight_data_types,
            "precision_note": correction.why if correction else None,
            "engine": row.software,
            "output_tok_s": row.tokens_per_s,
            "accuracy": row.accuracy,
        }


def _imported(
    files: Sequence[Path], listed: Sequence[Row], catalogue: Catalogue
) -> tuple[list[Row], list[str]]:
    """Read imported MLPerf results that the catalogue's file doesn't list, as rows of its data set.

    Returns:
        The rows, and a line for each file that can't be read.
    """
    seen = {_entry_key(row) for row in listed}
    rows: list[Row] = []
    problems: list[str] = []
    for path in files:
        try:
            read = read_results(path, catalogue)
        except (ConfigError, OSError) as error:
            problems.append(f"{path.parent.name}/{path.name}: {error}")
            continue
        for row in read:
            if _entry_key(row) not in seen:
                seen.add(_entry_key(row))
                rows.append(row)
    return rows, problems


def read_results(path: Path, catalogue: Catalogue) -> list[Row]:
    """Read a file of imported MLPerf results as rows of the catalogue's data sets of MLPerf.

    Raises:
        ConfigError: a line is wrong.
    """
    return [
        {**row, "source": f"MLPerf Inference {row['round']}, imported: {path.name}"}
        for dataset, entry in catalogue.datasets.items()
        if entry.format is SourceFormat.MLPERF
        for row in _mlperf(path, dataset, entry, catalogue)
    ]


def _entry_key(row: Row) -> tuple[str, ...]:
    return (row["round"], row["entry"], row["benchmark"], row["scenario"])


def _trtllm(path: Path, dataset: str, entry: Dataset, catalogue: Catalogue) -> Iterator[Row]:
    for row in read_csv(path, TrtllmRow):
        title, _, version = row.source.partition(", ")
        name = f"{row.model} {row.precision} {row.gpu} {row.parallelism} {row.isl}/{row.osl}"
        _check_per_gpu(
            row.output_tok_s_total, row.gpu_count, row.output_tok_s_per_gpu, f"{path.name}: {name}"
        )
        yield {
            **_origin(dataset, entry, version or title),
            **_model(row.model, catalogue),
            **row.model_dump(include={"gpu_count", "parallelism", "isl", "osl", "engine"}),
            "entry": name,
            "submitter": "NVIDIA",
            "hardware": row.gpu,
            "gpu": catalogue.hardware.get(row.gpu),
            "nodes": 1,
            "scenario": "Offline",
            "precision": catalogue.precisions.get(row.precision.lower()),
            "precision_declared": row.precision,
            "output_tok_s": row.output_tok_s_total,
        }


def _guide(path: Path, dataset: str, entry: Dataset, catalogue: Catalogue) -> Iterator[Row]:
    (version,) = entry.published or ("",)
    for row in read_csv(path, GuideRow):
        yield {
            **_origin(dataset, entry, version),
            **_model(row.model, catalogue),
            **row.model_dump(include={"entry", "gpu", "gpu_count", "scenario", "concurrency"}),
            "hardware": row.gpu,
            "nodes": 1,
            "precision": row.precision,
            "precision_declared": row.precision,
            "output_tok_s": row.tokens_per_s,
            "source": f"{entry.source}: {row.stated_source}",
        }


def _scores(path: Path, dataset: str, entry: Dataset, catalogue: Catalogue) -> Iterator[Row]:
    for row in read_csv(path, ScoreRow):
        precision = catalogue.precisions.get(row.precision.lower())
        primary = catalogue.primary_scores.get(row.task)
        yield {
            **_origin(dataset, entry, row.run),
            **_model(row.model, catalogue),
            **row.model_dump(include={"run", "checkpoint", "revision", "task", "task_version", "metric"}),
            **row.model_dump(include={"filter", "score", "engine"}),
            "precision": precision,
            "precision_declared": row.precision,
            "is_baseline": precision == catalogue.score_baseline,
            "is_primary": primary is not None
            and (row.metric, row.filter) == (primary.metric, primary.filter),
            "documents": row.n_docs,
            "hardware": row.gpu,
            "gpu": catalogue.hardware.get(row.gpu),
            "harness": re.sub(r"^(?=\d)", "lm-eval ", row.lm_eval),
        }


_READERS = {
    SourceFormat.MLPERF: _mlperf,
    SourceFormat.TRTLLM: _trtllm,
    SourceFormat.GUIDE: _guide,
    SourceFormat.SCORES: _scores,
}
