"""Find tasks: suites of configs/, lm-eval's own, a user's YAML, a user's JSONL.

lm-eval's index of its own tasks takes some ten seconds to build; reading the names alone takes under one,
and a task is loaded from its YAML.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from quantgate.model.bounded import named_path, real_path
from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.enums import Family
from quantgate.model.errors import ConfigError, nearest_hint
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import load_yaml
from tasks.quality import jsonl
from tasks.quality.groups import members
from tasks.quality.task_yaml import TaskSource, is_group, names_in, read_source, read_yaml, scanned

SUITES = ROOT / "configs" / "suites"

LIMITS = ("max_gen_toks", "max_tokens", "max_new_tokens", "max_completion_tokens")
"""Names that lm-eval and engines know a token limit by."""


def suite_from(tasks: Sequence[str], *, family: Family | None, limit: int | None, out_dir: Path) -> Suite:
    """Return the suite that ``--tasks`` names; several make one suite.

    Args:
        tasks: each the name of a file in configs/suites, the name of one of lm-eval's tasks, or the path of a
            suite's YAML, an lm-eval YAML or a JSONL (see :mod:`tasks.quality.jsonl`).
        family: family of a task that brings none; `custom` if None.
        limit: first documents of each task; the suite's own, or all, if None.
        out_dir: folder for what is generated from a JSONL.

    Raises:
        ConfigError: there is no such task, or its file is wrong; says where and a hint.
    """
    if family is not None and all(_suite_file(name) for name in tasks):
        where = str(_suite_file(tasks[0]))
        raise ConfigError("a suite names its families itself", where=where, hint="Leave --family out.")
    suites = [_suite(name, family, out_dir) for name in tasks]
    if limit is not None:
        suites = [suite.model_copy(update={"limit": limit}) for suite in suites]
    return suites[0] if len(suites) == 1 else _together(suites)


def _together(suites: Sequence[Suite]) -> Suite:
    """Return one suite with the tasks of all.

    Raises:
        ConfigError: two name the same task, or they differ in their limit or their fidelity text.
    """
    name = "+".join(suite.name for suite in suites)
    counts = Counter(task.task for suite in suites for task in suite.tasks)
    for task, count in counts.items():
        if count > 1:
            hint = "Name it once; the name of a JSONL's task is that of its file."
            raise ConfigError(f"task '{task}' is listed twice", where=f"tasks {name}", hint=hint)
    limits = {suite.limit for suite in suites}
    if len(limits) > 1:
        hint = "Give one for all of them with --limit."
        raise ConfigError("these suites differ in 'limit'", where=f"tasks {name}", hint=hint)
    texts = {suite.fidelity for suite in suites if suite.fidelity}
    if len(texts) > 1:
        hint = "Validate with one of these suites at a time."
        raise ConfigError("these suites differ in 'fidelity'", where=f"tasks {name}", hint=hint)
    return Suite(
        name=name,
        tasks=tuple(task for suite in suites for task in suite.tasks),
        limit=limits.pop(),
        task_timeout_s=max(suite.task_timeout_s for suite in suites),
        fidelity=next(iter(texts), None),
    )


def _suite_file(name: str) -> Path | None:
    """Return the YAML of the suite that has this name or path; None if it names something else."""
    path = named_path(name)
    if path.suffix.lower() in (".yaml", ".yml"):
        return path if is_suite(path) else None
    path = SUITES / f"{name}.yaml"
    return path if path.is_file() else None


def _suite(tasks: str, family: Family | None, out_dir: Path) -> Suite:
    path = named_path(tasks)
    if "," in tasks and not path.exists():
        hint = f"Repeat the option: {' '.join(f'--tasks {name.strip()}' for name in tasks.split(','))}."
        raise ConfigError("several are named at once", where=f"tasks {tasks}", hint=hint)
    if (file := _suite_file(tasks)) is not None:
        return _read_suite(file, out_dir)
    if _is_jsonl(path):
        yaml = jsonl.write_task(path, out_dir)
        suite = _suite_of_yaml(yaml, path.stem, family)
        (task,) = suite.tasks
        return suite.model_copy(update={"tasks": (task.model_copy(update={"clusters": _clusters_in(yaml)}),)})
    if path.suffix.lower() in (".yaml", ".yml"):
        return _suite_of_yaml(path, path.stem, family)
    if "/" in tasks or path.is_file():
        what = "is neither a YAML nor a JSONL" if path.exists() else "no such file"
        hint = "Give a task's name, or the path of a .yaml or .jsonl file."
        raise ConfigError(what, where=tasks, hint=hint)
    _own_entry(tasks)
    facts = {"family": Family.CUSTOM} | _facts_of(tasks) | ({"family": family} if family else {})
    return Suite(name=tasks, tasks=(SuiteTask(task=tasks, **facts),))


def _facts_of(name: str) -> dict[str, Any]:
    """Return family, documents, clusters and strata of a task, if a suite of ours says them."""
    for path in sorted(SUITES.glob("*.yaml")):
        for task in load_yaml(path, Suite).tasks:
            if task.task == name and task.path is None and task.documents is not None:
                facts = {"documents", "clusters", "fixed_subjects", "family"}
                return task.model_dump(include=facts)
    return {}


def known_families(task: SuiteTask) -> set[Family]:
    """Return the families under which the suites of configs/suites list a task, by its name and its folder."""
    suites = (load_yaml(path, Suite) for path in sorted(SUITES.glob("*.yaml")))
    return {
        listed.family
        for suite in suites
        for listed in suite.tasks
        if (listed.task, listed.path) == (task.task, task.path)
    }


def is_suite(path: Path) -> bool:
    """Return True if a YAML is a suite's and not an lm-eval task's."""
    if path.suffix.lower() not in (".yaml", ".yml") or not path.is_file():
        return False
    return b"tasks" in [match[1] for match in re.finditer(rb"(?m)^(\w+):", scanned(path))]


def _is_jsonl(path: Path) -> bool:
    return path.suffix.lower() in (".jsonl", ".json", ".ndjson")


def _read_suite(path: Path, out_dir: Path) -> Suite:
    """Read a suite's YAML; generate a YAML for each task whose documents are a JSONL."""
    suite = load_yaml(path, Suite)
    return suite.model_copy(update={"tasks": tuple(_with_yaml(task, path, out_dir) for task in suite.tasks)})


