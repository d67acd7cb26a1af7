"""Quality: a suite's tasks, evaluated with lm-eval against the running engine, one process a task."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field

from quantgate.bundles.manifest import TaskResult
from quantgate.bundles.staging import RESULT
from quantgate.model.config.suites import SuiteTask
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import Strict
from tasks.engine.process import PROXIES, OutOfTimeError, await_end, child_environment, run_tied
from tasks.quality.sources import sources_of

SPEC, PROGRESS, FAILURE = "spec.json", "progress.json", "failure.json"
"""Files between this module and the worker, and the record that a finished task leaves."""

STOPPED_ANSWERING = "the engine stopped answering"
"""How the worker's reason begins where connections broke."""


class Evaluation(Strict):
    """What the worker is to do: one task against one engine. It holds no secret."""

    task: SuiteTask
    start: int = Field(default=0, ge=0, description="First position in the documents' order that is asked.")
    end: int | None = Field(
        default=None, ge=1, description="Position after the last; all there are if empty."
    )
    completions_url: str
    models_url: str
    served_model: str
    tokenizer: str = Field(description="Folder of the checkpoint.")
    engine_start_id: str
    request_timeout_s: float
    chat_template: bool | str = Field(
        default=False,
        description="Whether prompts go through the tokenizer's chat template, or through this one.",
    )
    trust_remote_code: bool = Field(
        default=False, description="Whether the tokenizer may run code of its own."
    )
    num_concurrent: int = Field(
        default=8,
        ge=2,
        description="Requests under way at once; one alone goes another way in lm-eval, which loses how it ended.",
    )
    batch_size: int = Field(default=32, description="Prompts in a request.")


def evaluate(  # noqa: PLR0913 - the parts of one call, each by name
    task: SuiteTask,
    *,
    start: int = 0,
    end: int | None = None,
    base_url: str,
    api_key: str,
    served_model: str,
    checkpoint_path: Path | str,
    engine_start_id: str,
    out_dir: Path,
    log: Path,
    timeout_s: float,
    on_progress: Callable[[int, int | None], None],
    check_alive: Callable[[], None] = lambda: None,
    engine_words: Callable[[], str] = lambda: "",
    chat_template: bool | str = False,
    trust_remote_code: bool = False,
) -> TaskResult:
    """Evaluate one task, or some of its documents, against the running engine.

    Args:
        task: the task.
        start: first position asked, in the order of ``quantgate.judge.document_order``.
        end: position after the last; all there are if None.
        base_url: the server's root, e.g. http://127.0.0.1:8000.
        api_key: goes to the worker by environment variable.
        served_model: the model's name at the server.
        checkpoint_path: folder with the tokenizer that the engine uses.
        engine_start_id: the engine start that rows name.
        out_dir: appears whole, with samples.parquet, prompts.parquet and result.json; what was there is
            replaced.
        log: receives the worker's output.
        timeout_s: seconds until the evaluation is stopped.
        on_progress: told of requests answered, and of all there are once that is known.
        check_alive: raises with the engine's own last words if the engine has ended.
        engine_words: the engine's own last words, for a task that runs out of time.
        chat_template: whether prompts go through the tokenizer's chat template; a text is one in its place.
        trust_remote_code: whether the tokenizer may run code of its own.

    Returns:
        The task's record.

    Raises:
        ConfigError: the task can't be evaluated as it is.
        RunError: the engine or the worker failed, or time ran out; nothing is left in ``out_dir``.
    """
    root = base_url.rstrip("/").removesuffix("/v1")
    spec = Evaluation(
        task=task,
        start=start,
        end=end,
        completions_url=f"{root}/v1/completions",
        models_url=f"{root}/v1/models",
        served_model=served_model,
        tokenizer=str(checkpoint_path),
        engine_start_id=engine_start_id,
        request_timeout_s=timeout_s,
        chat_template=chat_template,
        trust_remote_code=trust_remote_code,
    )
    work = out_dir.with_name(f".{out_dir.name}.work")
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(out_dir, ignore_errors=True)
    work.mkdir(parents=True)

    def poll() -> None:
        check_alive()
        _tell(work / PROGRESS, on_progress)

    try:
        (work / SPEC).write_text(spec.model_dump_json(), encoding="utf-8")
        try:
            run_tied(
                [sys.executable, "-m", "tasks.quality.worker", str(work / SPEC), str(out_dir)],
                what=f"lm-eval task {task.task}",
                log=log,
                environment=_environment(api_key, task, work, trust_remote_code=trust_remote_code),
                timeout_s=timeout_s,
                cwd=ROOT,
                poll=poll,
                poll_s=0.2,
            )
        except OutOfTimeError as error:
            check_alive()
            raise RunError(
                f"{error.what}; the engine: {engine_words()}", where=error.where, hint=error.hint
            ) from None
        except RunError:
            if STOPPED_ANSWERING in _told(work / FAILURE).get("what", ""):
                await_end(check_alive)
            check_alive()
            _raise_failure(work / FAILURE, task, log)
            raise
        _tell(work / PROGRESS, on_progress)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return TaskResult.model_validate_json((out_dir / RESULT).read_text(encoding="utf-8"))


def _environment(api_key: str, task: SuiteTask, work: Path, *, trust_remote_code: bool) -> dict[str, str]:
    """The worker's environment: no cache shared between checkpoints, no network for local data.

    The hub's token goes to it for data of a hub alone, and never where a tokenizer's own code, or what the model
    writes, runs beside it.
    """
    here = all(source.data for source in sources_of(task))
    foreign = trust_remote_code or task.run_generated_code
    local = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(work / "datasets")} if here else {}
    fetching = () if here else PROXIES if foreign else (*PROXIES, "HF_TOKEN")
    return {
        **child_environment(keep=fetching),
        "OPENAI_API_KEY": api_key,
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_MININTERVAL": "30",
        **({"HF_ALLOW_CODE_EVAL": "1"} if task.run_generated_code else {}),
        **local,
    }


def _tell(path: Path, on_progress: Callable[[int, int | None], None]) -> None:
    """Pass the worker's progress on, once it has said anything."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    on_progress(told["done"], told["total"])


def _told(failure: Path) -> dict[str, Any]:
    """What the worker gave as its reason, if it lived to give one."""
    return json.loads(failure.read_text(encoding="utf-8")) if failure.exists() else {}


def _raise_failure(path: Path, task: SuiteTask, log: Path) -> None:
    """Raise what the worker gave as its reason, if it lived to give one."""
    told = _told(path)
    if not told:
        return
    kind = ConfigError if told["exit_status"] == ConfigError.exit_status else RunError
    raise kind(
        told["what"], where=told["where"] or task.task, hint=told["hint"] or f"Its log: {log}"
    ) from None
