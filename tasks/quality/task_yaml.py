"""Read a task's YAML without running anything: settings, includes, functions, data files, names.

`!function` tags are kept as names here: no code of a task runs before the process that evaluates it.
"""

from __future__ import annotations

import glob
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from quantgate.model.bounded import (
    YAML_BYTES,
    PlainLoader,
    RefusedError,
    named_path,
    parse_yaml,
    read_bytes,
    read_text,
    real_path,
    reason,
)
from quantgate.model.config.suites import TASK_NAME
from quantgate.model.errors import ConfigError, nearest_hint
from quantgate.model.home import ROOT
from quantgate.model.secrets import refuse_secrets

FILE_BUILDERS = ("json", "csv", "parquet", "text", "arrow", "xml")
"""Values of `dataset_path` that read the files of `data_files`."""

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
    overrides: dict[str, Any]
    """Settings that a group or a suite lays over the YAML's own; in ``config`` already."""

    @property
    def name(self) -> str:
        """Return the task's name."""
        return str(self.config["task"])


class Function(str):
    """Name in a `!function` tag: the folder of its YAML, then ``module.function``."""

    __slots__ = ()


def is_group(config: dict[str, Any]) -> bool:
    """Return True if settings are those of a group of tasks."""
    return "group" in config or isinstance(config.get("task"), list)


def read_source(path: Path, overrides: dict[str, Any] | None = None) -> TaskSource:
    """Read a task's YAML with what it includes.

    Args:
        path: the YAML.
        overrides: settings laid over its own.

    Raises:
        ConfigError: it is missing, no YAML, no single task, has an unknown key, or its data are missing.
    """
    config, files = read_yaml(path)
    config |= overrides or {}
    where = str(path)
    if is_group(config):
        raise ConfigError("is a group, not a task", where=where, hint="Give the YAML of one task.")
    if not isinstance(config.get("task"), str):
        raise ConfigError(
            "has no 'task'", where=where, hint="Name the task: `task: my_task`; a suite has `tasks`."
        )
    if not re.fullmatch(TASK_NAME, config["task"]):
        hint = "Give it a name without slashes and without a dot at its start: it names folders."
        raise ConfigError(f"the task's name '{config['task']}' is a path", where=where, hint=hint)
    _check_keys(config, where)
    _check_code(overrides if _is_packaged(path) else config, where)
    files += sorted({module for function in _functions(config) if (module := _module(function)).is_file()})
    return TaskSource(
        real_path(path), config, tuple(files), data_files(config, path.parent), dict(overrides or {})
    )


def read_yaml(path: Path) -> tuple[dict[str, Any], list[Path]]:
    """Read the settings of a task's or a group's YAML, includes merged, and the files they came from.

    Raises:
        ConfigError: it is missing, no YAML, or holds a secret.
    """
    files: list[Path] = []
    return _read(path, files), files


def data_files(config: dict[str, Any], folder: Path) -> dict[str, tuple[Path, ...]] | None:
    """Return local data files of a task by split, or None if the data come from elsewhere.

    lm-eval leaves a relative path to whatever folder it runs in. Here it is looked for beside the YAML,
    then from the root, then in the current folder, so that a task means the same from any place. A task
    that loads its documents with a function of its own (`custom_dataset`) names them in `dataset_kwargs`;
    those that lie beside the YAML are used.

    Args:
        config: the task's settings.
        folder: where its YAML lies.

    Raises:
        ConfigError: a file that is named does not exist.
    """
    dataset = str(config.get("dataset_path"))
    if dataset.startswith((".", "/", "~")):
        hint = "Name its files: `dataset_path: json` and `dataset_kwargs: {data_files: {test: …}}`."
        raise ConfigError(f"dataset_path '{dataset}' is a folder", where=str(folder), hint=hint)
    kwargs = config.get("dataset_kwargs") or {}
    if "custom_dataset" in config:
        beside = [folder / value for value in kwargs.values() if isinstance(value, str)]
        files = tuple(sorted(path.resolve() for path in beside if path.is_file()))
        return {evaluated_split(config): files} if files else None
    named = kwargs.get("data_files")
    if dataset not in FILE_BUILDERS or not named:
        return None
    splits = named if isinstance(named, dict) else {"train": named}
    by_split: dict[str, tuple[Path, ...]] = {}
    for split, patterns in splits.items():
        listed = [patterns] if isinstance(patterns, str) else list(patterns)
        if any("://" in pattern for pattern in listed):
            return None
        by_split[split] = tuple(file for pattern in listed for file in _find(pattern, folder))
    return by_split


