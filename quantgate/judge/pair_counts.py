"""Count the pairs of many candidates at once, by DuckDB over their samples beside their baseline's.

Each row of a candidate is put beside the row of its baseline that seems to be the same document: row by row where both
files have their documents in the same order, else by a hash of the key. That is only a proposal. The query then
compares key, document, prompt, target and metric of every row. It counts only right/wrong scores of the same documents
throughout; everything else is left to ``pairs_of``, which names what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from quantgate.bundles.schema import SAMPLES
from quantgate.judge.interim import available_of, stopped_early
from quantgate.judge.judge import pairs_of
from quantgate.judge.pairing import (
    Counts,
    DeclaredTask,
    Pairs,
    Unmeasured,
    Unpaired,
    is_graded,
    shares_clusters,
)
from quantgate.judge.stats.baseline_score import BaselineScore, score_of_counts
from quantgate.model.config.policy import Policy

KEY = ("task", "filter", "doc_id", "doc_repeat")
"""Columns that identify a sample within a run."""

COLUMNS = (*KEY, "metric", "doc_hash", "prompt_hash", "target_hash", "score", "cluster", "position")
"""Columns of the samples that judging reads: neither texts nor answers."""

REPETITIVE = ("task", "filter", "metric", "cluster")
"""Columns with few distinct values, read as dictionaries."""


class Counted(NamedTuple):
    """Counts of a task's pairs, and which documents of the baseline they are."""

    counts: Counts
    positioned: int
    """Pairs with a position in the task's order."""
    last: int | None
    """Their greatest position."""


PlainTasks = Mapping[tuple[str, str], Counted]
"""Counts of a candidate's pairs by task and filter, without tasks that aren't plain right/wrong."""

_SAME = " AND ".join(
    f"candidate_{name} = baseline_{name}" for name in COLUMNS if name not in ("score", "cluster", "position")
)
_COUNT = f"""
    SELECT
        run, candidate_task, candidate_filter,
        count(*) AS pairs,
        count_if(candidate_score < baseline_score) AS worse,
        count_if(candidate_score > baseline_score) AS better,
        count_if(baseline_score = 1) AS baseline_right,
        count_if(candidate_score = 1) AS candidate_right,
        count(baseline_position) AS positioned,
        max(baseline_position) AS last,
        count_if({_SAME} AND baseline_score IN (0, 1) AND candidate_score IN (0, 1)
            AND baseline_cluster IS NULL AND candidate_cluster IS NULL) = count(*) AS plain
    FROM beside
    GROUP BY run, candidate_task, candidate_filter
"""  # noqa: S608


@cache
def _in_memory() -> duckdb.DuckDBPyConnection:
    """Open, once, an empty database for queries over Arrow tables: opening takes longer than most queries."""
    return duckdb.connect()


