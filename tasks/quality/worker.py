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
from functools import lru_cache
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pyarrow as pa
import requests
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import _import_fun_from_str, load_yaml
from lm_eval.utils import env

from quantgate.bundles import batches
from quantgate.bundles.manifest import TaskResult
from quantgate.bundles.schema import PROMPTS, SAMPLES
from quantgate.model.config.suites import SuiteTask
from quantgate.model.errors import ConfigError, QuantgateError, RunError
from tasks.quality.client import EngineClient, Progress, context_tokens_of
from tasks.quality.content.task import Part, Scored, task_content
from tasks.quality.documents import Placed, ask_only, placed_in
from tasks.quality.evaluate import FAILURE, PROGRESS, STOPPED_ANSWERING, Evaluation
from tasks.quality.rows import prompt_rows, sample_rows
from tasks.quality.scoring import leave_thinking_out, score_each
from tasks.quality.sources import group_of, sources_of
from tasks.quality.task_yaml import FILE_BUILDERS, Function, TaskSource

RANDOM_SEED, NUMPY_SEED = 0, 1234
"""lm-eval's own, which it sets too late for a task that is loaded before: some shuffle choices as they load."""

env.from_string = lru_cache(maxsize=256)(
    env.from_string
)  # lm-eval compiles a template anew for each document


def load_tasks(task: SuiteTask, manager: TaskManager) -> dict[str, Any]:
    """Load lm-eval's task by name; of a group all its subtasks.

    Data files are found wherever we are, and it is the same in every process.
    """
    loaded: dict[str, Any] = {}
    for source in sources_of(task):
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


def read_parts(loaded: Mapping[str, Any]) -> dict[str, Part]:
    """Return each of lm-eval's tasks with every document of it."""
    return {name: Part.of(task, _documents(task)) for name, task in loaded.items()}


def _documents(task: Any) -> list[Any]:
    """Return every document of a task; some tasks shuffle each time they are read."""
    _seed()
    return list(task.eval_docs)


def choose_score(task: SuiteTask, loaded: Iterable[Any]) -> Scored:
    """Return the metric and the filter that are kept: the suite's, else the task's first.

    Raises:
        ConfigError: there is no such filter, the metric is better when it is lower, or a group's subtasks differ.
    """
    chosen = {_score_of(task, variant) for variant in loaded}
    if len(chosen) > 1:
        differing = " and ".join(f"{metric} of filter {name}" for metric, name in sorted(chosen)[:2])
        hint = "List its subtasks in a file of configs/suites."
        raise ConfigError(f"its subtasks are scored differently: {differing}", where=task.task, hint=hint)
    return chosen.pop()


def _score_of(task: SuiteTask, loaded: Any) -> Scored:
    better = loaded.higher_is_better()
    metric = task.metric or next(iter(better), "")
    if better.get(metric) is False:
        hint = "A margin needs a score that is better when it is higher."
        raise ConfigError(f"metric '{metric}' is better when it is lower", hint=hint)
    filters = [ensemble.name for ensemble in loaded._filters]
    chosen = task.filter or filters[0]
    if chosen not in filters:
        raise ConfigError(f"has no filter '{chosen}'", hint=f"It has: {', '.join(filters)}.")
    return Scored(metric, chosen)


def _prepare(spec: Evaluation, parts: Mapping[str, Part], chosen: str) -> dict[str, dict[int, Placed]]:
    """Make lm-eval's tasks ask the documents of the spec and score them as it says.

    Args:
        spec: what is evaluated.
        parts: lm-eval's tasks by name, with every document; the tasks are changed in place.
        chosen: the filter whose answers are scored.

    Returns:
        The documents that are asked, by task and by their number in it.
    """
    asked = placed_in(
        parts,
        spec.start,
        spec.end,
        seed=spec.seed,
        grouped=group_of(spec.task) is not None,
        fixed_subjects=spec.task.fixed_subjects,
    )
    for name, placed in asked.items():
        task = parts[name].task
        ask_only(task, parts[name].documents, list(placed))
        score_each(task, chosen)
        if spec.task.thinking_end is not None:
            leave_thinking_out(task, spec.task.thinking_end)
    return asked


def run(spec: Evaluation, out_dir: Path, progress: Progress, api_key: str) -> None:
    """Evaluate, and let ``out_dir`` appear whole."""
    started = time.monotonic()
    context_tokens = context_tokens_of(spec, api_key)
    manager = TaskManager(include_defaults=False)  # lm-eval's own index would take ten seconds to build
    loaded = load_tasks(spec.task, manager)
    scored = choose_score(spec.task, loaded.values())
    engine = EngineClient(spec, context_tokens, progress, api_key)
    parts = read_parts(loaded)
    has_template = spec.chat_template is not None
    content = task_content(spec.task, parts.values(), scored, chat_template=has_template)
    asked = _prepare(spec, parts, scored.filter)
    evaluated = simple_evaluate(
        model=engine,
        tasks=[loaded[name] for name in asked],
        task_manager=manager,
        bootstrap_iters=0,
        confirm_run_unsafe_code=spec.task.run_generated_code,
        log_samples=True,
        apply_chat_template=has_template,
        fewshot_as_multiturn=has_template,
    )
    rows, samples = _rows(spec, evaluated["samples"], parts, asked, scored, engine)
    result = TaskResult(
        task=spec.task.task,
        family=spec.task.family,
        metric=scored.metric,
        filter=scored.filter,
        version=", ".join(sorted({str(task.VERSION) for task in loaded.values()})),
        documents=len(rows),
        mean_score=_mean(spec, rows),
        output_type=next(iter(loaded.values())).OUTPUT_TYPE,
        duration_s=time.monotonic() - started,
        engine_start_id=spec.engine.engine_start_id,
        truncated_prompts=engine.truncated,
        documents_available=content.documents,
        content_sha256=content.content_sha256,
        copies=content.copies,
        floor=content.floor,
    )
    tables = (
        pa.Table.from_pylist(rows, schema=SAMPLES),
        pa.Table.from_pylist(prompt_rows(samples), schema=PROMPTS),
    )
    batches.write_part(out_dir, result, *tables)


def _rows(
    spec: Evaluation,
    logged: Mapping[str, Sequence[Mapping[str, Any]]],
    parts: Mapping[str, Part],
    asked: Mapping[str, Mapping[int, Placed]],
    scored: Scored,
    engine: EngineClient,
) -> tuple[list[dict[str, Any]], list[Mapping[str, Any]]]:
    """Return the rows of the documents that were asked, and lm-eval's samples that they were made of."""
    rows, samples = [], []
    for name, placed in asked.items():
        task = parts[name].task
        own = [sample for sample in logged[name] if sample["filter"] == scored.filter]
        samples += own
        rows += sample_rows(
            own,
            spec.task,
            placed,
            metric=scored.metric,
            choices_of=task.doc_to_choice if task.OUTPUT_TYPE == "multiple_choice" else None,
            generations=engine.generations[name],
            engine_start_id=spec.engine.engine_start_id,
        )
    return rows, samples


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
