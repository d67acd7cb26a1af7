"""Where tasks come from: suites of configs/, lm-eval's own, a user's YAML, a user's JSONL.

lm-eval's index of its own tasks takes some ten seconds to build; reading the names alone takes under one,
and a task is loaded from its YAML. `!function` tags are kept as names here: no code of a task runs
before the process that evaluates it.
"""

from __future__ import annotations

import difflib
import glob
import importlib.util
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from quantgate.model.config import ROOT, Suite, SuiteTask, load_yaml
from quantgate.model.enums import Family
from quantgate.model.errors import ConfigError
from tasks import jsonl_task

FILE_BUILDERS = ("json", "csv", "parquet", "text", "arrow", "xml")
"""Values of `dataset_path` that read the files of `data_files`."""

SUITES = ROOT / "configs" / "suites"

_NAME = re.compile(rb"""^["']?(task|group)["']?[ \t]*:[ \t]*["']?([^'"\s#\[\]-][^'"\s#]*)""", re.MULTILINE)


class TaskSource(NamedTuple):
    """A task's YAML, read without running anything."""

    path: Path
    config: dict[str, Any]
    """Its settings, includes merged; `!function` tags as :class:`Function`."""
    files: tuple[Path, ...]
    """The YAML, what it includes, and the modules its functions lie in."""
    data: dict[str, tuple[Path, ...]] | None
    """Its data files by split; None where the data come from a hub."""


class Function(str):
    """What a `!function` tag names: the folder of its YAML, then ``module.function``."""

    __slots__ = ()


def suite_from(tasks: str, *, family: Family | None, limit: int | None, out_dir: Path) -> Suite:
    """The suite that ``--tasks`` names.

    Args:
        tasks: name of a file in configs/suites, name of one of lm-eval's tasks, or path of a suite's
            YAML, an lm-eval YAML or a JSONL (see :mod:`tasks.jsonl_task`).
        family: family of a task that brings none; `custom` if None.
        limit: first documents of each task; the suite's own, or all, if None.
        out_dir: folder for what is generated from a JSONL.

    Raises:
        ConfigError: there is no such task, or its file is wrong; says where and what to mend.
    """
    suite = _suite(tasks, family, out_dir)
    return suite.model_copy(update={"limit": limit}) if limit is not None else suite


def _suite(tasks: str, family: Family | None, out_dir: Path) -> Suite:
    path = Path(tasks).expanduser()
    if path.suffix.lower() in (".jsonl", ".json", ".ndjson"):
        made = jsonl_task.write_task(path, out_dir)
        return _suite_of_yaml(made, path.stem, family)
    if path.suffix.lower() in (".yaml", ".yml"):
        if path.is_file() and b"tasks" in [
            match[1] for match in re.finditer(rb"(?m)^(\w+):", path.read_bytes())
        ]:
            return _declared(path, family)
        return _suite_of_yaml(path, path.stem, family)
    if (SUITES / f"{tasks}.yaml").is_file():
        return _declared(SUITES / f"{tasks}.yaml", family)
    if "/" in tasks or path.is_file():
        what = "is neither a YAML nor a JSONL" if path.exists() else "no such file"
        mend = "Give a task's name, or the path of a .yaml or .jsonl file."
        raise ConfigError(what, where=tasks, mend=mend)
    kind, _ = _own_entry(tasks)
    if kind == "group":
        raise ConfigError(
            "is a group of lm-eval's tasks",
            where=tasks,
            mend="Each task is judged by itself: list those that matter in a file of configs/suites.",
        )
    return Suite(name=tasks, tasks=(SuiteTask(task=tasks, family=family or Family.CUSTOM),))


def _declared(path: Path, family: Family | None) -> Suite:
    if family is not None:
        raise ConfigError("a suite names its families itself", where=str(path), mend="Leave --family out.")
    return load_yaml(path, Suite)


