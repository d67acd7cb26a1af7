"""Read what lm-eval's tasks ask: ``python -m tasks.quality.content.reader SPEC.json``.

Beside the spec it writes 0.json, 1.json …, one for each task as soon as it is read.
"""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path

from lm_eval.tasks import TaskManager

from quantgate.bundles.staging import write_json
from quantgate.model.config.suites import SuiteTask
from quantgate.model.records import TaskContent
from tasks.quality.content.describe import Described, Reading
from tasks.quality.content.task import task_content
from tasks.quality.worker import choose_score, describe, load_tasks, read_parts


def read_task(task: SuiteTask, manager: TaskManager, *, chat_template: bool) -> TaskContent:
    """Load a task with its documents and return what it asks."""
    loaded = load_tasks(task, manager)
    scored = choose_score(task, loaded.values())
    return task_content(task, read_parts(loaded).values(), scored, chat_template=chat_template)


def main(arguments: list[str]) -> int:
    """Run as a script; returns the exit status."""
    spec = Path(arguments[0])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    reading = Reading.model_validate_json(spec.read_text(encoding="utf-8"))
    manager = TaskManager(include_defaults=False)
    for number, task in enumerate(reading.tasks):
        try:
            described = Described(content=read_task(task, manager, chat_template=reading.chat_template))
        except Exception as error:  # whatever it is, the other tasks can be read
            traceback.print_exc()
            described = Described(failure=str(describe(error)))
        write_json(spec.with_name(f"{number}.json"), described.model_dump(mode="json"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
