"""Say before a run which tasks can validate nothing, because the baseline is known to score too little on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from quantgate.bundles.identity import reusable_result
from quantgate.bundles.manifest import Manifest, TaskResult
from quantgate.judge.power import KnownScore, insensitive_line
from quantgate.judge.stats.baseline_score import score_of_counts
from quantgate.model.config.suites import SuiteTask
from quantgate.model.records import RunPlan


def insensitive_lines(
    plan: RunPlan, runs: Sequence[Manifest], published: Iterable[KnownScore]
) -> Iterator[str]:
    """Yield a line for each task on which no loss could show, as far as an earlier run or a published score says.

    An earlier run of the same baseline goes before published scores: it asked these very documents.

    Args:
        plan: the baseline's.
        runs: that the bundles store holds, in their order.
        published: scores of the baseline.
    """
    floors = {content.task: content.floor for content in plan.contents}
    scores = list(published)
    for task in plan.suite.tasks:
        floor, margin = floors.get(task.task, 0.0), plan.policy.families[task.family].margin
        if (earlier := _earlier(plan, task, runs)) is not None:
            run, result = earlier
            score = score_of_counts(result.mean_score * result.documents, result.documents).low
            source = f"at least, by run {run.run_id}"
            known = KnownScore(task.task, result.metric, result.filter, score, source)
            line = insensitive_line(known, floor if result.floor is None else result.floor, margin)
        else:
            known_score = next((score for score in scores if _is_of(score, task)), None)
            line = insensitive_line(known_score, floor, margin) if known_score else None
        if line:
            yield line


def _earlier(plan: RunPlan, task: SuiteTask, runs: Sequence[Manifest]) -> tuple[Manifest, TaskResult] | None:
    """Return the last run of the same baseline that answered the same task, and its result."""
    for run in reversed(runs):
        if run.baseline is None and run.inputs.checkpoint_revision == plan.inputs.checkpoint_revision:
            result = reusable_result(plan, task, run)
            if result is not None:
                return run, result
    return None


def _is_of(score: KnownScore, task: SuiteTask) -> bool:
    """Return True if a score is of a task, and of its metric and filter where the suite names them."""
    return (
        score.task == task.task
        and task.metric in {None, score.metric}
        and task.filter in {None, score.filter}
    )
