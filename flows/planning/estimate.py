"""Estimate what a run of the matrix takes: GPU-hours as measured before, or from the physical limit; and USD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from flows.planning.answers import TaskSize
from flows.planning.cells import Cell
from flows.planning.measured import (
    NOTHING_REUSED,
    Reusable,
    duration_s,
    measured_start_s,
    reusable,
    similar_runs,
)
from quantgate.bundles.manifest import Manifest
from quantgate.model.config.workloads import Workload
from warehouse.database import Connection
from warehouse.estimates import Load, on_demand_price, seconds_of

ASSUMED_START_S = 300.0
"""Assumed duration of an engine's start with large weights, where none was measured on that GPU."""
AT_ONCE = 256
"""Prompts under way at once in a quality task: 8 requests of 32 (`tasks.quality.evaluate.Evaluation`)."""


@dataclass(frozen=True)
class RunSize:
    """The load that a run puts on an engine."""

    workload: Workload
    tasks: tuple[TaskSize, ...]
    aa_documents: int = 0
    """Documents of each task that a baseline answers once more, after another start of the engine."""

    def loads(
        self, *, high: bool, is_baseline: bool = False, measured: Reusable = NOTHING_REUSED
    ) -> list[Load]:
        """Return the load of the suite's documents, and that of each concurrency level with its warm-up.

        Args:
            high: True for the longest prompts and answers that are expected, and every document; False for the
                shortest, and a candidate that stops at its first interim look.
            is_baseline: True if some documents are answered twice.
            measured: what the run reuses of earlier ones.
        """
        workload = self.workload
        levels = [
            Load(
                workload.isl_tokens,
                workload.osl_tokens,
                level,
                max(workload.prompts_per_concurrency * level, workload.min_prompts) + level,
            )
            for level in workload.concurrency
            if level not in measured.levels
        ]
        documents = []
        for task in self.tasks:
            asked = task.documents if high or is_baseline else task.least_documents or task.documents
            if task.task in measured.tasks:
                asked = 0
            count = asked + (min(self.aa_documents, task.documents) if is_baseline else 0)
            tokens = task.high_tokens if high else task.low_tokens
            prompt = task.prompt_tokens[1 if high else 0]
            scored, generated = (ceil(count * each) for each in task.requests[:2])
            documents += [Load(prompt, 1, AT_ONCE, scored)] if scored else []
            documents += [Load(prompt, tokens, AT_ONCE, generated)] if generated else []
        return [*documents, *levels]

    @property
    def lengths(self) -> tuple[str, ...]:
        """Return how long prompts and answers are expected to be, in words."""
        prompts = _by_words({task.task: task.prompt_words for task in self.tasks})
        answers = _by_words({task.task: task.words for task in self.tasks if task.words})
        said = (("a prompt", prompts), ("an answer", answers))
        return tuple(f"{what} counts as {words}" for what, words in said if words)

    def starts(self, *, is_baseline: bool) -> int:
        """Return how often the run starts its engine."""
        return 2 if is_baseline and self.aa_documents else 1


def _by_words(tasks: Mapping[str, str]) -> str:
    """Return what is said of tasks, those of which the same is said together."""
    names: dict[str, list[str]] = {}
    for task, words in tasks.items():
        names.setdefault(words, []).append(task)
    return "; ".join(f"{words} for {', '.join(together)}" for words, together in names.items())


def estimate(
    connection: Connection,
    cell: Cell,
    architecture: str,
    size: RunSize,
    manifests: Sequence[Manifest],
    share: float,
) -> Cell:
    """Return the cell with GPU-hours, USD and their basis, each with a low and a high end.

    ``measured``: durations of runs of the model with the same GPUs, suite and workload, from start to bundle: the
    shortest and the longest of those that say most (`flows.planning.measured.similar_runs`).
    ``estimated``: (engine starts + sum over tasks of requests x output / rate(prompt, output, 256 at once) + sum over
    levels of (requests + warm-up) x osl / rate(level)) / 3600 x GPUs. The output is 1 token of a request that scores a
    choice, else an answer's length; prompts and answers have a low end and a high end (`flows.planning.answers`). The
    rate is `bound_tok_s` of the view ``bounds`` times what published engines reach of it (median of
    ``published_evidence``). The low end counts what interim looks and reuse may save, the high end does not. The
    download of the checkpoint isn't counted. USD = GPU-hours x the cheapest current on-demand offer of the GPU.

    Args:
        connection: a warehouse with the configuration.
        cell: with precision, gpus and expected.
        architecture: of its model, a key of configs/architectures.
        size: tasks and workload.
        manifests: every bundle's.
        share: `warehouse.estimates.published_share`.
    """
    assert cell.expected is not None
    assert cell.gpus is not None
    assert cell.precision is not None
    similar = similar_runs(cell.expected, cell.model, cell.precision, manifests)
    if similar:
        durations, precision = list(map(duration_s, similar)), similar[0].checkpoint.precision
        low_s, high_s = min(durations), max(durations)
        basis = "measured" if precision == cell.precision else f"measured ({precision})"
    else:
        ends = []
        reused = reusable(cell.expected, size.workload, manifests, is_baseline=cell.is_baseline)
        for high in (False, True):
            measured = NOTHING_REUSED if high else reused
            busy_s, unbounded = seconds_of(
                connection,
                size.loads(high=high, is_baseline=cell.is_baseline, measured=measured),
                model=architecture,
                precision=cell.precision,
                gpu=cell.gpu,
                gpu_count=cell.gpus,
                share=share,
            )
            if busy_s is None:
                what = f"nothing like it was measured yet, and no physical limit is known: {unbounded}"
                return replace(cell, no_usd=what)
            ends.append(busy_s)
        start_s = measured_start_s(cell.gpu, manifests)
        starts_s = (ASSUMED_START_S if start_s is None else start_s) * size.starts(
            is_baseline=cell.is_baseline
        )
        (low_s, high_s), basis = sorted(starts_s + busy_s for busy_s in ends), "estimated"
    return _priced(connection, replace(cell, basis=basis), cell.gpus, low_s, high_s)


def _priced(connection: Connection, cell: Cell, gpus: int, low_s: float, high_s: float) -> Cell:
    """Return the cell with GPU-hours and USD of a duration from its low end to its high end."""
    low_hours, high_hours = (seconds / 3600 * gpus for seconds in (low_s, high_s))
    usd_per_gpu_hour = on_demand_price(connection, cell.gpu)
    cell = replace(cell, gpu_hours_low=low_hours, gpu_hours=high_hours)
    if usd_per_gpu_hour is None:
        return replace(cell, no_usd=f"no_price: no on-demand offer for a {cell.gpu}")
    return replace(
        cell,
        usd_low=low_hours * usd_per_gpu_hour,
        usd=high_hours * usd_per_gpu_hour,
        usd_per_gpu_hour=usd_per_gpu_hour,
    )
