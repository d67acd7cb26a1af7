"""Which metric, under which filter, is a document's score: checked as far as a task's YAML tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.errors import ConfigError
from quantgate.model.yaml_file import load_yaml
from tasks.quality import sources as task_sources
from tasks.quality.task_yaml import Function, TaskSource


class _Score(NamedTuple):
    """How a task's documents are scored; None where its YAML doesn't say."""

    output_type: str
    metric: str | None
    filter: str

    def __str__(self) -> str:
        """As a message shows it."""
        return f"{self.metric or 'its own metric'} of filter {self.filter} ({self.output_type})"


def check_scores(task: SuiteTask, sources: Sequence[TaskSource]) -> None:
    """Check the metric and the filter of a suite's task, and that a group's subtasks share them.

    Args:
        task: the suite's task.
        sources: its YAML, or those of a group's subtasks.

    Raises:
        ConfigError: there is no such metric or filter, it is no score per document, or subtasks differ.
    """
    by_score: dict[_Score, list[str]] = {}
    if len(sources) > 1:  # a mixture is the plainer thing to tell than what one of its parts lacks
        for source in sources:
            by_score.setdefault(_score_of(task, source), []).append(source.name)
    if len(by_score) > 1:
        told = "; ".join(f"{names[0]} has {score}" for score, names in list(by_score.items())[:2])
        raise ConfigError(
            f"its subtasks are scored differently: {told}", where=task.task, hint=_instead(task)
        )
    for source in sources:
        _check(task, source)


def _score_of(task: SuiteTask, source: TaskSource) -> _Score:
    config = source.config
    metrics = [one.get("metric") for one in config.get("metric_list") or [] if isinstance(one, dict)]
    filters = [str(one.get("name")) for one in config.get("filter_list") or [] if isinstance(one, dict)]
    metric, chosen = task.metric, task.filter or next(iter(filters), "none")
    if metrics and (metric is None or metric not in metrics):
        metric = None if isinstance(metrics[0], Function) else str(metrics[0])
    if filters and chosen not in filters:
        chosen = filters[0]
    return _Score(str(config.get("output_type", "generate_until")), metric, chosen)


def _instead(task: SuiteTask) -> str:
    """The suite that holds most of a group's members, each judged by itself."""
    group = task_sources.group_of(task) or {}
    names = {one if isinstance(one, str) else one.get("task") for one in group.get("task", [])}
    held = {path.stem: names & _names(load_yaml(path, Suite)) for path in task_sources.SUITES.glob("*.yaml")}
    best = max(held, key=lambda name: len(held[name]), default=None)
    if best is None or len(held[best]) < 2:
        return "Each is a task by itself: list those that matter in a file of configs/suites."
    return f"Each is a task by itself: the suite '{best}' has them."


def _names(suite: Suite) -> set[str]:
    return {task.task for task in suite.tasks}


def _check(task: SuiteTask, source: TaskSource) -> None:
    """Check the metric and the filter as far as the YAML alone tells."""
    config, where = source.config, str(source.path)
    if config.get("output_type") == "loglikelihood_rolling":
        hint = "Choose one that scores each document, such as acc or exact_match."
        raise ConfigError("its perplexity is not a score per document", where=where, hint=hint)
    metrics = {one.get("metric"): one for one in config.get("metric_list") or [] if isinstance(one, dict)}
    named = next(iter(metrics), None) if task.metric is None else task.metric
    computed = any(isinstance(metric, Function) for metric in metrics)
    if metrics and not computed and named not in metrics:
        raise ConfigError(
            f"has no metric '{named}'", where=where, hint=f"It has: {', '.join(map(str, metrics))}."
        )
    if named in metrics and metrics[named].get("higher_is_better") is False:
        hint = "A margin needs a score that is better when it is higher."
        raise ConfigError(f"metric '{named}' is better when it is lower", where=where, hint=hint)
    filters = [one.get("name") for one in config.get("filter_list") or [] if isinstance(one, dict)]
    if task.filter is not None and filters and task.filter not in filters:
        hint = f"It has: {', '.join(map(str, filters))}."
        raise ConfigError(f"has no filter '{task.filter}'", where=where, hint=hint)
