"""Configuration files as typed records: unknown keys are errors that suggest the nearest key."""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from quantgate.model import bounded
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.secrets import refuse_secrets

M = TypeVar("M", bound=BaseModel)


class Strict(BaseModel):
    """A record that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def fingerprint_of(value: Any) -> str:
    """SHA-256 (hex) of a value's canonical JSON: sorted keys, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys allowed at a validation error's location, following nested records, maps and lists."""
    node: Any = model
    for part in location:
        if isinstance(node, type) and issubclass(node, BaseModel):
            field = node.model_fields.get(str(part))
            node = field.annotation if field else None
        else:
            arguments = [a for a in get_args(node) if a not in (type(None), Ellipsis)]
            node = arguments[-1] if arguments else None
        while get_args(node) and type(None) in get_args(node):
            node = next(a for a in get_args(node) if a is not type(None))
    return list(node.model_fields) if isinstance(node, type) and issubclass(node, BaseModel) else []


def _explain(model: type[BaseModel], error: Any) -> tuple[str, str]:
    """Return what is wrong at the first validation error, and a hint."""
    location = tuple(error["loc"])
    dotted = ".".join(str(part) for part in location) or "top level"
    if error["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.4)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known keys: {', '.join(known)}."
        return f"unknown key '{dotted}'", hint
    if error["type"] == "missing":
        return f"key '{dotted}' is missing", "Add it."
    shown = repr(error.get("input"))[:60]
    message = error["msg"].removeprefix("Value error, ")
    if message[1:2].islower():  # a sentence, not an abbreviation
        message = message[:1].lower() + message[1:]
    return f"key '{dotted}': {message} (found {shown})", "Correct the value."


def explained(model: type[BaseModel], error: ValidationError, where: str) -> ConfigError:
    """Turn the first fault that a validation found into one line, with the nearest known key."""
    # A misspelt key is also a missing one: the written key says more than the missing one.
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    what, hint = _explain(model, faults[0])
    return ConfigError(what, where=where, hint=hint)


def parse_record(model: type[M], data: Any, where: str) -> M:
    """Validate ``data`` as ``model``.

    Raises:
        ConfigError: the first fault, in one line, with the nearest known key.
    """
    if not isinstance(data, dict):
        raise ConfigError(
            "expected a mapping of keys to values", where=where, hint="See configs/ for examples."
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise explained(model, error, where) from None


def load_yaml(path: Path, model: type[M]) -> M:
    """Read a YAML file as a typed record.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds a secret, an unknown key or a bad value.
    """
    shown = shown_path(path)
    try:
        text = bounded.read_text(path, bounded.YAML_BYTES)
    except FileNotFoundError:
        others = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, others, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else "Give the path of a YAML file."
        raise ConfigError("no such file", where=shown, hint=hint) from None
    except (OSError, UnicodeDecodeError) as error:
        what = f"can't be read ({bounded.reason(error)})"
        raise ConfigError(what, where=shown, hint="Check the file.") from None
    try:
        data = bounded.parse_yaml(text)
    except bounded.RefusedError as error:
        line = f":{error.line}" if error.line else ""
        raise ConfigError(str(error), where=f"{shown}{line}", hint="Correct the YAML there.") from None
    refuse_secrets(data, shown)
    return parse_record(model, data, shown)


def read_object(path: Path, hint: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: it can't be read, or holds something else.
    """
    try:
        value = bounded.parse_json(bounded.read_bytes(path))
    except FileNotFoundError:
        raise
    except (OSError, bounded.RefusedError) as error:
        raise ConfigError(f"can't be read ({bounded.reason(error)})", where=str(path), hint=hint) from None
    if not isinstance(value, dict):
        raise ConfigError("doesn't hold a JSON object", where=str(path), hint=hint)
    return value


def load_json(path: Path, model: type[M], hint: str) -> M:
    """Read a JSON file as a typed record; errors are those of `read_object`."""
    try:
        return model.model_validate(read_object(path, hint))
    except ValidationError as error:
        what, _ = _explain(model, error.errors()[0])
        raise ConfigError(what, where=str(path), hint=hint) from None


def shown_path(path: Path) -> str:
    """Return the path as a message shows it: relative to the root where it lies below it."""
    try:
        return str(bounded.real_path(path).relative_to(ROOT))
    except ValueError:  # a NUL, another folder
        return str(path)


def choose(mapping: dict[str, Any], name: str, where: str) -> Any:
    """Return the entry called ``name``.

    Raises:
        ConfigError: there is none; the message suggests the nearest name.
    """
    if name in mapping:
        return mapping[name]
    near = difflib.get_close_matches(name, mapping, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(sorted(mapping))}."
    raise ConfigError(f"nothing is called '{name}'", where=where, hint=hint)
