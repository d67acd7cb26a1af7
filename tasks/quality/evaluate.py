"""Evaluate a suite's tasks with lm-eval against the running engine, one process a task."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from quantgate.bundles.manifest import TaskResult
from quantgate.bundles.staging import REMOVE, RESULT
from quantgate.model.bounded import parse_json, read_bytes
from quantgate.model.config.suites import SuiteTask
from quantgate.model.errors import ConfigError, QuantgateError, RunError
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import Strict, load_json
from tasks.engine.endpoint import EngineEndpoint
from tasks.engine.process import PROXIES, OutOfTimeError, await_end, child_environment, run_tied
from tasks.quality.sources import sources_of

SPEC, PROGRESS, FAILURE = "spec.json", "progress.json", "failure.json"
"""Files between this module and the worker, and the record that a finished task leaves."""

STOPPED_ANSWERING = "the engine stopped answering"
"""Beginning of the worker's reason if connections broke."""


class ChatTemplate(Strict):
    """The chat template that prompts go through."""

    text: str | None = Field(default=None, description="Its text; the tokenizer's own template if empty.")


class Evaluation(Strict):
    """One task, or some of its documents, to be evaluated against one engine; as JSON it holds no secret."""

    task: SuiteTask
    engine: EngineEndpoint
    start: int = Field(default=0, ge=0, description="First position in the documents' order that is asked.")
    end: int | None = Field(
        default=None, ge=1, description="Position after the last; all there are if empty."
    )
    seed: int = Field(default=0, description="The policy's, of the documents' order.")
    tokenizer: str = Field(description="Folder of the checkpoint, with the tokenizer that the engine uses.")
    chat_template: ChatTemplate | None = Field(default=None, description="Prompts are plain text if empty.")
    trust_remote_code: bool = Field(default=False, description="The tokenizer may run code of its own.")
    timeout_s: float = Field(description="Seconds until the evaluation, or any one request, is stopped.")
    num_concurrent: int = Field(
        default=8,
        ge=2,
        description="Requests under way at once; one alone goes another way in lm-eval, which loses how it ended.",
    )
    batch_size: int = Field(default=32, description="Prompts in a request.")


def evaluate_task(
    evaluation: Evaluation, *, out_dir: Path, log: Path, on_progress: Callable[[int, int | None], None]
) -> TaskResult:
    """Evaluate one task, or some of its documents, against the running engine.

    Args:
        evaluation: what is evaluated; the engine's key goes to the worker by environment variable.
        out_dir: appears whole, with samples.parquet, prompts.parquet and result.json; what was there is
            replaced.
        log: receives the worker's output.
        on_progress: receives the number of requests answered, and of all there are once that is known.

    Returns:
        The task's record.

    Raises:
        ConfigError: the task can't be evaluated as it is.
        RunError: the engine or the worker failed, or time ran out; nothing is left in ``out_dir``.
    """
    task, engine = evaluation.task, evaluation.engine
    work = out_dir.with_name(f".{out_dir.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(out_dir, ignore_errors=True)
    work.mkdir(parents=True)

    def poll() -> None:
        engine.check_alive()
        _pass_on(work / PROGRESS, on_progress)

    try:
        (work / SPEC).write_text(evaluation.model_dump_json(), encoding="utf-8")
        try:
            run_tied(
                [sys.executable, "-m", "tasks.quality.worker", str(work / SPEC), str(out_dir)],
                what=f"lm-eval task {task.task}",
                log=log,
                environment=_environment(evaluation, work),
                timeout_s=evaluation.timeout_s,
                cwd=ROOT,
                poll=poll,
                poll_s=0.2,
            )
        except OutOfTimeError as error:
            engine.check_alive()
            what = f"{error.what}; the engine: {engine.last_words()}"
            raise RunError(what, where=error.where, hint=error.hint) from None
        except RunError:
            failure = _failure(work / FAILURE, task, log)
            if failure is not None and STOPPED_ANSWERING in failure.what:
                await_end(engine.check_alive)
            engine.check_alive()
            if failure is not None:
                raise failure from None
            raise
        _pass_on(work / PROGRESS, on_progress)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return load_json(out_dir / RESULT, TaskResult, REMOVE)


def _environment(evaluation: Evaluation, work: Path) -> dict[str, str]:
    """Return the worker's environment, with the engine's key."""
    environment = worker_environment(
        evaluation.task,
        work,
        runs_other_code=evaluation.trust_remote_code or evaluation.task.run_generated_code,
    )
    return environment | {"OPENAI_API_KEY": evaluation.engine.api_key}


def worker_environment(task: SuiteTask, work: Path, *, runs_other_code: bool) -> dict[str, str]:
    """Return the environment of lm-eval: no cache shared between checkpoints, no network for local data.

    The hub's token goes to it for data of a hub alone, and never where a tokenizer's own code, or what the model
    writes, runs beside it.

    Args:
        task: that is loaded.
        work: folder of the process's own.
        runs_other_code: whether code runs there that is neither the task's nor ours.
    """
    has_local_data = all(source.data for source in sources_of(task))
    local = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(work / "datasets")} if has_local_data else {}
    fetching = () if has_local_data else PROXIES if runs_other_code else (*PROXIES, "HF_TOKEN")
    return {
        **child_environment(keep=fetching),
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_MININTERVAL": "30",
        **({"HF_ALLOW_CODE_EVAL": "1"} if task.run_generated_code else {}),
        **local,
    }


def _pass_on(progress: Path, on_progress: Callable[[int, int | None], None]) -> None:
    """Pass the worker's progress on, once there is any."""
    try:
        requests = parse_json(read_bytes(progress))
    except FileNotFoundError:
        return
    on_progress(requests["done"], requests["total"])


def _failure(path: Path, task: SuiteTask, log: Path) -> QuantgateError | None:
    """Return the failure that the worker wrote down, as an error of its kind; None if it was ended before."""
    if not path.exists():
        return None
    failure = parse_json(read_bytes(path))
    kind = ConfigError if failure["exit_status"] == ConfigError.exit_status else RunError
    where, hint = failure["where"] or task.task, failure["hint"] or f"Its log: {log}"
    return kind(failure["what"], where=where, hint=hint)
