"""Evaluate one lm-eval task against the running engine: ``python -m tasks.quality.worker SPEC.json OUT_DIR``.

A process of its own, so that a time limit can stop it and its memory goes with it. The key of the engine
is read from OPENAI_API_KEY. Beside the spec it writes progress.json and, if it fails, failure.json.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import random
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pyarrow as pa
import requests
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import _import_fun_from_str, load_yaml

from quantgate.bundles import batches
from quantgate.bundles.manifest import TaskResult
from quantgate.bundles.schema import PROMPTS, SAMPLES
from quantgate.model.errors import ConfigError, QuantgateError, RunError
from tasks.quality.client import EngineClient, Progress, context_tokens_of
from tasks.quality.documents import Placed, ask_only, placed_in
from tasks.quality.evaluate import FAILURE, PROGRESS, STOPPED_ANSWERING, Evaluation
from tasks.quality.rows import prompt_rows, sample_rows
from tasks.quality.scoring import leave_thinking_out, score_each
from tasks.quality.sources import group_of, sources_of
from tasks.quality.task_yaml import FILE_BUILDERS, Function, TaskSource

RANDOM_SEED, NUMPY_SEED = 0, 1234
"""lm-eval's own, which it sets too late for a task that is loaded before: some shuffle choices as they load."""


def load_tasks(spec: Evaluation, manager: TaskManager) -> dict[str, Any]:
    """Load lm-eval's task by name; of a group all its subtasks.

    Data files are found wherever we are, and it is the same in every process.
    """
    loaded: dict[str, Any] = {}
    for source in sources_of(spec.task):
        _seed()
        try:
            loaded |= manager.load([_settings(source)])["tasks"]
        except IndexError as error:  # lm-eval looks at the first document
            if "size 0" not in str(error):
                raise
            raise ConfigError("holds no documents", where=str(source.path), hint="Give it some.") from None
    return loaded


def _seed() -> None:
    random.seed(RANDOM_SEED)
    np.random.seed(NUMPY_SEED)


def _settings(source: TaskSource) -> dict[str, Any]:
    """Return a task's settings for lm-eval, with functions imported and data files by absolute path."""
    config = load_yaml(source.path)
    for key, value in source.overrides.items():
        config[key] = _import_fun_from_str(value) if isinstance(value, Function) else value
    if source.data is not None and config.get("dataset_path") in FILE_BUILDERS:
        files = {split: [str(file) for file in paths] for split, paths in source.data.items()}
        config["dataset_kwargs"] = {**config["dataset_kwargs"], "data_files": files}
    return dict(config)


def _documents(task: Any) -> list[Any]:
    """Return every document of a task; some tasks shuffle each time they are read."""
    _seed()
    return list(task.eval_docs)


def choose_score(spec: Evaluation, tasks: Iterable[Any]) -> tuple[str, str]:
    """Return the metric and the filter that are kept: the suite's, else the task's first.

    Raises:
        ConfigError: there is no such filter, the metric is better when it is lower, or a group's subtasks differ.
    """
    chosen = {_score_of(spec, task) for task in tasks}
    if len(chosen) > 1:
        differing = " and ".join(f"{metric} of filter {name}" for metric, name in sorted(chosen)[:2])
        hint = "List its subtasks in a file of configs/suites."
        raise ConfigError(
            f"its subtasks are scored differently: {differing}", where=spec.task.task, hint=hint
        )
    return chosen.pop()


def _score_of(spec: Evaluation, task: Any) -> tuple[str, str]:
    better = task.higher_is_better()
    metric = spec.task.metric or next(iter(better), "")
    if better.get(metric) is False:
        hint = "A margin needs a score that is better when it is higher."
        raise ConfigError(f"metric '{metric}' is better when it is lower", hint=hint)
    filters = [ensemble.name for ensemble in task._filters]
    chosen = spec.task.filter or filters[0]
    if chosen not in filters:
        raise ConfigError(f"has no filter '{chosen}'", hint=f"It has: {', '.join(filters)}.")
    return metric, chosen


def _prepare(
    spec: Evaluation, tasks: Mapping[str, Any], documents: Mapping[str, Sequence[Any]], chosen: str
) -> dict[str, dict[int, Placed]]:
    """Make lm-eval's tasks ask the documents of the spec and score them as it says.

    Args:
        spec: what is evaluated.
        tasks: lm-eval's tasks by name; changed in place.
        documents: every document of each task.
        chosen: the filter whose answers are scored.

    Returns:
        The documents that are asked, by task and by their number in it.
    """
    asked = placed_in(
        spec.task.task,
        documents,
        spec.start,
        spec.end,
        grouped=group_of(spec.task) is not None,
        fixed_subjects=spec.task.fixed_subjects,
    )
    for name, placed in asked.items():
        ask_only(tasks[name], documents[name], list(placed))
        score_each(tasks[name], chosen)
        if spec.task.thinking_end is not None:
            leave_thinking_out(tasks[name], spec.task.thinking_end)
    return asked