@dataclass(frozen=True)
class RunSamples:
    """Samples of a run as judging reads them: ``COLUMNS``, of which ``REPETITIVE`` may be dictionaries."""

    table: pa.Table

    @cached_property
    def documents(self) -> dict[tuple[str, str], int]:
        """Number of rows by task and filter."""
        tasks, filters = (_dictionary(self.table[name]) for name in ("task", "filter"))
        of_task, of_filter = (np.asarray(column.indices) for column in (tasks, filters))
        width = max(1, len(filters.dictionary))
        codes, rows = np.unique(of_task.astype(np.int64) * width + of_filter, return_counts=True)
        return {
            (tasks.dictionary[code // width].as_py(), filters.dictionary[code % width].as_py()): count
            for code, count in zip(codes.tolist(), rows.tolist(), strict=True)
        }

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        """Hash of each row's key."""
        return _hashes(self.table)

    @cached_property
    def by_hash(self) -> NDArray[np.int64]:
        """Row numbers in the order of their hashes."""
        return np.argsort(self.hashes)

    @cached_property
    def distinct(self) -> bool:
        """True if all hashes differ; then all keys do."""
        ordered = np.sort(self.hashes)
        return bool(np.all(ordered[1:] != ordered[:-1]))

    def positions(self, task: str) -> NDArray[np.int64]:
        """Return the positions of a task's rows in its order, -1 where there is none."""
        rows = pc.equal(self.table["task"], task)
        return np.asarray(self.table["position"].filter(rows).fill_null(-1), dtype=np.int64)

    def right_wrong_score(self, task: str, filter_: str) -> BaselineScore:
        """Return the score on a task whose scores are all 0 or 1."""
        own = pc.and_(pc.equal(self.table["task"], task), pc.equal(self.table["filter"], filter_))
        scores = self.table["score"].filter(own)
        return score_of_counts(int(pc.sum(scores).as_py()), len(scores))

    def as_samples(self, task: str) -> pa.Table:
        """Return the rows of a task, for ``pairs_of``."""
        rows = self.table.filter(pc.equal(self.table["task"], task))
        return rows.cast(pa.schema([SAMPLES.field(name) for name in rows.schema.names]))


def _dictionary(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Encode a column as one dictionary and its indices."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    return column.unify_dictionaries().combine_chunks()


def _hashes(table: pa.Table) -> NDArray[np.uint64]:
    samples = table.select(KEY)  # noqa: F841 - DuckDB looks it up by its name
    with _in_memory().cursor() as connection:
        hashed = connection.sql(f"SELECT hash({', '.join(KEY)}) AS hash FROM samples").to_arrow_table()  # noqa: S608
    return np.asarray(hashed["hash"].to_numpy(), dtype=np.uint64)


def _hash_together(sides: Iterable[RunSamples]) -> None:
    """Fill in the hashes of many runs by one query."""
    runs = [run for run in {id(run): run for run in sides}.values() if "hashes" not in run.__dict__]
    if runs:
        ends = np.cumsum([run.table.num_rows for run in runs])[:-1]
        parts = np.split(_hashes(pa.concat_tables([run.table.select(KEY) for run in runs])), ends)
        for run, hashes in zip(runs, parts, strict=True):
            run.__dict__["hashes"] = hashes


def count_pairs(runs: Sequence[tuple[RunSamples, RunSamples]]) -> list[PlainTasks]:
    """Count the pairs of right/wrong scores of many candidates.

    Args:
        runs: for each candidate the samples of its baseline and its own, in that order.

    Returns:
        For each candidate, the counts of the tasks and filters all of whose documents the baseline has too, with
        the same prompts, targets and metrics, once each, with scores of 0 or 1 and without clusters. The baseline
        may have more documents.
    """
    in_order = [_in_same_order(baseline, candidate) for baseline, candidate in runs]
    _hash_together(baseline for baseline, _ in runs)
    _hash_together(candidate for (_, candidate), same in zip(runs, in_order, strict=True) if not same)
    parts = [
        _beside(number, baseline, candidate, same)
        for number, ((baseline, candidate), same) in enumerate(zip(runs, in_order, strict=True))
        if candidate.table.num_rows and baseline.distinct and (same or candidate.distinct)
    ]
    counted: list[dict[tuple[str, str], Counted]] = [{} for _ in runs]
    if parts:
        beside = pa.concat_tables(parts)  # noqa: F841 - DuckDB looks it up by its name
        with _in_memory().cursor() as connection:
            rows = connection.execute(_COUNT).fetchall()
        for number, task, filter_, *counts, positioned, last, plain in rows:
            if plain:
                counted[number][task, filter_] = Counted(Counts(*counts), positioned, last)
    return list(counted)


def _in_same_order(baseline: RunSamples, candidate: RunSamples) -> bool:
    return len(baseline.table) == len(candidate.table) and all(
        baseline.table[name].equals(candidate.table[name]) for name in KEY
    )


def _beside(number: int, baseline: RunSamples, candidate: RunSamples, in_same_order: bool) -> pa.Table:
    """Put each row of a candidate beside one row of its baseline or none; no row of the baseline appears twice."""
    table = baseline.table if in_same_order else baseline.table.take(_counterparts(baseline, candidate))
    columns = {
        **{f"baseline_{name}": table[name] for name in COLUMNS},
        **{f"candidate_{name}": candidate.table[name] for name in COLUMNS},
    }
    numbers = pa.array(np.full(len(table), number, dtype=np.int32))
    return pa.table({"run": numbers, **columns})


def _counterparts(baseline: RunSamples, candidate: RunSamples) -> pa.Array:
    """Return for each row of the candidate the baseline's row whose key has the same hash, null where none has."""
    if not len(baseline.table):
        return pa.nulls(len(candidate.table), pa.int64())
    ordered, wanted = baseline.hashes[baseline.by_hash], candidate.hashes[candidate.by_hash]
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    rows, missing = np.empty(len(wanted), dtype=np.int64), np.empty(len(wanted), dtype=bool)
    rows[candidate.by_hash], missing[candidate.by_hash] = baseline.by_hash[at], ordered[at] != wanted
    return pa.array(rows, mask=missing)


def evidence_of(
    baseline: RunSamples,
    candidate: RunSamples,
    counted: PlainTasks,
    declared: Sequence[DeclaredTask],
    policy: Policy,
) -> dict[str, Pairs | Counts | Unpaired | Unmeasured]:
    """Return the evidence on each declared task: its counts where they suffice, else the result of ``pairs_of``.

    Args:
        baseline: samples of the baseline.
        candidate: samples of the candidate.
        counted: the result of ``count_pairs`` for them.
        declared: the tasks.
        policy: the one that the candidate declared.
    """
    return {
        task.task: _counts(baseline, candidate, counted, task, policy)
        or pairs_of(baseline.as_samples(task.task), candidate.as_samples(task.task), task, policy)
        for task in declared
    }


def _counts(
    baseline: RunSamples, candidate: RunSamples, plain: PlainTasks, declared: DeclaredTask, policy: Policy
) -> Counts | None:
    """Return the counts of a task whose documents are exactly those that must be paired; None where they aren't."""
    filters = {
        filter_
        for side in (baseline, candidate)
        for task, filter_ in side.documents
        if task == declared.task and declared.filter in (None, filter_)
    }
    if len(filters) != 1:
        return None
    key = declared.task, filters.pop()
    counted = plain.get(key)
    if counted is None:
        return None
    if stopped_early(declared, policy):
        first = (
            not is_graded(baseline.table, declared.task)
            and not shares_clusters(baseline.table, declared.task, available_of(declared))
            and _are_the_first(baseline, candidate, declared.task, counted)
        )
        return counted.counts._replace(whole=baseline.right_wrong_score(*key)) if first else None
    return counted.counts if baseline.documents.get(key) == counted.counts.pairs else None


def _are_the_first(baseline: RunSamples, candidate: RunSamples, task: str, counted: Counted) -> bool:
    """Check that the pairs are the first documents of the task's order, none left out on either side."""
    first = np.arange(counted.counts.pairs)
    if counted.positioned < first.size or counted.last != first.size - 1:
        return False
    answered, asked = candidate.positions(task), baseline.positions(task)
    return bool(
        np.array_equal(np.sort(answered), first)
        and asked.min() >= 0
        and (asked < first.size).sum() == first.size
    )
