"""Check what a task needs before it may run: permission to run what a model writes, Python packages, request limits.

All are checked before an engine starts. The modules of a task's functions are read, never run: a package counts as
needed where its import would end the task, not inside a `try` whose handler goes on without it.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.errors import ConfigError
from tasks.quality.sources import LIMITS, harness_folder, sources_of
from tasks.quality.suite import choices_of, filled, rows_of
from tasks.quality.task_yaml import TaskSource

_HARNESS = "lm_eval"
_GENERATED_TOKENS = 256
"""Tokens that lm-eval asks for where a task says nothing (`TemplateAPI.max_gen_toks`)."""
ASSUMED_CHOICES = 4
"""Choices of a document where neither the task's YAML nor data on this machine say them."""
_DOCUMENTS_READ = 100
"""Documents of which choices and characters are counted."""


class RequestNeeds(NamedTuple):
    """What the requests of a suite ask of an engine at most."""

    stop_strings: int = 0
    """Of one request: the task's own, and the end-of-sequence text that lm-eval adds."""
    generated_tokens: int = 0
    """Of one answer; 0 where no task generates text."""
    longest: str = ""
    """The task with the longest answers."""


def request_needs(suite: Suite) -> RequestNeeds:
    """Return what the requests of a suite's tasks ask of an engine at most, as their YAMLs say."""
    needs = RequestNeeds()
    for task in suite.tasks:
        for source in sources_of(task):
            if source.config.get("output_type", "generate_until") != "generate_until":
                continue
            settings = source.config.get("generation_kwargs") or {}
            until = settings.get("until")
            stops = 1 + (len(until) if isinstance(until, list) else 1)
            tokens = settings.get("max_gen_toks", _GENERATED_TOKENS)
            needs = needs._replace(stop_strings=max(stops, needs.stop_strings))
            if isinstance(tokens, int) and tokens > needs.generated_tokens:
                needs = needs._replace(generated_tokens=tokens, longest=task.task)
    return needs


class DocumentRequests(NamedTuple):
    """Requests that one document of a task asks, on average over its subtasks."""

    scored: float
    """Requests that score a text that is given, such as a choice: the engine makes one token for each."""
    generated: float
    """Requests for an answer."""
    limit_tokens: int
    """Most tokens of an answer, on average over the subtasks that ask for one; 0 where none does."""


def document_requests(task: SuiteTask) -> DocumentRequests:
    """Return what one document of a task asks of an engine, as the task's YAML says; no data set is loaded.

    Args:
        task: of a suite; a group counts as the average of its subtasks.

    Raises:
        ConfigError: no YAML has that name, or a YAML is wrong.
    """
    sources = sources_of(task)
    scored, generated, limits = 0.0, 0.0, []
    for source in sources:
        kind = source.config.get("output_type", "generate_until")
        if kind == "generate_until":
            repeats = source.config.get("repeats")
            generated += repeats if isinstance(repeats, int) and repeats > 0 else 1
            limits.append(_limit_tokens(source))
        else:
            scored += _choices(source) if kind == "multiple_choice" else 1
    return DocumentRequests(
        scored / len(sources), generated / len(sources), round(sum(limits) / len(limits)) if limits else 0
    )


def _limit_tokens(source: TaskSource) -> int:
    """Return the most tokens of an answer, by whatever name its YAML gives the limit."""
    settings = source.config.get("generation_kwargs") or {}
    tokens = next((settings[name] for name in LIMITS if name in settings), None)
    return tokens if isinstance(tokens, int) and tokens > 0 else _GENERATED_TOKENS


def _choices(source: TaskSource) -> float:
    """Return the mean number of choices of a task's first documents that are on this machine, else an assumption."""
    template = source.config.get("doc_to_choice")
    if isinstance(template, list | dict):
        return len(template) or ASSUMED_CHOICES
    if not isinstance(template, str):
        return ASSUMED_CHOICES
    return _mean(source, lambda document: len(choices_of(template, document))) or ASSUMED_CHOICES


def prompt_characters(task: SuiteTask) -> float | None:
    """Return the mean characters of a task's prompts, by its first documents that are on this machine.

    An example before a prompt (few-shot) counts as long as the prompt.

    Args:
        task: of a suite; a group counts as the average of its subtasks.

    Returns:
        None where the documents of a subtask are not here, or a function writes their prompts.

    Raises:
        ConfigError: no YAML has that name, or a YAML is wrong.
    """
    lengths = []
    for source in sources_of(task):
        template, shots = source.config.get("doc_to_text"), source.config.get("num_fewshot") or 0
        if not isinstance(template, str) or not isinstance(shots, int):
            return None
        characters = _mean(source, partial(_length, template))
        if not characters:
            return None
        lengths.append(len(str(source.config.get("description") or "")) + characters * (1 + shots))
    return sum(lengths) / len(lengths)


