"""Stored candidates judged from the samples of their bundles, many at once, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from quantgate.bundles.manifest import Manifest
from quantgate.bundles.schema import SAMPLES_FILE
from quantgate.bundles.store import BundleStore, Columns
from quantgate.judge.judge import incomparable, judge, judge_evidence
from quantgate.judge.pair_counts import COLUMNS, REPETITIVE, PlainTasks, RunSamples, count_pairs, evidence_of
from quantgate.model.config.policy import Policy
from quantgate.model.errors import QuantgateError, RunError
from quantgate.model.records import UseVerdict
from warehouse.database import UNEXPECTED, Connection, insert_rows
from warehouse.rows import Row, task_verdict_rows, verdict_rows

_BATCH_ROWS = 500_000
"""Candidates' rows that are counted together: many small runs cost one query, and few large ones fit in memory."""
_AHEAD = 2
"""Runs that are read before they are needed, while those before them are counted."""


@dataclass(frozen=True)
class StoredRun:
    """A run's manifest, and of its samples what judging needs."""

    manifest: Manifest
    own: Policy
    """What the run declared in truth, whatever its manifest is taken to have declared."""
    columns: Columns
    samples: RunSamples
    """What the columns hold, for counting."""


@dataclass(frozen=True)
class Judged:
    """A candidate's verdicts, one per use; or why it could not be judged."""

    run_id: str
    baseline_run_id: str
    verdicts: tuple[UseVerdict, ...] = ()
    manifest: Manifest | None = None
    error: QuantgateError | None = None


@dataclass
class JudgedRows:
    """Rows of the verdicts of many candidates, and the candidates that could not be judged."""

    verdicts: list[Row] = field(default_factory=list)
    task_verdicts: list[Row] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)
    errors: dict[str, QuantgateError] = field(default_factory=dict)
    """By run id."""

    def insert(self, connection: Connection, prefix: str = "") -> None:
        """Append the rows to ``store.<prefix>verdicts`` and ``store.<prefix>task_verdicts``."""
        insert_rows(connection, f"{prefix}verdicts", self.verdicts)
        insert_rows(connection, f"{prefix}task_verdicts", self.task_verdicts)


_Read = StoredRun | QuantgateError
"""A run, or why it could not be read."""


class _Pair(NamedTuple):
    """The run ids of a candidate and its baseline, and what was read of the two."""

    run_id: str
    baseline_run_id: str
    candidate: _Read
    baseline: _Read


def judge_rows(
    store: BundleStore,
    candidates: Sequence[tuple[str, str]],
    declare: Callable[[Manifest], Manifest] = lambda manifest: manifest,
) -> JudgedRows:
    """Return what `judge_stored` yields as rows of the warehouse."""
    rows = JudgedRows()
    for judged in judge_stored(store, candidates, declare):
        if judged.error is not None:
            rows.errors[judged.run_id] = judged.error
        elif judged.manifest is not None:
            rows.verdicts += verdict_rows(judged.manifest, judged.baseline_run_id, judged.verdicts)
            rows.task_verdicts += task_verdict_rows(judged.manifest, judged.baseline_run_id, judged.verdicts)
            rows.run_ids.append(judged.run_id)
    return rows


def judge_stored(
    store: BundleStore,
    candidates: Sequence[tuple[str, str]],
    declare: Callable[[Manifest], Manifest] = lambda manifest: manifest,
) -> Iterator[Judged]:
    """Judge stored candidates, each against its baseline, as ``judge_runs`` would.

    Args:
        store: where the bundles lie; their samples' checksums are checked as at a load.
        candidates: run ids of a candidate and of its baseline; those of one baseline side by side, so that it is
            read once.
        declare: what a manifest is taken to have declared.

    Yields:
        What came of each candidate, in their order.
    """
    batch: list[_Pair] = []
    rows = 0
    for pair in _read(store, candidates, declare):
        batch.append(pair)
        rows += pair.candidate.samples.table.num_rows if isinstance(pair.candidate, StoredRun) else 0
        if rows >= _BATCH_ROWS:
            yield from _judge_batch(batch)
            batch, rows = [], 0
    yield from _judge_batch(batch)