def _with_yaml(task: SuiteTask, suite: Path, out_dir: Path) -> SuiteTask:
    """Return a suite's task; if its documents are a JSONL, generate the YAML under the suite's name for it."""
    if task.path is None or not _is_jsonl(Path(task.path)):
        return task
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{,99}", task.task):
        hint = "Use letters, digits, '_', '-' and '.', at most 100 of them."
        raise ConfigError(f"'{task.task[:100]}' can't name a JSONL's task", where=str(suite), hint=hint)
    yaml = jsonl.write_task(_beside(task.path, suite), out_dir, name=task.task)
    return task.model_copy(update={"path": str(yaml.parent), "clusters": task.clusters or _clusters_in(yaml)})


def _clusters_in(yaml: Path) -> int | None:
    """Return the number of clusters in a JSONL's task; None if no two documents belong together."""
    documents = pq.read_table(yaml.with_suffix(".parquet")).to_pylist()
    named = [cluster for document in documents if (cluster := document["cluster"] or document.get("subject"))]
    alone = len(documents) - len(named)
    return None if len(set(named)) == len(named) else len(set(named)) + alone


def _beside(given: str, suite: Path) -> Path:
    """Return the path of a suite's JSONL: in its folder, or from the root.

    Raises:
        ConfigError: it is in neither.
    """
    for folder in (suite.parent, ROOT):
        try:
            path = folder / Path(given).expanduser()
            if path.exists():
                return path
        except (OSError, RuntimeError, ValueError):
            continue  # no such user, too long, a NUL: no such file
    hint = f"Put it beside the suite, or give its path from {ROOT}."
    raise ConfigError(f"no such file: {given[:100]!r}", where=str(suite), hint=hint)