def run(spec: Evaluation, out_dir: Path, progress: Progress, api_key: str) -> None:
    """Evaluate, and let ``out_dir`` appear whole."""
    started = time.monotonic()
    context_tokens = context_tokens_of(spec, api_key)
    manager = TaskManager(include_defaults=False)  # lm-eval's own index would take ten seconds to build
    loaded = load_tasks(spec, manager)
    metric, chosen = choose_score(spec, loaded.values())
    engine = EngineClient(spec, context_tokens, progress, api_key)
    documents = {name: _documents(task) for name, task in loaded.items()}
    asked = _prepare(spec, loaded, documents, chosen)
    evaluated = simple_evaluate(
        model=engine,
        tasks=[loaded[name] for name in asked],
        task_manager=manager,
        bootstrap_iters=0,
        confirm_run_unsafe_code=spec.task.run_generated_code,
        log_samples=True,
        apply_chat_template=spec.chat_template is not None,
        fewshot_as_multiturn=spec.chat_template is not None,
    )
    rows, samples = [], []
    for name, placed in asked.items():
        task = loaded[name]
        own = [row for row in evaluated["samples"][name] if row["filter"] == chosen]
        samples += own
        rows += sample_rows(
            own,
            spec.task,
            placed,
            metric=metric,
            choices_of=task.doc_to_choice if task.OUTPUT_TYPE == "multiple_choice" else None,
            generations=engine.generations[name],
            engine_start_id=spec.engine.engine_start_id,
        )
    result = TaskResult(
        task=spec.task.task,
        family=spec.task.family,
        metric=metric,
        filter=chosen,
        version=", ".join(sorted({str(task.VERSION) for task in loaded.values()})),
        documents=len(rows),
        mean_score=_mean(spec, rows),
        output_type=next(iter(loaded.values())).OUTPUT_TYPE,
        duration_s=time.monotonic() - started,
        engine_start_id=spec.engine.engine_start_id,
        truncated_prompts=engine.truncated,
        documents_available=sum(map(len, documents.values())),
    )
    tables = (
        pa.Table.from_pylist(rows, schema=SAMPLES),
        pa.Table.from_pylist(prompt_rows(samples), schema=PROMPTS),
    )
    batches.write_part(out_dir, result, *tables)


def _mean(spec: Evaluation, rows: list[dict[str, Any]]) -> float:
    """Return the mean score; 0 if one batch of several has none, since joining batches computes it again."""
    scores = [row["score"] for row in rows]
    batch = spec.start > 0 or spec.end is not None
    return 0.0 if batch and all(map(math.isnan, scores)) else batches.mean_score(scores)


def describe(error: BaseException) -> QuantgateError:
    """Turn an error into one line with a hint, for the process that started the evaluation."""
    if isinstance(error, QuantgateError):
        return error
    if isinstance(error, asyncio.TimeoutError | requests.Timeout):
        return RunError("the engine did not answer a request in time", hint="See the engine's log.")
    if isinstance(error, aiohttp.ClientConnectionError | requests.ConnectionError):
        return RunError(f"{STOPPED_ANSWERING}: {_reason(error)}", hint="See the engine's log.")
    return RunError(f"lm-eval failed: {type(error).__name__}: {_short(error)}")


def _reason(error: BaseException) -> str:
    """Return the system's reason at the bottom of a connection's error."""
    below: BaseException | None = error
    while below is not None:
        number = getattr(below, "errno", None)
        if isinstance(number, int):
            return os.strerror(number)
        below = below.__cause__ or below.__context__
    return _short(error)


def _short(error: BaseException) -> str:
    """Return an error's message on one line, only its end if it is long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"…{text[-200:]}"


def main(arguments: list[str]) -> int:
    """Run as a script; returns the exit status."""
    spec_path, out_dir = Path(arguments[0]), Path(arguments[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    # Once a request has failed for good, lm-eval leaves the others' failures unread: one reason is enough.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        spec = Evaluation.model_validate_json(spec_path.read_text(encoding="utf-8"))
        key = os.environ.pop("OPENAI_API_KEY", "")  # a task's own code, and what it runs, has no use for it
        run(spec, out_dir, Progress(spec_path.with_name(PROGRESS)), key)
    except Exception as error:  # whatever it is, its reason must reach the asking process
        traceback.print_exc()
        reason = describe(error)
        failure = {
            "what": reason.what,
            "where": reason.where,
            "hint": reason.hint,
            "exit_status": reason.exit_status,
        }
        spec_path.with_name(FAILURE).write_text(json.dumps(failure), encoding="utf-8")
        return reason.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