def _read(
    store: BundleStore, candidates: Sequence[tuple[str, str]], declare: Callable[[Manifest], Manifest]
) -> Iterator[_Pair]:
    """Yield the two runs of every candidate, or why one can't be read; a baseline's once for all that follow it."""

    def read(run_id: str, baseline: Future[_Read] | None) -> _Read:
        beside = baseline.result() if baseline is not None else None
        try:
            manifest = store.read_manifest(run_id)
            like = beside.columns if isinstance(beside, StoredRun) else None
            columns = store.read_columns(manifest, SAMPLES_FILE, COLUMNS, REPETITIVE, like=like)
            return StoredRun(declare(manifest), manifest.policy, columns, RunSamples(columns.table))
        except QuantgateError as error:
            return error
        except UNEXPECTED as error:
            return _unexpected(run_id, error)

    def started() -> Iterator[Future[_Read]]:
        """Yield every run as it is needed: a baseline, then its candidates, which wait for it."""
        for baseline_run_id, pairs in groupby(candidates, key=itemgetter(1)):
            baseline = pool.submit(read, baseline_run_id, None)
            yield baseline
            for run_id, _ in pairs:
                yield pool.submit(read, run_id, baseline)

    with ThreadPoolExecutor(_AHEAD) as pool:
        runs = _ahead(started())
        for baseline_run_id, pairs in groupby(candidates, key=itemgetter(1)):
            baseline = next(runs)
            for run_id, _ in pairs:
                yield _Pair(run_id, baseline_run_id, next(runs), baseline)


def _ahead(futures: Iterator[Future[_Read]]) -> Iterator[_Read]:
    """Yield results in their order, with a few in progress."""
    waiting: deque[Future[_Read]] = deque()
    for future in futures:
        waiting.append(future)
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _judge_batch(batch: Sequence[_Pair]) -> Iterator[Judged]:
    """Count the pairs of all candidates in one go, then judge each; where that fails, count each candidate alone."""
    sides = [
        (pair.baseline.samples, pair.candidate.samples)
        for pair in batch
        if isinstance(pair.baseline, StoredRun) and isinstance(pair.candidate, StoredRun)
    ]
    try:
        counted = iter(count_pairs(sides))
    except UNEXPECTED as error:
        if len(batch) == 1:
            yield Judged(*batch[0][:2], error=_unexpected(batch[0].run_id, error))
        else:
            for pair in batch:
                yield from _judge_batch([pair])
        return
    for run_id, baseline_run_id, candidate, baseline in batch:
        try:
            baseline_run, run = _read_whole(baseline), _read_whole(candidate)
            verdicts = _judge(baseline_run, run, next(counted))
            yield Judged(run_id, baseline_run_id, verdicts, run.manifest)
        except QuantgateError as error:
            yield Judged(run_id, baseline_run_id, error=error)
        except UNEXPECTED as error:
            yield Judged(run_id, baseline_run_id, error=_unexpected(run_id, error))


def _unexpected(run_id: str, error: Exception) -> RunError:
    """Return the error of a run with values that nobody thought of; it stops no other candidate."""
    return RunError(
        f"{type(error).__name__}: {error}", where=f"bundle {run_id}", hint="Measure it again with --fresh."
    )


def _read_whole(run: _Read) -> StoredRun:
    """Return the run; raise the error for which it could not be read."""
    if isinstance(run, QuantgateError):
        raise run
    return run


def _judge(baseline: StoredRun, candidate: StoredRun, counted: PlainTasks) -> tuple[UseVerdict, ...]:
    manifest = candidate.manifest
    own = candidate.own.at_question(manifest.question)
    without = incomparable(baseline.manifest, manifest)
    if without is not None:
        return without
    name, policy, tasks = manifest.policy_name, manifest.policy.at_question(manifest.question), manifest.tasks
    if not tasks or not candidate.samples.table.num_rows:
        return judge(baseline.samples.table, candidate.samples.table, name, policy, tasks)
    evidence = evidence_of(baseline.samples, candidate.samples, counted, tasks, own)
    return judge_evidence(evidence, name, policy, tasks, own=own)
