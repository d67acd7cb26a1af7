"""Check a suite of tasks before any engine starts, and describe it for a run's fingerprint."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pyarrow.csv
import pyarrow.parquet as pq
from jinja2.sandbox import SandboxedEnvironment

from quantgate.model.bounded import DATA_BYTES, RefusedError, open_file, parse_json, read_text, reason
from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.errors import ConfigError
from quantgate.model.yaml_file import load_yaml
from tasks.checkpoint.files import read_json_if_any
from tasks.quality import sources
from tasks.quality.sources import group_of, sources_of
from tasks.quality.task_yaml import Function, TaskSource, evaluated_split


def check_suite(suite: Suite) -> dict[str, int | None]:
    """Check a suite before any engine starts: names, settings, metrics, filters, documents.

    Args:
        suite: the tasks.

    Returns:
        Documents in each task's files, or as many as the suite says that a hub holds, up to the limit; None
        if neither says. (A task's own functions may still leave some out.)

    Raises:
        ConfigError: the first task that can't be evaluated, with a hint.
    """
    documents: dict[str, int | None] = {}
    for task in suite.tasks:
        if task.task in documents:
            raise ConfigError(f"task '{task.task}' is listed twice", where=suite.name, hint="Name it once.")
        task_sources = sources_of(task)
        check_scores(task, task_sources)
        if task.path is not None:
            for source in task_sources:
                check_targets(source)
        counts = [_documents(source) for source in task_sources]
        count = task.documents if None in counts else sum(filter(None, counts))
        if count is not None and suite.limit is not None:
            count = min(count, suite.limit)
        documents[task.task] = count
    return documents


def clusters_of(task: SuiteTask) -> int | None:
    """Return a task's clusters: a group's subtasks, or as the suite says; None if there are no clusters."""
    if task.fixed_subjects:
        return None
    return task.clusters if group_of(task) is None else len(sources_of(task))


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
    if (read_json_if_any(folder / "tokenizer_config.json", where) or {}).get("chat_template"):
        return
    hint = "Leave it out (--no-chat-template), or give one: --engine-arg chat-template=FILE."
    raise ConfigError("the checkpoint has no chat template", where=where, hint=hint)


def suite_content(suite: Suite, *, chat_template: bool = False) -> dict[str, Any]:
    """Describe what a suite measures, for a run's fingerprint: it changes with each question and its scoring.

    Args:
        suite: the tasks.
        chat_template: True if prompts go through the checkpoint's chat template (in the content only if so).

    Returns:
        lm-eval's version, the limit and, for each task, its name, family, metric and filter with either
        the hash of its files (YAML, what it includes, functions, data) or its version in lm-eval.
    """
    tasks = []
    for task in suite.tasks:
        content = _content(task)
        tasks.append(task.model_dump(mode="json", exclude=_unmeasured(task)) | content)
    content = {"lm_eval": importlib.metadata.version("lm_eval"), "limit": suite.limit, "tasks": tasks}
    # Which documents a limit leaves changed twice: from the data set's order to one by the task's name, and to this.
    drawn = {} if suite.limit is None else {"limit_of": "documents in the order of their contents"}
    return content | drawn | ({"chat_template": True} if chat_template else {})


def _unmeasured(task: SuiteTask) -> set[str]:
    """Return keys of a suite's task that change no question; later keys count only if they are set."""
    later = ("num_fewshot", "max_gen_toks", "thinking_end", "fixed_subjects", "floor")
    facts = {"path", "documents", "clusters", "run_generated_code"}
    return {*facts, *(name for name in later if getattr(task, name) is None or getattr(task, name) is False)}


def _content(task: SuiteTask) -> dict[str, Any]:
    """Return a task's version, with the hash of its files if they are not lm-eval's, and of a group each subtask's."""
    group, task_sources = group_of(task), sources_of(task)
    content: dict[str, Any] = {"version": _version(task_sources[0].config if group is None else group)}
    if group is not None:
        content["subtasks"] = {source.name: _version(source.config) for source in task_sources}
    if task.path is not None:
        files = [file for source in task_sources for file in source.files]
        data = [file for source in task_sources for paths in (source.data or {}).values() for file in paths]
        content["sha256"] = _hash([*files, *data])
    return content


def _version(config: dict[str, Any]) -> str:
    """Return a task's or a group's own version from its YAML."""
    metadata = config.get("metadata")
    return str(metadata.get("version", "")) if isinstance(metadata, dict) else ""


def _hash(files: list[Path]) -> str:
    """Return the SHA-256 of files' names and contents, wherever they lie."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\n".encode())
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _documents(source: TaskSource) -> int | None:
    """Return the number of documents in the evaluated split; None if its files do not say.

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
    if None in counts:
        return None
    total = sum(filter(None, counts))
    if total == 0:
        files = ", ".join(str(file) for file in source.data[split])
        raise ConfigError("holds no documents", where=files or where, hint="Give it some.")
    return total


def _json_documents(path: Path) -> int:
    """Count the documents of a JSON file: a list, or an object a line."""
    content, count, lines = _text(path), 0, dict[str, int]()
    if content.lstrip().startswith("["):
        return len(list(_parsed(content, str(path))))
    for number, line in enumerate(content.split("\n"), 1):
        if line.strip():
            where = f"{path}:{number}"
            _check_id(_parsed(line, where), lines, where, number)
            count += 1
    return count


def _text(path: Path) -> str:
    """Read a file of documents.

    Raises:
        ConfigError: it can't be read, or is no UTF-8.
    """
    try:
        return read_text(path, DATA_BYTES, "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"can't be read ({reason(error)})", where=str(path), hint="Give it in UTF-8."
        ) from None


def _parsed(written: str, where: str) -> Any:
    try:
        return parse_json(written)
    except RefusedError as error:
        hint = "Put one JSON object on each line."
        raise ConfigError(f"is not JSON: {error}", where=where, hint=hint) from None


def _data(path: Path, read: Callable[[Any], Any]) -> Any:
    """Return what a reader of pyarrow's makes of a file.

    Raises:
        ConfigError: it can't be read, or is in another format.
    """
    try:
        with open_file(path, DATA_BYTES) as file:
            return read(file)
    except (pyarrow.ArrowException, OSError) as error:
        what = f"can't be read ({reason(error)[:200]})"
        raise ConfigError(what, where=str(path), hint="Correct the file.") from None


def _check_id(document: Any, lines: dict[str, int], where: str, number: int) -> None:
    """Refuse an id that another document has: rows are paired by it."""
    given = document.get("id") if isinstance(document, dict) else None
    if given is not None and lines.setdefault(str(given), number) != number:
        hint = "Make it unique, or leave ids out."
        raise ConfigError(f"id '{given}' is on line {lines[str(given)]} already", where=where, hint=hint)


def _unknown(path: Path) -> int | None:
    """Return None for a format that is left to lm-eval; 0 for an empty file."""
    return None if path.stat().st_size else 0


_COUNTERS: dict[str, Callable[[Path], int | None]] = {
    ".jsonl": _json_documents,
    ".json": _json_documents,
    ".parquet": lambda path: int(_data(path, pq.read_metadata).num_rows),
}


class _Score(NamedTuple):
    """Score of a task's documents; None if its YAML does not say."""

    output_type: str
    metric: str | None
    filter: str

    def __str__(self) -> str:
        """Describe it for a message."""
        return f"{self.metric or 'its own metric'} of filter {self.filter} ({self.output_type})"


def check_scores(task: SuiteTask, task_sources: Sequence[TaskSource]) -> None:
    """Check the metric and the filter of a suite's task, and that a group's subtasks share them.

    Args:
        task: the suite's task.
        task_sources: its YAML, or those of a group's subtasks.

    Raises:
        ConfigError: there is no such metric or filter, it is no score per document, or subtasks differ.
    """
    by_score: dict[_Score, list[str]] = {}
    if len(task_sources) > 1:  # a mixture explains more than what one of its parts lacks
        for source in task_sources:
            by_score.setdefault(_score_of(task, source), []).append(source.name)
    if len(by_score) > 1:
        differing = "; ".join(f"{names[0]} has {score}" for score, names in list(by_score.items())[:2])
        raise ConfigError(
            f"its subtasks are scored differently: {differing}", where=task.task, hint=_instead(task)
        )
    for source in task_sources:
        _check_score(task, source)


def _entries(source: TaskSource, key: str, name: str) -> dict[Any, dict[str, Any]]:
    """Return the maps in a list of a task's settings, by what each has under ``name``.

    Raises:
        ConfigError: that is a list or a map.
    """
    entries = [entry for entry in source.config.get(key) or [] if isinstance(entry, dict)]
    for entry in entries:
        if isinstance(entry.get(name), list | dict):
            shown = f"key '{key}': '{name}' is no name ({entry[name]!r:.60})"
            raise ConfigError(shown, where=str(source.path), hint="Write one name as text.")
    return {entry.get(name): entry for entry in entries}


def _score_of(task: SuiteTask, source: TaskSource) -> _Score:
    metrics = list(_entries(source, "metric_list", "metric"))
    filters = [str(name) for name in _entries(source, "filter_list", "name")]
    metric, chosen = task.metric, task.filter or next(iter(filters), "none")
    if metrics and (metric is None or metric not in metrics):
        metric = None if isinstance(metrics[0], Function) else str(metrics[0])
    if filters and chosen not in filters:
        chosen = filters[0]
    return _Score(str(source.config.get("output_type", "generate_until")), metric, chosen)


def _instead(task: SuiteTask) -> str:
    """Return a hint that names the suite with most of a group's members as tasks of their own."""
    group = group_of(task) or {}
    names = {member if isinstance(member, str) else member.get("task") for member in group.get("task", [])}
    suites = {path.stem: load_yaml(path, Suite) for path in sources.SUITES.glob("*.yaml")}
    shared = {name: names & {task.task for task in suite.tasks} for name, suite in suites.items()}
    best = max(shared, key=lambda name: len(shared[name]), default=None)
    if best is None or len(shared[best]) < 2:
        return "Each is a task by itself: list those that matter in a file of configs/suites."
    return f"Each is a task by itself: the suite '{best}' has them."


def _check_score(task: SuiteTask, source: TaskSource) -> None:
    """Check the metric and the filter as far as the YAML alone says."""
    config, where = source.config, str(source.path)
    if config.get("output_type") == "loglikelihood_rolling":
        hint = "Choose one that scores each document, such as acc or exact_match."
        raise ConfigError("its perplexity is not a score per document", where=where, hint=hint)
    metrics = _entries(source, "metric_list", "metric")
    named = next(iter(metrics), None) if task.metric is None else task.metric
    computed = any(isinstance(metric, Function) for metric in metrics)
    if metrics and not computed and named not in metrics:
        raise ConfigError(
            f"has no metric '{named}'", where=where, hint=f"It has: {', '.join(map(str, metrics))}."
        )
    if named in metrics and metrics[named].get("higher_is_better") is False:
        hint = "A margin needs a score that is better when it is higher."
        raise ConfigError(f"metric '{named}' is better when it is lower", where=where, hint=hint)
    filters = _entries(source, "filter_list", "name")
    if task.filter is not None and filters and task.filter not in filters:
        hint = f"It has: {', '.join(map(str, filters))}."
        raise ConfigError(f"has no filter '{task.filter}'", where=where, hint=hint)


_INDEX_NAMES = ("gold", "label", "index", "idx")
"""Parts of a column's name that say that its numbers are indices."""


def check_targets(source: TaskSource) -> None:
    """Refuse multiple choice whose answers are numbers among the choices: lm-eval reads digits as an index.

    Choices 2, 1, 0 and the answer 2 make it score "0" as right. Numbers of which one is no choice of its document are
    indices, and stay. Only data files of a task's own are read, and no function of its is run.

    Args:
        source: the task's YAML.

    Raises:
        ConfigError: every number that answers a document is the text of another of its choices than the one it counts.

    Source: `doc_to_target` of lm_eval/api/task.py, version 0.4.13.
    """
    config = source.config
    templates = (config.get("doc_to_target"), config.get("doc_to_choice"))
    computed = any(isinstance(value, Function) for value in (*templates, config.get("process_docs")))
    if config.get("output_type") != "multiple_choice" or None in templates or computed or source.data is None:
        return
    misread = ""
    for number, document in enumerate(rows_of(source), 1):
        try:
            index = _index(templates[0], document)
            choices = [str(choice).strip() for choice in choices_of(templates[1], document)]
        except (ArithmeticError, LookupError, SyntaxError, TypeError, ValueError, jinja2.TemplateError):
            return  # lm-eval, which renders it again, says what is wrong
        if index is None:
            continue
        if str(index) not in choices:
            return
        if choices[index : index + 1] != [str(index)] and not misread:
            counted = f"'{choices[index]}'" if index < len(choices) else "none"
            misread = (
                f"document {number}: answer {index} is a choice, and lm-eval takes it for an index: {counted}"
            )
    if misread:
        hint = "Let doc_to_target name a column with the choice as text, or with its index and called 'gold'."
        raise ConfigError(misread, where=str(source.path), hint=hint)


def _index(target: Any, document: dict[str, Any]) -> int | None:
    """Return the index that lm-eval makes of a document's answer; None where it is a text, or meant as an index."""
    if not isinstance(target, str):
        return None
    if target in document:
        value = document[target]
        named = any(name in target.lower() for name in _INDEX_NAMES)
        return value if isinstance(value, int) and not isinstance(value, bool) and not named else None
    text = _template(target).render(**document)
    return int(text) if text.isdigit() else None


def choices_of(choices: Any, document: dict[str, Any]) -> list[Any]:
    """Return a document's choices by a task's `doc_to_choice`, as lm-eval reads it.

    Args:
        choices: a list, a column's name, or a template.
        document: one of the task's.
    """
    if isinstance(choices, str):
        choices = filled(choices, document)
        choices = ast.literal_eval(choices) if isinstance(choices, str) else choices
    return list(choices.values()) if isinstance(choices, dict) else list(choices)


def filled(template: str, document: dict[str, Any]) -> Any:
    """Return what a task's template says of a document: the column of that name, else the template's text."""
    return document[template] if template in document else _template(template).render(**document)


@lru_cache(maxsize=64)
def _template(text: str) -> jinja2.Template:
    """Return a template as lm-eval makes it, but that it can't reach anything beside the document."""
    environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters["regex_replace"] = lambda text, pattern, by, count=0: re.sub(
        pattern, by, text, count=count
    )
    return environment.from_string(text)


def rows_of(source: TaskSource) -> Iterator[dict[str, Any]]:
    """Yield the documents of the evaluated split; those of a format that is left to lm-eval are not read."""
    for file in (source.data or {}).get(evaluated_split(source.config), ()):
        match file.suffix.lower():
            case ".parquet":
                yield from _data(file, pq.read_table).to_pylist()
            case ".csv":
                yield from _data(file, pyarrow.csv.read_csv).to_pylist()
            case ".json" | ".jsonl":
                text = _text(file)
                lines = parse_json(text) if text.lstrip().startswith("[") else map(parse_json, _lines(text))
                yield from (line for line in lines if isinstance(line, dict))


def _lines(text: str) -> Iterator[str]:
    return (line for line in text.split("\n") if line.strip())