def _suite_of_yaml(path: Path, name: str, family: Family | None) -> Suite:
    """The suite of one lm-eval YAML."""
    source = read_source(path)
    folder = path.resolve().parent
    shown = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
    task = SuiteTask(task=source.config["task"], path=str(shown), family=family or Family.CUSTOM)
    if source_of(task).path != source.path:
        raise ConfigError(
            f"{source_of(task).path.name} beside it names its task '{task.task}' too",
            where=str(path),
            mend="Give one of them another name.",
        )
    return Suite(name=name, tasks=(task,))


def source_of(task: SuiteTask) -> TaskSource:
    """The YAML of a suite's task.

    Raises:
        ConfigError: no YAML has that name, or the YAML is wrong.
    """
    if task.path is None:
        return read_source(_own_entry(task.task)[1])
    folder = ROOT / Path(task.path).expanduser()
    if not folder.is_dir():
        raise ConfigError("no such folder", where=task.path, mend=f"It should hold the YAML of {task.task}.")
    names = _names(folder, "*.y*ml")
    if task.task not in names:
        near = difflib.get_close_matches(task.task, names, n=1)
        mend = f"Did you mean '{near[0]}'?" if near else f"It names: {', '.join(sorted(names)) or 'none'}."
        raise ConfigError(f"no YAML there has the task '{task.task}'", where=task.path, mend=mend)
    return read_source(names[task.task][1])


def read_source(path: Path) -> TaskSource:
    """Read a task's YAML with what it includes.

    Raises:
        ConfigError: it is missing, no YAML, no single task, has an unknown key, or its data are missing.
    """
    files: list[Path] = []
    config = _read(path, files)
    where = str(path)
    if isinstance(config.get("task"), list) or "group" in config:
        raise ConfigError("is a group, not a task", where=where, mend="Give the YAML of one task.")
    if not isinstance(config.get("task"), str):
        raise ConfigError("has no 'task'", where=where, mend="Name the task: `task: my_task`.")
    _check_keys(config, where)
    files += sorted({module for function in _functions(config) if (module := _module(function)).is_file()})
    return TaskSource(path.resolve(), config, tuple(files), data_files(config, path.parent))


def data_files(config: dict[str, Any], folder: Path) -> dict[str, tuple[Path, ...]] | None:
    """Local data files of a task by split, or None where the data come from elsewhere.

    lm-eval leaves a relative path to whatever folder it runs in. Here it is looked for beside the YAML,
    then from the root, then in the current folder, so that a task means the same from any place. A task
    that loads its documents with a function of its own (`custom_dataset`) names them in `dataset_kwargs`;
    those that lie beside the YAML are taken.

    Args:
        config: the task's settings.
        folder: where its YAML lies.

    Raises:
        ConfigError: a file that is named does not exist.
    """
    dataset = str(config.get("dataset_path"))
    if dataset.startswith((".", "/", "~")):
        mend = "Name its files: `dataset_path: json` and `dataset_kwargs: {data_files: {test: …}}`."
        raise ConfigError(f"dataset_path '{dataset}' is a folder", where=str(folder), mend=mend)
    kwargs = config.get("dataset_kwargs") or {}
    if "custom_dataset" in config:
        beside = [folder / value for value in kwargs.values() if isinstance(value, str)]
        files = tuple(sorted(path.resolve() for path in beside if path.is_file()))
        return {evaluated_split(config): files} if files else None
    named = kwargs.get("data_files")
    if dataset not in FILE_BUILDERS or not named:
        return None
    splits = named if isinstance(named, dict) else {"train": named}
    found: dict[str, tuple[Path, ...]] = {}
    for split, patterns in splits.items():
        listed = [patterns] if isinstance(patterns, str) else list(patterns)
        if any("://" in pattern for pattern in listed):
            return None
        found[split] = tuple(file for pattern in listed for file in _find(pattern, folder))
    return found


def evaluated_split(config: dict[str, Any]) -> str:
    """The split that lm-eval evaluates; empty if the task declares none."""
    return str(config.get("test_split") or config.get("validation_split") or "")


