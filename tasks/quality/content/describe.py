"""Say what a suite's tasks ask before any engine starts: lm-eval reads them in a process of its own."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from quantgate.bundles.staging import write_json
from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.errors import RunError
from quantgate.model.home import ROOT, Home
from quantgate.model.records import TaskContent
from quantgate.model.words import counted
from quantgate.model.yaml_file import Strict, fingerprint_of
from tasks.engine.process import run_tied
from tasks.progress import Reporter
from tasks.quality.evaluate import SPEC, worker_environment

_READ_AS = 2
"""Changes with how a content is computed, so that what a home holds of before is read anew."""


class Reading(Strict):
    """The tasks that one process reads; as JSON."""

    tasks: tuple[SuiteTask, ...]
    chat_template: bool


class Described(Strict):
    """A task as it was read, or why it can't be."""

    content: TaskContent | None = None
    failure: str = Field(default="", description="One line; empty where it was read.")


def describe_suite(
    suite: Suite, content: Mapping[str, Any], home: Home, report: Reporter, *, chat_template: bool
) -> dict[str, TaskContent]:
    """Read what each task of a suite asks; what was read before is kept in the home.

    A task that can't be read is reported and left out: whoever evaluates it says what is wrong.

    Args:
        suite: the tasks.
        content: the suite's (`suite_content`): with it a task's content may change.
        home: where readings are kept.
        report: gets a line about each task that can't be read, or that holds copies.
        chat_template: whether prompts go through one.

    Returns:
        By the task's name.
    """
    kept = {
        task.task: home.path
        / "task-contents"
        / f"{_key(task_content, content, chat_template=chat_template)}.json"
        for task, task_content in zip(suite.tasks, content["tasks"], strict=True)
    }
    described = {name: reading for name, file in kept.items() if (reading := _kept(file))}
    unread = [task for task in suite.tasks if task.task not in described]
    for task, read in _read(unread, suite, home, chat_template=chat_template):
        if read.content is None:
            report.line(f"validate: what {task.task} asks is not known before it is measured: {read.failure}")
            continue
        described[task.task] = read.content
        kept[task.task].parent.mkdir(parents=True, exist_ok=True)
        write_json(kept[task.task], read.content.model_dump(mode="json"))
    described = {task.task: described[task.task] for task in suite.tasks if task.task in described}
    for name, reading in described.items():
        if reading.copies:
            copies = counted(reading.copies, "document")
            report.line(
                f"validate: {name}: {copies} left out, equal to others but for case, blanks or punctuation"
            )
        if reading.near_copies:
            share = 100 * reading.near_copies / reading.documents
            counts = (
                f"; {reading.near_clusters} with the same answer are judged as clusters"
                if reading.near_clusters
                else "; they count as documents of their own"
            )
            near = counted(reading.near_copies, "document")
            report.line(f"validate: {name}: {near} ({share:.2g} %) nearly equal to another{counts}")
    return described


def _key(task_content: Mapping[str, Any], content: Mapping[str, Any], *, chat_template: bool) -> str:
    """Return a hash of everything that decides a reading."""
    return fingerprint_of(
        {
            "task": task_content,
            "lm_eval": content["lm_eval"],
            "chat_template": chat_template,
            "read_as": _READ_AS,
        }
    )


def _kept(file: Path) -> TaskContent | None:
    """Return what a home holds of a task; None where that is nothing, or of another version."""
    try:
        return TaskContent.model_validate_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _read(
    tasks: Sequence[SuiteTask], suite: Suite, home: Home, *, chat_template: bool
) -> Iterator[tuple[SuiteTask, Described]]:
    """Read tasks, those of one environment in one process: a hub's data need its token, and local data never do."""
    if not tasks:
        return
    folder = home.path / "task-contents"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".reading-", dir=folder) as made:
        work = Path(made)
        groups: dict[tuple[tuple[str, str], ...], list[SuiteTask]] = {}
        for task in tasks:
            environment = worker_environment(task, work, runs_other_code=task.run_generated_code)
            groups.setdefault(tuple(sorted(environment.items())), []).append(task)
        for number, (variables, together) in enumerate(groups.items()):
            group_folder = work / str(number)
            group_folder.mkdir()
            reading = Reading(tasks=tuple(together), chat_template=chat_template)
            (group_folder / SPEC).write_text(reading.model_dump_json(), encoding="utf-8")
            failure = _run(
                group_folder, dict(variables), home.logs / "lm-eval-contents.log", suite.task_timeout_s
            )
            for index, task in enumerate(together):
                file = group_folder / f"{index}.json"
                if file.exists():
                    yield task, Described.model_validate_json(file.read_text(encoding="utf-8"))
                else:
                    yield task, Described(failure=failure)


def _run(group_folder: Path, environment: dict[str, str], log: Path, timeout_s: float) -> str:
    """Run the process that reads tasks; returns why it failed, empty if it did not."""
    try:
        run_tied(
            [sys.executable, "-m", "tasks.quality.content.reader", str(group_folder / SPEC)],
            what="lm-eval's tasks",
            log=log,
            environment=environment,
            timeout_s=timeout_s,
            cwd=ROOT,
            poll_s=0.2,
        )
    except RunError as error:
        return " ".join(str(error).split())
    return ""
