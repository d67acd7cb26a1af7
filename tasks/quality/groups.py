"""Groups of tasks (mmlu, bbh …): one task whose documents are those of all its subtasks.

A group's members are tasks, groups, or tags, the tasks that carry a label. They are resolved here as lm-eval
resolves them, from the YAMLs alone: its own index takes some ten seconds to build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from quantgate.model.errors import ConfigError
from tasks.quality.task_yaml import TaskSource, is_group, read_source, read_yaml, scanned

Find = Callable[[str], Path | None]
"""The YAML of a task or a group by its name; None where none has it."""

_GROUPS_OWN = ("group", "group_alias", "task", "aggregate_metric_list", "metadata", "include", "tag")
"""Settings of the group itself; it lays every other one over its members' (lm-eval's GroupConfig)."""


def members(
    path: Path, find: Find, folders: Sequence[Path], overrides: dict[str, Any]
) -> tuple[TaskSource, ...]:
    """Return the subtasks of a group, nested groups flattened, each once, in the group's order.

    Args:
        path: the group's YAML.
        find: where a name's YAML is.
        folders: where the tasks of a tag are looked for; the first that holds any counts.
        overrides: settings laid over every subtask's, whatever a group says.

    Raises:
        ConfigError: a member is missing or can't be read.
    """
    sources: dict[str, TaskSource] = {}
    config, _ = read_yaml(path)
    lookup = _Lookup(find, (path.parent, *folders))
    for name, yaml, settings in _members(config, lookup, overrides, (path,)):
        if name not in sources:
            sources[name] = read_source(yaml, settings | overrides)
    if not sources:
        raise ConfigError("is a group without tasks", where=str(path), hint="List them under `task:`.")
    return tuple(sources.values())


class _Lookup(NamedTuple):
    """Places to find names and tags."""

    find: Find
    folders: tuple[Path, ...]


def _members(
    config: dict[str, Any], lookup: _Lookup, overrides: dict[str, Any], within: tuple[Path, ...]
) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Yield name, YAML and laid-over settings of each subtask in a group's list.

    ``within`` holds the YAMLs of the groups around it, the one that has the list last.
    """
    settings = {key: value for key, value in config.items() if key not in _GROUPS_OWN} | overrides
    listed = config.get("task") or []
    for item in [listed] if isinstance(listed, str | dict) else listed:
        own = dict(item) if isinstance(item, dict) else {}
        name = str(own.pop("group", None) or own.pop("task", None) or "") if own else str(item)
        if isinstance(item, dict) and "group" in item and lookup.find(name) is None:
            yield from _members({"group": name, **own}, lookup, settings, within)
        else:
            yield from _named(name, lookup, settings | own, within)


def _named(
    name: str, lookup: _Lookup, settings: dict[str, Any], within: tuple[Path, ...]
) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Yield the subtasks that a name in a group's list stands for."""
    yaml = lookup.find(name)
    if yaml is None:
        tagged = next((tasks for folder in lookup.folders if (tasks := _tagged(name, folder))), None)
        if tagged is None:
            hint = "Name tasks, groups or tags that are beside it or lm-eval's own."
            raise ConfigError(f"its member '{name}' is nowhere", where=str(within[-1]), hint=hint)
        yield from ((member, member_yaml, settings) for member, member_yaml in tagged.items())
    elif not is_group(config := read_yaml(yaml)[0]):
        yield name, yaml, settings
    elif yaml in within:
        raise ConfigError("contains itself", where=str(yaml), hint="Break the circle.")
    else:
        yield from _members(config, lookup, settings, (*within, yaml))


def _tagged(tag: str, folder: Path) -> dict[str, Path]:
    """Return the tasks below a folder that carry a tag, by name, in lm-eval's order."""
    # The tag may be in a file that a YAML includes, which lies beside it.
    folders = {file.parent for file in folder.rglob("*yaml") if tag.encode() in scanned(file)}
    tasks: dict[str, Path] = {}
    for yaml in sorted(yaml for folder_of_tag in folders for yaml in folder_of_tag.glob("*.yaml")):
        config, _ = read_yaml(yaml)
        tags = config.get("tag") or []
        if isinstance(config.get("task"), str) and tag in ([tags] if isinstance(tags, str) else tags):
            tasks.setdefault(config["task"], yaml)
    return dict(sorted(tasks.items()))
