"""Stored candidates judged from the samples of their bundles, many at once, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from quantgate.bundles.manifest import Manifest
from quantgate.bundles.schema import SAMPLES_FILE
from quantgate.bundles.store import BundleStore, Columns
from quantgate.judge.judge import incomparable, judge, judge_evidence
from quantgate.judge.pair_counts import COLUMNS, REPETITIVE, PlainTasks, RunSamples, count_pairs, evidence_of
from quantgate.model.config.policy import Policy
from quantgate.model.errors import QuantgateError
from quantgate.model.records import UseVerdict

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


_Read = StoredRun | QuantgateError
"""A run, or why it could not be read."""


class _Pair(NamedTuple):
    """A candidate's run id and its baseline's, and what was read of them: ``there`` is the baseline."""

    candidate: str
    baseline: str
    there: _Read
    here: _Read


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
        rows += pair.here.samples.table.num_rows if isinstance(pair.here, StoredRun) else 0
        if rows >= _BATCH_ROWS:
            yield from _judge_batch(batch)
            batch, rows = [], 0
    yield from _judge_batch(batch)


def _read(
    store: BundleStore, candidates: Sequence[tuple[str, str]], declare: Callable[[Manifest], Manifest]
) -> Iterator[_Pair]:
    """Yield the two runs of every candidate, or why one can't be read; a baseline's once for all that follow it."""

    def read(run_id: str, like: Future[_Read] | None) -> _Read:
        there = like.result() if like is not None else None
        try:
            manifest = store.read_manifest(run_id)
            columns = there.columns if isinstance(there, StoredRun) else None
            columns = store.read_columns(manifest, SAMPLES_FILE, COLUMNS, REPETITIVE, like=columns)
            return StoredRun(declare(manifest), manifest.policy, columns, RunSamples(columns.table))
        except QuantgateError as error:
            return error

    def started() -> Iterator[Future[_Read]]:
        """Yield every run as it is needed: a baseline, then its candidates, which wait for it."""
        there, before = None, None
        for candidate, baseline in candidates:
            if baseline != before:
                there, before = pool.submit(read, baseline, None), baseline
                yield there
            yield pool.submit(read, candidate, there)

    with ThreadPoolExecutor(_AHEAD) as pool:
        runs = _ahead(started())
        there: _Read | None = None
        before = None
        for candidate, baseline in candidates:
            if baseline != before:
                there, before = next(runs), baseline
            assert there is not None
            yield _Pair(candidate, baseline, there, next(runs))


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
    """Count the pairs of all candidates in one go, then judge each."""
    sides = [
        (there.samples, here.samples)
        for _, _, there, here in batch
        if isinstance(there, StoredRun) and isinstance(here, StoredRun)
    ]
    counted = iter(count_pairs(sides))
    for candidate, baseline, there, here in batch:
        if isinstance(there, QuantgateError):
            yield Judged(candidate, baseline, error=there)
        elif isinstance(here, QuantgateError):
            yield Judged(candidate, baseline, error=here)
        else:
            yield _judged(candidate, baseline, there, here, next(counted))


def _judged(candidate: str, baseline: str, there: StoredRun, here: StoredRun, counted: PlainTasks) -> Judged:
    try:
        return Judged(candidate, baseline, _judge(there, here, counted), here.manifest)
    except QuantgateError as error:
        return Judged(candidate, baseline, error=error)


def _judge(there: StoredRun, here: StoredRun, counted: PlainTasks) -> tuple[UseVerdict, ...]:
    manifest, policy = here.manifest, here.manifest.policy
    without = incomparable(there.manifest, manifest)
    if without is not None:
        return without
    if not manifest.tasks or not here.samples.table.num_rows:
        return judge(there.samples.table, here.samples.table, manifest.policy_name, policy, manifest.tasks)
    evidence = evidence_of(there.samples, here.samples, counted, manifest.tasks, here.own)
    return judge_evidence(evidence, manifest.policy_name, policy, manifest.tasks, own=here.own)
