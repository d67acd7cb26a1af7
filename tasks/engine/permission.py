"""One gate for code and pickles of a checkpoint: `allow` in configs/models opens it, and no argument does."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from quantgate.model.bounded import parse_json
from quantgate.model.config.models import Allowed
from quantgate.model.errors import ConfigError
from tasks.checkpoint.files import source_folders

WHERE = "engine arguments"
CODE_ARGUMENT = "trust-remote-code"
ELSEWHERE = ("tokenizer", "hf-config-path", "speculative-config")
"""Arguments that may name another checkpoint, whose code nobody has read."""
PICKLE_FORMATS = ("pt", "npcache")
"""Values of load-format that read pickles, even beside safetensors."""
_NESTED = re.compile(r"trust[-_]remote[-_]code|auto[-_]map", re.IGNORECASE)
_HINT = "Leave it out; once you have read the code, set `allow: {remote_code: true}` and a revision in configs/models."


def check_permitted(arguments: Mapping[str, Any], allow: Allowed) -> None:
    """Refuse arguments that would have an engine run code, or open pickles, without permission.

    Args:
        arguments: serving arguments by name, however that is spelled.
        allow: what the checkpoint may do that none may otherwise.

    Raises:
        ConfigError: the first argument that would.
    """
    for given, value in arguments.items():
        name, _, inner = given.lower().lstrip("-").partition(".")
        name = name.replace("_", "-")
        if CODE_ARGUMENT.startswith(name):  # the engine's parser completes what is shortened
            if value not in (False, None) and not allow.remote_code:
                raise ConfigError(f"'{given}' would run a checkpoint's own code", where=WHERE, hint=_HINT)
        elif name != "chat-template" and _NESTED.search(inner + _written(value)):
            raise ConfigError(f"'{given}' would let code of a checkpoint run", where=WHERE, hint=_HINT)
        elif allow.remote_code and _may_be(name, ELSEWHERE) and _names_code(value):
            raise ConfigError(
                f"'{given}' names another checkpoint, whose code would run with this one's permission",
                where=WHERE,
                hint="Leave it out where 'allow' permits code.",
            )
        elif _may_be(name, ("load-format",)) and not allow.pickle and _opens_pickles(value):
            raise ConfigError(
                f"'{given}' is '{value}', which opens pickles: they can run code",
                where=WHERE,
                hint="Leave it out, or set `allow: {pickle: true}` and a revision in configs/models.",
            )


def _may_be(name: str, arguments: Iterable[str]) -> bool:
    """Return True if the engine's parser may complete a name to one of these arguments."""
    return any(argument.startswith(name) for argument in arguments)


def _written(value: Any) -> str:
    """Return a value as the engine reads it; in JSON within a text a letter may be written as an escape."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = [value, parse_json(value)]
    return json.dumps(value, default=str)


def _opens_pickles(value: Any) -> bool:
    return any(
        str(item).lower() in PICKLE_FORMATS for item in (value if isinstance(value, list) else [value])
    )


def _names_code(value: Any) -> bool:
    """Return True if a value names another checkpoint; of a draft, whose code is never pulled, a folder with code."""
    if not isinstance(value, dict):
        return value is not None
    draft = str(value.get("model") or "")
    return bool(draft) and any(any(folder.glob("*.py")) for folder in source_folders(draft))
