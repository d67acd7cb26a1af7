"""The pairs of many candidates counted at once, by DuckDB over their samples laid beside their baseline's.

A candidate's rows are laid beside those of its baseline that seem to be the same documents: as they stand where
both files hold their documents in the same order, else found by a hash of the key. That is only a proposal. The
query then compares key, document, prompt, target and metric of every row, and what isn't right/wrong scores of
the same documents throughout, without anything odd, is left to ``pairs_of``, which names what is wrong.
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
from quantgate.model.config.policy import Policy

KEY = ("task", "filter", "doc_id", "doc_repeat")
"""What tells the samples of a run apart."""

COLUMNS = (*KEY, "metric", "doc_hash", "prompt_hash", "target_hash", "score", "cluster", "position")
"""What judging reads of the samples: neither texts nor answers."""

REPETITIVE = ("task", "filter", "metric", "cluster")
"""Columns of few different values, read as dictionaries."""


class Counted(NamedTuple):
    """The counts of a task's pairs, and which documents of the baseline they are."""

    counts: Counts
    positioned: int
    """How many of them have a position in the task's order."""
    last: int | None
    """The greatest of their positions."""


PlainTasks = Mapping[tuple[str, str], Counted]
"""By task and filter, the counts of a candidate's pairs; a task that isn't plain is left out."""

_SAME = " AND ".join(
    f"here_{name} = there_{name}" for name in COLUMNS if name not in ("score", "cluster", "position")
)
_COUNT = f"""
    SELECT
        candidate, here_task, here_filter,
        count(*) AS pairs,
        count_if(here_score < there_score) AS worse,
        count_if(here_score > there_score) AS better,
        count_if(there_score = 1) AS baseline_right,
        count_if(here_score = 1) AS candidate_right,
        count(there_position) AS positioned,
        max(there_position) AS last,
        count_if({_SAME} AND there_score IN (0, 1) AND here_score IN (0, 1)
            AND there_cluster IS NULL AND here_cluster IS NULL) = count(*) AS plain
    FROM beside
    GROUP BY candidate, here_task, here_filter
"""  # noqa: S608


@cache
def _in_memory() -> duckdb.DuckDBPyConnection:
    """A database of nothing, for queries over Arrow tables: opening one takes longer than most of them."""
    return duckdb.connect()


@dataclass(frozen=True)
class RunSamples:
    """What judging reads of a run's samples: ``COLUMNS``, of which ``REPETITIVE`` may be dictionaries."""

    table: pa.Table

    @cached_property
    def documents(self) -> dict[tuple[str, str], int]:
        """Rows by task and filter."""
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
        """A hash of each row's key."""
        return _hashes(self.table)

    @cached_property
    def by_hash(self) -> NDArray[np.int64]:
        """Row numbers in the order of the hashes."""
        return np.argsort(self.hashes)

    @cached_property
    def distinct(self) -> bool:
        """Whether no two hashes are the same; if so, then no two keys are."""
        ordered = np.sort(self.hashes)
        return bool(np.all(ordered[1:] != ordered[:-1]))

    def positions(self, task: str) -> NDArray[np.int64]:
        """The positions of a task's rows in its order, -1 where there is none."""
        rows = pc.equal(self.table["task"], task)
        return np.asarray(self.table["position"].filter(rows).fill_null(-1), dtype=np.int64)

    def as_samples(self, task: str) -> pa.Table:
        """The rows of a task, for ``pairs_of``."""
        rows = self.table.filter(pc.equal(self.table["task"], task))
        return rows.cast(pa.schema([SAMPLES.field(name) for name in rows.schema.names]))