def evaluated_split(config: dict[str, Any]) -> str:
    """Return the split that lm-eval evaluates; empty if the task declares none."""
    return str(config.get("test_split") or config.get("validation_split") or "")


def _find(pattern: str, folder: Path) -> list[Path]:
    for base in (folder, ROOT, Path.cwd()):
        matches = sorted(glob.glob(str(base / named_path(pattern)), recursive=True))  # noqa: PTH207
        if matches:
            return [Path(match).resolve() for match in matches]
    hint = "A relative path starts at the YAML's folder or at the checkout."
    raise ConfigError(f"no such data file: {pattern}", where=str(folder), hint=hint)


def scanned(path: Path) -> bytes:
    """Return a YAML to look for names in; nothing where it can't be read, as `read_yaml` will say."""
    try:
        return read_bytes(path, YAML_BYTES)
    except OSError:
        return b""


def names_in(folder: Path, pattern: str) -> dict[str, tuple[str, Path]]:
    """Return kind (task or group) and file of each name in a folder's YAMLs; the first file with a name wins."""
    names: dict[str, tuple[str, Path]] = {}
    for path in sorted(folder.glob(pattern), key=Path.as_posix):
        for kind, name in _NAME.findall(scanned(path)):
            names.setdefault(name.decode("utf-8", "replace"), (kind.decode(), path))
    return names


def _read(path: Path, seen: list[Path]) -> dict[str, Any]:
    """Read a YAML with its includes merged below it, as lm-eval merges them."""
    resolved = real_path(path)
    if resolved in seen:
        raise ConfigError("includes itself", where=str(path), hint="Break the circle.")
    seen.append(resolved)
    try:
        config = parse_yaml(read_text(path, YAML_BYTES), _loader(resolved.parent))
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path), hint="Give the path of a task's YAML.") from None
    except RefusedError as error:
        line = f":{error.line}" if error.line else ""
        raise ConfigError(str(error), where=f"{path}{line}", hint="Correct the YAML there.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"can't be read ({reason(error)})", where=str(path), hint="Check the file."
        ) from None
    if not isinstance(config, dict):
        raise ConfigError("is not a mapping of keys", where=str(path), hint="Give an lm-eval task's YAML.")
    refuse_secrets(config, str(path))
    included = config.pop("include", [])
    merged: dict[str, Any] = {}
    for include in included if isinstance(included, list) else [included]:
        merged |= {k: v for k, v in _read(path.parent / include, seen).items() if k != "task_list"}
    return merged | config


def _loader(folder: Path) -> Any:
    """Return a loader that keeps the `!function` tags of a YAML in ``folder`` as names."""
    loader: Any = type("TaskLoader", (PlainLoader,), {})
    loader.add_constructor("!function", lambda _, node: Function(folder / str(node.value)))
    return loader


def _functions(value: Any) -> list[Function]:
    """Return every function that a task's settings name."""
    if isinstance(value, Function):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [function for part in inner for function in _functions(part)]


def _module(function: Function) -> Path:
    """Return the path of a function's module beside the YAML, where lm-eval looks for it."""
    module = Path(function)
    return (module.parent / module.name.rpartition(".")[0].replace(".", "/")).with_suffix(".py")


def _is_packaged(path: Path) -> bool:
    """Return True if a YAML is lm-eval's own, some of which ask for code that no version of data sets here runs."""
    package = find_spec("lm_eval")
    folders = package.submodule_search_locations if package else None
    return any(path.resolve().is_relative_to(folder) for folder in folders or ())


def _check_code(config: Any, where: str) -> None:
    """Refuse settings that ask for a data set's or a model's own code."""
    if isinstance(config, dict):
        for key, value in config.items():
            if str(key).replace("-", "_") == "trust_remote_code" and value not in (False, None):
                hint = (
                    "Leave it out: data sets are read as data. A model's code is allowed in configs/models."
                )
                raise ConfigError("'trust_remote_code' would run code of others", where=where, hint=hint)
            _check_code(value, where)


def _check_keys(config: dict[str, Any], where: str) -> None:
    """Refuse keys that lm-eval would fail on; a task written in Python may have any."""
    if "class" in config:
        return
    from lm_eval.config.task import TaskConfig

    known = [*TaskConfig.__dataclass_fields__, "group", "task_list"]
    for key in config:
        if key not in known:
            hint = nearest_hint(str(key), known, "See lm-eval's task guide.")
            raise ConfigError(f"unknown key '{key}'", where=where, hint=hint)
