"""Scores of real runs, kept compactly (tests/fixtures/verdicts), and the samples that the judge takes made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from quantgate.bundles.schema import SAMPLES
from quantgate.judge.document_order import DocumentKey, document_order
from quantgate.model.enums import Family
from quantgate.model.home import ROOT

FOLDER = ROOT / "tests" / "fixtures" / "verdicts"
HASH_DIGITS = 16
KEPT = ("task", "family", "filter", "metric", "doc_id", "doc_hash", "prompt_hash", "target_hash")
HASHES = ("doc_hash", "prompt_hash", "target_hash")


class Task(NamedTuple):
    """A task as a finished run declares it."""

    task: str
    family: Family
    filter: str | None


def compact(runs: Mapping[str, pa.Table]) -> pa.Table:
    """Scores of several runs of the same tasks, in one table sorted by document.

    Args:
        runs: samples by the run's name.
    """
    tables = []
    for name, samples in runs.items():
        table = samples.select([*KEPT, "score"])
        for column in HASHES:
            short = pc.utf8_slice_codeunits(table[column], 0, HASH_DIGITS)
            table = table.set_column(table.column_names.index(column), column, short)
        tables.append(table.append_column("run", pa.array([name] * len(table))))
    return pa.concat_tables(tables).sort_by(
        [("task", "ascending"), ("doc_id", "ascending"), ("run", "ascending")]
    )


def write(table: pa.Table, file: Path) -> None:
    """As small as it gets: the texts are few, or repeat from run to run."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, compression="zstd", compression_level=19, row_group_size=len(table))


@lru_cache(maxsize=4)
def read(name: str) -> dict[str, pa.Table]:
    """Read a recording: the samples by the run's name."""
    table = pq.read_table(FOLDER / f"{name}.parquet")
    return {
        run: as_samples(table.filter(pc.equal(table["run"], run)))
        for run in pc.unique(table["run"]).to_pylist()
    }


def as_samples(scores: pa.Table) -> pa.Table:
    """Samples with the texts left out; every document is of its own, and knows its place in the order asked."""
    filled: dict[str, Any] = {
        name: scores[name] if name in scores.column_names else pa.nulls(len(scores), SAMPLES.field(name).type)
        for name in SAMPLES.names
    }
    for column in ("target", "responses", "answer", "engine_start_id"):
        filled[column] = pa.array([""] * len(scores))
    filled["doc_repeat"] = pa.array(np.zeros(len(scores), np.int32))
    columns = (scores[name].to_pylist() for name in ("task", "doc_id", "prompt_hash"))
    filled["position"] = pa.array(positions(*columns), pa.int32())
    return pa.table(filled, schema=SAMPLES)


def positions(tasks: Sequence[str], doc_ids: Sequence[str], prompts: Sequence[str]) -> list[int]:
    """Each document's rank in the order of its task: by its prompt's hash, since no text was kept."""
    by_task: dict[str, list[int]] = {}
    for row, task in enumerate(tasks):
        by_task.setdefault(task, []).append(row)
    ranks = [0] * len(tasks)
    for rows in by_task.values():
        order = document_order([DocumentKey(doc_ids[row], 0, prompts[row]) for row in rows])
        for rank, index in enumerate(order):
            ranks[rows[index]] = rank
    return ranks


def tasks_of(samples: pa.Table) -> list[Task]:
    """The tasks that samples hold, as a run declares them."""
    rows = samples.group_by(["task", "family", "filter"]).aggregate([]).sort_by("task").to_pylist()
    return [Task(row["task"], Family(row["family"]), row["filter"]) for row in rows]


def deltas(baseline: pa.Table, candidate: pa.Table) -> dict[str, float]:
    """Each task's quality delta as a fraction, by documents' ids alone and by other means than the judge's."""
    there = {(row["task"], row["doc_id"]): row["score"] for row in baseline.to_pylist()}
    differences: dict[str, list[float]] = {}
    for row in candidate.to_pylist():
        differences.setdefault(row["task"], []).append(row["score"] - there[row["task"], row["doc_id"]])
    assert sum(map(len, differences.values())) == len(there)
    return {task: float(np.mean(values)) for task, values in differences.items()}