def _find(pattern: str, folder: Path) -> list[Path]:
    for base in (folder, ROOT, Path.cwd()):
        matches = sorted(glob.glob(str(base / Path(pattern).expanduser()), recursive=True))  # noqa: PTH207
        if matches:
            return [Path(match).resolve() for match in matches]
    mend = "A relative path starts at the YAML's folder or at the checkout."
    raise ConfigError(f"no such data file: {pattern}", where=str(folder), mend=mend)


@lru_cache(maxsize=1)
def _own_names() -> dict[str, tuple[str, Path]]:
    """lm-eval's own tasks and groups by name, found without importing it."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise ConfigError("lm-eval is not installed", mend="Run `make setup`.")
    return _names(Path(spec.origin).parent / "tasks", "**/*.yaml")


def _names(folder: Path, pattern: str) -> dict[str, tuple[str, Path]]:
    """Kind (task or group) and file of each name in a folder's YAMLs; the first file has a name."""
    names: dict[str, tuple[str, Path]] = {}
    for path in sorted(folder.glob(pattern), key=Path.as_posix):
        for kind, name in _NAME.findall(path.read_bytes()):
            names.setdefault(name.decode("utf-8", "replace"), (kind.decode(), path))
    return names


def _own_entry(name: str) -> tuple[str, Path]:
    """Kind and YAML of one of lm-eval's own tasks."""
    names = _own_names()
    if name in names:
        return names[name]
    suites = [path.stem for path in SUITES.glob("*.yaml")]
    near = difflib.get_close_matches(name, [*suites, *names], n=3)
    mend = f"Did you mean {' or '.join(repr(one) for one in near)}?" if near else "See `lm_eval ls tasks`."
    if "," in name:
        mend = "Several tasks make a suite: list them in a file of configs/suites."
    raise ConfigError("no suite and no task of lm-eval's is called so", where=name, mend=mend)


def _read(path: Path, seen: list[Path]) -> dict[str, Any]:
    """A YAML with its includes merged below it, as lm-eval merges them."""
    resolved = path.resolve()
    if resolved in seen:
        raise ConfigError("includes itself", where=str(path), mend="Break the circle.")
    seen.append(resolved)
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader(resolved.parent))  # noqa: S506
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path), mend="Give the path of a task's YAML.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"can't be read ({error})", where=str(path), mend="Check the file.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise ConfigError(problem, where=f"{path}{line}", mend="Correct the YAML there.") from None
    if not isinstance(config, dict):
        raise ConfigError("is not a mapping of keys", where=str(path), mend="Give an lm-eval task's YAML.")
    included = config.pop("include", [])
    merged: dict[str, Any] = {}
    for include in included if isinstance(included, list) else [included]:
        merged |= {k: v for k, v in _read(path.parent / include, seen).items() if k != "task_list"}
    return merged | config


def _loader(folder: Path) -> Any:
    """A loader that keeps the `!function` tags of a YAML in ``folder`` as names."""
    loader: Any = type("TaskLoader", (yaml.SafeLoader,), {})
    loader.add_constructor("!function", lambda _, node: Function(folder / str(node.value)))
    return loader


def _functions(value: Any) -> list[Function]:
    """Every function that a task's settings name."""
    if isinstance(value, Function):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [function for one in inner for function in _functions(one)]


def _module(function: Function) -> Path:
    """Where the module of a function lies if it lies beside the YAML, as lm-eval looks for it."""
    module = Path(function)
    return (module.parent / module.name.rpartition(".")[0].replace(".", "/")).with_suffix(".py")


def _check_keys(config: dict[str, Any], where: str) -> None:
    """Refuse keys that lm-eval would stumble over; a task written in Python takes what it likes."""
    if "class" in config:
        return
    from lm_eval.config.task import TaskConfig

    known = [*TaskConfig.__dataclass_fields__, "group", "task_list"]
    for key in config:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            mend = f"Did you mean '{near[0]}'?" if near else "See lm-eval's task guide."
            raise ConfigError(f"unknown key '{key}'", where=where, mend=mend)
