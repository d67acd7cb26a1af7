"""Quality: a suite's tasks, evaluated with lm-eval against the running engine, one process a task."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import Field

from quantgate.bundles.manifest import TaskResult
from quantgate.bundles.staging import RESULT
from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import Strict
from tasks.checkpoint.files import read_json
from tasks.engine.process import PROXIES, OutOfTimeError, await_end, child_environment, run_tied
from tasks.quality.scoring import check_scores
from tasks.quality.sources import group_of, sources_of
from tasks.quality.task_yaml import TaskSource, evaluated_split

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


def check_suite(suite: Suite) -> dict[str, int | None]:
    """Check a suite before any engine starts: names, settings, metrics, filters, documents.

    Args:
        suite: the tasks.

    Returns:
        Documents in each task's files, or as many as the suite says that a hub holds, up to the limit; None
        where neither tells. (A task's own functions may still leave some out.)

    Raises:
        ConfigError: the first task that can't be evaluated, with a hint.
    """
    documents: dict[str, int | None] = {}
    for task in suite.tasks:
        if task.task in documents:
            raise ConfigError(f"task '{task.task}' stands twice", where=suite.name, hint="Name it once.")
        sources = sources_of(task)
        check_scores(task, sources)
        counts = [_documents(source) for source in sources]
        count = task.documents if None in counts else sum(filter(None, counts))
        if count is not None and suite.limit is not None:
            count = min(count, suite.limit)
        documents[task.task] = count
    return documents


def clusters_of(task: SuiteTask) -> int | None:
    """Clusters of a task's documents: a group's subtasks, or as the suite says; None where neither or not clusters."""
    if task.fixed_subjects:
        return None
    return task.clusters if group_of(task) is None else len(sources_of(task))


def suite_content(suite: Suite, *, chat_template: bool = False) -> dict[str, Any]:
    """What a suite measures, for a run's fingerprint: it changes when a question or its scoring does.

    Args:
        suite: the tasks.
        chat_template: whether prompts go through the checkpoint's chat template (named only where they do).

    Returns:
        lm-eval's version, the limit and, for each task, its name, family, metric and filter with either
        the hash of its files (YAML, what it includes, functions, data) or its version in lm-eval.
    """
    tasks = []
    for task in suite.tasks:
        content = _content(task)
        tasks.append(task.model_dump(mode="json", exclude=_unmeasured(task)) | content)
    content = {"lm_eval": importlib.metadata.version("lm_eval"), "limit": suite.limit, "tasks": tasks}
    # Which documents a limit takes changed once, from the data set's order to the one they are asked in.
    drawn = {} if suite.limit is None else {"limit_of": "documents in the order they are asked"}
    return content | drawn | ({"chat_template": True} if chat_template else {})


def _unmeasured(task: SuiteTask) -> set[str]:
    """Keys of a suite's task that change no question; what came later counts only where it is set."""
    later = ("num_fewshot", "max_gen_toks", "thinking_end", "fixed_subjects")
    told = {"path", "documents", "clusters", "run_generated_code"}
    return {*told, *(name for name in later if getattr(task, name) is None or getattr(task, name) is False)}


def _content(task: SuiteTask) -> dict[str, Any]:
    """A task's version, with the hash of its files where they are not lm-eval's; of a group every subtask's."""
    group, sources = group_of(task), sources_of(task)
    content: dict[str, Any] = {"version": _version(sources[0].config if group is None else group)}
    if group is not None:
        content["subtasks"] = {source.name: _version(source.config) for source in sources}
    if task.path is not None:
        files = [file for source in sources for file in source.files]
        data = [file for source in sources for found in (source.data or {}).values() for file in found]
        content["sha256"] = _hash([*files, *data])
    return content


def check_chat_template(folder: Path, where: str) -> None:
    """Refuse a checkpoint without a chat template of its own, where prompts are to go through it.

    Args:
        folder: the checkpoint's folder.
        where: how the user named it.

    Raises:
        ConfigError: it has none.
    """
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return
    settings = folder / "tokenizer_config.json"
    if settings.is_file() and read_json(settings, where).get("chat_template"):
        return
    hint = "Leave it out (--no-chat-template), or give one: --engine-arg chat-template=FILE."
    raise ConfigError("the checkpoint has no chat template", where=where, hint=hint)


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


def _documents(source: TaskSource) -> int | None:
    """Documents of the split that is evaluated, where its files tell.

    Raises:
        ConfigError: there are none, the split isn't declared, or a line is not JSON.
    """
    where, config = str(source.path), source.config
    split = evaluated_split(config)
    if not split and "class" not in config:
        hint = "Say which split is evaluated: `test_split: test`."
        raise ConfigError("has no 'test_split'", where=where, hint=hint)
    if source.data is None:
        return None
    if split not in source.data:
        hint = f"`data_files` has: {', '.join(source.data)}."
        raise ConfigError(f"split '{split}' has no data files", where=where, hint=hint)
    counts = [_COUNTERS.get(file.suffix.lower(), _unknown)(file) for file in source.data[split]]
    if any(count is None for count in counts):
        return None
    total = sum(count or 0 for count in counts)
    if total == 0:
        files = ", ".join(str(file) for file in source.data[split])
        raise ConfigError("holds no documents", where=files or where, hint="Give it some.")
    return total


def _json_documents(path: Path) -> int:
    """Documents of a JSON file: a list, or an object a line."""
    with path.open(encoding="utf-8-sig") as file:
        count, lines = 0, dict[str, int]()
        for number, line in enumerate(file, 1):
            if count == 0 and line.lstrip().startswith("["):
                return len(json.loads(path.read_text(encoding="utf-8-sig")))
            if not line.strip():
                continue
            try:
                _check_id(json.loads(line), lines, f"{path}:{number}", number)
            except ValueError as error:
                hint = "Put one JSON object on each line."
                raise ConfigError(f"is not JSON: {error}", where=f"{path}:{number}", hint=hint) from None
            count += 1
    return count


def _check_id(document: Any, lines: dict[str, int], where: str, number: int) -> None:
    """Refuse an id that another document has: rows are paired by it."""
    given = document.get("id") if isinstance(document, dict) else None
    if given is not None and lines.setdefault(str(given), number) != number:
        hint = "Make it unique, or leave ids out."
        raise ConfigError(f"id '{given}' stands on line {lines[str(given)]} already", where=where, hint=hint)


def _parquet_documents(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows)


def _unknown(path: Path) -> int | None:
    """A format that is left to lm-eval; an empty file holds nothing in any."""
    return None if path.stat().st_size else 0


_COUNTERS: dict[str, Callable[[Path], int | None]] = {
    ".jsonl": _json_documents,
    ".json": _json_documents,
    ".parquet": _parquet_documents,
}


def _version(config: dict[str, Any]) -> str:
    """A task's or a group's own version, as its YAML gives it."""
    metadata = config.get("metadata")
    return str(metadata.get("version", "")) if isinstance(metadata, dict) else ""


def _hash(files: list[Path]) -> str:
    """SHA-256 over files' names and contents, wherever they lie."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\n".encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()