def _dictionary(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """A column as one dictionary and its indices."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    return column.unify_dictionaries().combine_chunks()


def _hashes(table: pa.Table) -> NDArray[np.uint64]:
    samples = table.select(KEY)  # noqa: F841 - DuckDB finds it by its name
    with _in_memory().cursor() as connection:
        found = connection.sql(f"SELECT hash({', '.join(KEY)}) AS hash FROM samples").to_arrow_table()  # noqa: S608
    return np.asarray(found["hash"].to_numpy(), dtype=np.uint64)


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
        runs: samples of a baseline and of a candidate, in that order, for each candidate.

    Returns:
        For each candidate, the counts of the tasks and filters all of whose documents the baseline has too, with
        the same prompts, targets and metrics, once each, with scores of 0 or 1 and without clusters. The baseline
        may have documents more.
    """
    in_order = [_in_same_order(there, here) for there, here in runs]
    _hash_together(there for there, _ in runs)
    _hash_together(here for (_, here), same in zip(runs, in_order, strict=True) if not same)
    parts = [
        _beside(number, there, here, same)
        for number, ((there, here), same) in enumerate(zip(runs, in_order, strict=True))
        if here.table.num_rows and there.distinct and (same or here.distinct)
    ]
    counted: list[dict[tuple[str, str], Counted]] = [{} for _ in runs]
    if parts:
        beside = pa.concat_tables(parts)  # noqa: F841 - DuckDB finds it by its name
        with _in_memory().cursor() as connection:
            rows = connection.execute(_COUNT).fetchall()
        for number, task, filter_, *counts, positioned, last, plain in rows:
            if plain:
                counted[number][task, filter_] = Counted(Counts(*counts), positioned, last)
    return list(counted)


def _in_same_order(there: RunSamples, here: RunSamples) -> bool:
    return len(there.table) == len(here.table) and all(
        there.table[name].equals(here.table[name]) for name in KEY
    )


def _beside(number: int, there: RunSamples, here: RunSamples, in_same_order: bool) -> pa.Table:
    """A candidate's rows, each beside one row of its baseline or none, no row of which comes twice."""
    table = there.table if in_same_order else there.table.take(_counterparts(there, here))
    columns = {
        **{f"there_{name}": table[name] for name in COLUMNS},
        **{f"here_{name}": here.table[name] for name in COLUMNS},
    }
    numbers = pa.array(np.full(len(table), number, dtype=np.int32))
    return pa.table({"candidate": numbers, **columns})


def _counterparts(there: RunSamples, here: RunSamples) -> pa.Array:
    """For each row of ``here`` the row of ``there`` whose key has the same hash, null where none has."""
    if not len(there.table):
        return pa.nulls(len(here.table), pa.int64())
    ordered, wanted = there.hashes[there.by_hash], here.hashes[here.by_hash]
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    rows, missing = np.empty(len(wanted), dtype=np.int64), np.empty(len(wanted), dtype=bool)
    rows[here.by_hash], missing[here.by_hash] = there.by_hash[at], ordered[at] != wanted
    return pa.array(rows, mask=missing)


def evidence_of(
    there: RunSamples,
    here: RunSamples,
    counted: PlainTasks,
    declared: Sequence[DeclaredTask],
    policy: Policy,
) -> dict[str, Pairs | Counts | Unpaired | Unmeasured]:
    """What the samples hold of each declared task: its counts where they say all, else what ``pairs_of`` finds.

    Args:
        there: samples of the baseline.
        here: samples of the candidate.
        counted: what ``count_pairs`` counted of them.
        declared: the tasks.
        policy: the one that the candidate declared.
    """
    return {
        task.task: _counts(there, here, counted, task, policy)
        or pairs_of(there.as_samples(task.task), here.as_samples(task.task), task, policy)
        for task in declared
    }


def _counts(
    there: RunSamples, here: RunSamples, counted: PlainTasks, declared: DeclaredTask, policy: Policy
) -> Counts | None:
    """The counts of a task whose documents are exactly those that must be paired; None where there is more to say."""
    filters = {
        filter_
        for side in (there, here)
        for task, filter_ in side.documents
        if task == declared.task and declared.filter in (None, filter_)
    }
    if len(filters) != 1:
        return None
    key = declared.task, filters.pop()
    found = counted.get(key)
    if found is None:
        return None
    if stopped_early(declared, policy):
        whole = (
            not is_graded(there.table, declared.task)
            and not shares_clusters(there.table, declared.task, available_of(declared))
            and _are_the_first(there, here, declared.task, found)
        )
    else:
        whole = there.documents.get(key) == found.counts.pairs
    return found.counts if whole else None


def _are_the_first(there: RunSamples, here: RunSamples, task: str, found: Counted) -> bool:
    """Whether the pairs are the first documents of the task's order, none left out on either side."""
    first = np.arange(found.counts.pairs)
    if found.positioned < first.size or found.last != first.size - 1:
        return False
    answered, asked = here.positions(task), there.positions(task)
    return bool(
        np.array_equal(np.sort(answered), first)
        and asked.min() >= 0
        and (asked < first.size).sum() == first.size
    )