def jsonl_files(suite: Path) -> list[Path]:
    """Return the JSONL files of a suite's YAML.

    Raises:
        ConfigError: the suite is wrong, or lacks one.
    """
    named = [task.path for task in load_yaml(suite, Suite).tasks if task.path and _is_jsonl(Path(task.path))]
    return [_beside(path, suite) for path in named]


def _suite_of_yaml(path: Path, name: str, family: Family | None) -> Suite:
    """Return the suite of one lm-eval YAML, of a task or of a group."""
    config, _ = read_yaml(path)
    called = config.get("group") if is_group(config) else read_source(path).name
    folder = real_path(path).parent
    shown = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    task = SuiteTask(task=str(called), path=str(shown), family=family or Family.CUSTOM)
    if (first := _yaml_of(task)) != real_path(path):
        raise ConfigError(
            f"{first.name} beside it names its task '{task.task}' too",
            where=str(path),
            hint="Give one of them another name.",
        )
    sources_of(task)
    return Suite(name=name, tasks=(task,))


def sources_of(task: SuiteTask) -> tuple[TaskSource, ...]:
    """Return the YAML of a suite's task; of a group those of all its subtasks, in the group's order.

    Raises:
        ConfigError: no YAML has that name, or a YAML is wrong.
    """
    path = _yaml_of(task)
    overrides = {} if task.num_fewshot is None else {"num_fewshot": task.num_fewshot}
    if not is_group(read_yaml(path)[0]):
        return (_limited(read_source(path, overrides), task.max_gen_toks),)
    beside = {} if task.path is None else names_in(path.parent, "*.y*ml")

    def find(name: str) -> Path | None:
        entry = beside.get(name) or _own_names().get(name)
        return entry[1] if entry else None

    sources = members(path, find, (harness_folder() / "tasks",), overrides)
    return tuple(_limited(source, task.max_gen_toks) for source in sources)


def _limited(source: TaskSource, max_gen_toks: int | None) -> TaskSource:
    """Set another token limit for a task that generates text, whatever name its YAML gives the limit."""
    if max_gen_toks is None or source.config.get("output_type", "generate_until") != "generate_until":
        return source
    settings = {k: v for k, v in (source.config.get("generation_kwargs") or {}).items() if k not in LIMITS}
    limit = {"generation_kwargs": settings | {"max_gen_toks": max_gen_toks}}
    return source._replace(config=source.config | limit, overrides=source.overrides | limit)


def group_of(task: SuiteTask) -> dict[str, Any] | None:
    """Return a group's own settings; None if the task is no group."""
    config, _ = read_yaml(_yaml_of(task))
    return config if is_group(config) else None


def _yaml_of(task: SuiteTask) -> Path:
    if task.path is None:
        return _own_entry(task.task)[1]
    folder = ROOT / named_path(task.path)
    if not folder.is_dir():
        raise ConfigError("no such folder", where=task.path, hint=f"It should hold the YAML of {task.task}.")
    names = names_in(folder, "*.y*ml")
    if task.task not in names:
        hint = nearest_hint(task.task, names, f"It names: {', '.join(sorted(names)) or 'none'}.")
        raise ConfigError(f"no YAML there has the task '{task.task}'", where=task.path, hint=hint)
    return real_path(names[task.task][1])


@lru_cache(maxsize=1)
def _own_names() -> dict[str, tuple[str, Path]]:
    """Return lm-eval's own tasks and groups by name."""
    return names_in(harness_folder() / "tasks", "**/*.yaml")


def harness_folder() -> Path:
    """Return lm-eval's folder, without importing lm-eval."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise ConfigError("lm-eval is not installed", hint="Run `make setup`.")
    return Path(spec.origin).parent


def _own_entry(name: str) -> tuple[str, Path]:
    """Return kind and YAML of one of lm-eval's own tasks."""
    names = _own_names()
    if name in names:
        return names[name]
    suites = [path.stem for path in SUITES.glob("*.yaml")]
    near = difflib.get_close_matches(name, [*suites, *names], n=3)
    hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "See `.venv/bin/lm_eval ls tasks`."
    raise ConfigError("no suite and no task of lm-eval's is called so", where=name, hint=hint)
