"""Find what is measured already: a planned run against the manifests of the bundles store."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from quantgate.bundles.identity import Expected, differences
from quantgate.bundles.manifest import Manifest
from quantgate.model.config.workloads import Workload
from quantgate.model.enums import Validity
from quantgate.model.secrets import redact
from tasks.throughput import bench


def is_answered(manifest: Manifest) -> bool:
    """Return True if a run says all that it could say under its policy's interim looks, whatever its limit.

    Each task has answered all its documents, or stopped before it had to, since it was decided.
    """
    limit = (manifest.inputs.suite or {}).get("limit")
    for task in manifest.tasks:
        available = task.documents_available
        if available is None:
            return False
        asked = available if limit is None else min(limit, available)
        if asked <= task.documents < available:
            return False
    return bool(manifest.policy.looks and manifest.tasks)


def measured_run(
    expected: Expected, manifests: Iterable[Manifest], *, however_many: bool = False
) -> tuple[Manifest | None, str]:
    """Return the last bundle of a planned run; or None, and in what the nearest one of its checkpoint differs.

    Args:
        expected: what is planned.
        manifests: every bundle's, oldest first.
        however_many: whether, under a policy with interim looks, a run of the same question counts that may have asked
            fewer documents.
    """
    same = None
    nearest: tuple[str, ...] | None = None
    for manifest in manifests:
        any_number = is_answered(manifest) or (however_many and bool(manifest.policy.looks))
        differs = differences(expected, manifest.inputs, however_many=any_number)
        if not differs:
            same = manifest
        elif "gpu" not in differs and "checkpoint" not in differs:
            nearest = differs if nearest is None or len(differs) <= len(nearest) else nearest
    if same or nearest is None:
        return same, ""
    return None, f"{', '.join(nearest)} changed since it was measured"


def duration_s(run: Manifest) -> float:
    """Return the seconds from a run's start to its bundle."""
    return (run.measured_at - run.started_at).total_seconds()


def similar_runs(
    expected: Expected, model: str, precision: str | None, manifests: Iterable[Manifest]
) -> list[Manifest]:
    """Return runs of the model on the same GPUs, with the same suite and workload, to estimate a duration.

    One that inherited answers of an earlier run doesn't count. Runs of the same precision go before another's, of
    which only the last is returned. A run that was continued after a kill counts the time between, so those with the
    fewest engine starts go before it.

    Args:
        expected: what is planned.
        model: the name that its rows carry.
        precision: the checkpoint's.
        manifests: every bundle's, oldest first.
    """
    similar = [
        m
        for m in manifests
        if m.checkpoint.model == model
        and (m.inputs.gpu, m.inputs.gpu_count) == (expected.gpu, expected.gpus)
        and (m.inputs.suite, m.inputs.workload) == (expected.suite, expected.workload)
        and all(start.started_at >= m.started_at for start in m.engine_starts)
    ]
    own = [m for m in similar if m.checkpoint.precision == precision]
    chosen = own or sorted(similar, key=lambda m: (len(m.engine_starts) == 1, m.measured_at))[-1:]
    least = min((len(m.engine_starts) for m in chosen), default=0)
    return [m for m in chosen if len(m.engine_starts) == least]


class Reusable(NamedTuple):
    """Parts of a planned run that earlier runs have measured."""

    levels: frozenset[int]
    """Load levels, by their concurrency."""
    tasks: frozenset[str]
    """Tasks that a baseline need not answer again."""


NOTHING_REUSED = Reusable(frozenset(), frozenset())
_OF_LEVELS = frozenset({"baseline", "suite", "workload", "policy"})
"""In what a run may differ from a planned one and still have served the checkpoint alike."""


def reusable(
    expected: Expected, workload: Workload, manifests: Iterable[Manifest], *, is_baseline: bool
) -> Reusable:
    """Return what a planned run would reuse, as far as the host that plans it can say.

    Its own host has the last word (`tasks.resume.parts`, `tasks.resume.decision`): what is old or was served by other
    kernels is measured again.

    Args:
        expected: what is planned.
        workload: its load levels.
        manifests: every bundle's, oldest first.
        is_baseline: True if it is a baseline, whose answers are reused too.
    """
    levels, tasks = set[int](), set[str]()
    asked = {task["task"]: task for task in expected.suite.get("tasks", [])}
    for run in manifests:
        if run.validity is not Validity.VALID or not _OF_LEVELS.issuperset(differences(expected, run.inputs)):
            continue
        levels |= _shared_levels(workload, run.workload) if run.workload else set()
        if is_baseline and run.baseline is None:
            answered = {task["task"]: task for task in (run.inputs.suite or {}).get("tasks", [])}
            tasks |= {
                task.task
                for task in run.tasks
                if task.documents == task.documents_available
                and asked.get(task.task) == answered.get(task.task)
            }
    return Reusable(frozenset(levels), frozenset(tasks & asked.keys()))


def _shared_levels(planned: Workload, measured: Workload) -> set[int]:
    """Return the concurrency of the levels that ask an engine the same in both workloads."""
    loads = [bench.load_of(measured, level) for level in bench.levels(measured, Path())]
    return {
        level["concurrency"]
        for level in bench.levels(planned, Path())
        if bench.load_of(planned, level) in loads
    }


def measured_start_s(gpu: str, manifests: Iterable[Manifest]) -> float | None:
    """Return the median seconds of an engine's start on a GPU; None where none was measured."""
    starts = [s.start_duration_s for m in manifests if m.inputs.gpu == gpu for s in m.engine_starts]
    return statistics.median(starts) if starts else None


def new_gpu_hours(
    planned: Sequence[Expected | None], manifests: Iterable[Manifest], before: Collection[str]
) -> dict[int, float]:
    """Return GPU-hours of what was measured by now, by its index among the planned runs; others are left out.

    Args:
        planned: the inputs of each run; None where they aren't known.
        manifests: every bundle's, oldest first.
        before: ids of the runs that were there before; a host's clock says nothing about another host's.
    """
    new = [manifest for manifest in manifests if manifest.run_id not in before]
    hours = {}
    for index, expected in enumerate(planned):
        for manifest in new:
            if expected and not differences(expected, manifest.inputs, however_many=is_answered(manifest)):
                hours[index] = duration_s(manifest) / 3600 * manifest.inputs.gpu_count
    return hours


def why_missing(expected: Expected, manifests: Sequence[Manifest], bundles_url: str) -> str:
    """Say why what a completed run measured, or reused, isn't in the bundles store; empty where it is.

    Args:
        expected: what was planned.
        manifests: every bundle's, oldest first.
        bundles_url: where they were read.
    """
    where = redact(bundles_url)
    # Its host may have found the question decided by a run with a limit, and then measures nothing.
    run, changed = measured_run(expected, manifests, however_many=True)
    if run:
        return ""
    if changed:
        return (
            f"the run completed, and no bundle at {where} is what was planned (the nearest: {changed}): do "
            "all hosts have this checkout's configs/ and share QUANTGATE_BUNDLES? "
            "A pool's own engine is named in fleet.yaml"
        )
    return f"the run completed, and its bundle isn't at {where}: do all hosts share QUANTGATE_BUNDLES?"