def _length(template: str, document: dict[str, Any]) -> int:
    return len(str(filled(template, document)))


def _mean(source: TaskSource, count: Callable[[dict[str, Any]], int]) -> float:
    """Return the mean of what is counted in a task's first documents; 0 where they are not on this machine."""
    try:
        counts = [count(document) for document in islice(rows_of(source), _DOCUMENTS_READ)]
    except (ArithmeticError, LookupError, OSError, SyntaxError, TypeError, ValueError, jinja2.TemplateError):
        return 0.0  # whoever loads them says what is wrong
    return sum(counts) / len(counts) if counts else 0.0


def permitted(suite: Suite, *, run_generated_code: bool) -> Suite:
    """Return the suite with the user's permission to run generated code, if given.

    Args:
        suite: its tasks may each have the permission already.
        run_generated_code: True if the user gives it to all of them.

    Raises:
        ConfigError: a task scores programs by running them, and nobody said that it may.
    """
    if run_generated_code:
        allowed = (task.model_copy(update={"run_generated_code": True}) for task in suite.tasks)
        return suite.model_copy(update={"tasks": tuple(allowed)})
    for task in suite.tasks:
        unsafe = any(source.config.get("unsafe_code") for source in sources_of(task))
        if unsafe and not task.run_generated_code:
            raise ConfigError(
                "it is scored by running the code that the model writes, on the host that evaluates",
                where=task.task,
                hint="Allow that with --run-generated-code, best in a container; it is no sandbox.",
            )
    return suite


def check_packages(suite: Suite) -> None:
    """Refuse a suite with a task whose functions import what isn't installed on this host.

    Raises:
        ConfigError: names the first such task, its packages, and the line that installs them.
    """
    for task in suite.tasks:
        modules = {file for source in sources_of(task) for file in source.files if file.suffix == ".py"}
        missing = sorted({name for name in _imported(modules) if not _installed(name)})
        if missing:
            wanted = " ".join(repr(name) if "[" in name else name for name in _requirements(missing))
            raise ConfigError(
                f"needs Python packages that aren't installed: {', '.join(missing)}",
                where=task.task,
                hint=f"Install them beside the pipeline: `uv pip install --python .venv/bin/python {wanted}`.",
            )


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _imported(modules: Iterable[Path]) -> set[str]:
    """Return the top-level packages that modules import, also through lm-eval's own tasks."""
    packages: set[str] = set()
    seen: set[Path] = set()
    waiting = list(modules)
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in _names(path):
            if name.startswith(f"{_HARNESS}.tasks."):
                waiting += _within_harness(name)
            else:
                packages.add(name.partition(".")[0])
    return packages


@lru_cache(maxsize=256)
def _names(path: Path) -> frozenset[str]:
    """Return dotted names that a module imports as it loads; `from a import b` inside lm-eval is `a` and `a.b`."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return frozenset()  # whoever loads it says what is wrong with it
    names: set[str] = set()
    for statement in _loaded(tree.body):
        if isinstance(statement, ast.Import):
            names |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            names.add(statement.module)
            if statement.module.startswith(_HARNESS):
                names |= {f"{statement.module}.{alias.name}" for alias in statement.names}
    return frozenset(names)


def _loaded(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements that run as a module loads, those in a `try` only if its handlers raise."""
    for statement in body:
        if isinstance(statement, ast.Try):
            ends = [
                any(isinstance(inner, ast.Raise) for inner in ast.walk(handler))
                for handler in statement.handlers
            ]
            if all(ends):
                yield from _loaded(statement.body)
        else:
            yield statement


def _within_harness(name: str) -> list[Path]:
    """Return the file of a module of lm-eval's tasks, if the name is one's."""
    path = harness_folder().joinpath(*name.split(".")[1:])
    return [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]


def _requirements(missing: Sequence[str]) -> list[str]:
    """Return what to install: lm-eval's extra that names a package, else the package by its own name."""
    extras: dict[str, str] = {}  # by distribution
    for requirement in importlib.metadata.requires(_HARNESS) or []:
        named = re.match(r"([\w.-]+).*;.*extra == [\"']([\w-]+)[\"']", requirement)
        if named and named[1] != _HARNESS:
            extras.setdefault(_plain(named[1]), named[2])
    version, ours, others = importlib.metadata.version(_HARNESS), set[str](), []
    for module in map(_plain, missing):
        near = [name for name in extras if name == module or name.startswith(f"{module}-")]
        if near:
            ours.add(extras[min(near, key=len)])
        else:
            others.append(module)
    return ([f"lm_eval[{','.join(sorted(ours))}]=={version}"] if ours else []) + others


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
