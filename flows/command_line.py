"""Write parameters as the command that has them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from flows.parameters import CliOption, Parameters, ValidateParameters
from quantgate.model.bounded import RefusedError, ValueLoader, parse_yaml


def validate_command(parameters: ValidateParameters) -> str:
    """Return the command of a validation, as a shell reads it: it goes on with what the validation has begun.

    A run of the fleet goes on in its pool, and one whose commits a matrix has pinned goes on with the matrix.
    """
    if parameters.revisions:
        return "quantgate matrix"
    gpu = ["--gpu", parameters.gpu] if parameters.gpu else []
    return shlex.join(["quantgate", "validate", *words_of(parameters), *gpu])


def words_of(parameters: Parameters) -> list[str]:
    """Return the arguments and options that give these parameters, as ``commands.options`` offers them."""
    arguments: list[str] = []
    options: list[str] = []
    for name, field in type(parameters).model_fields.items():
        value = getattr(parameters, name)
        spelling = CliOption.of(field)
        if not spelling.shown or value == field.get_default(call_default_factory=True):
            continue
        if spelling.is_argument:
            arguments.append(str(value))
        else:
            options += _option(spelling.flag(name), value)
    return [*arguments, *options]


def _option(flag: str, value: Any) -> Iterator[str]:
    """Yield the words of one option: a flag, a repeated one, or one with a value."""
    if isinstance(value, bool):
        yield flag if value else f"--no-{flag[2:]}"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from (flag, f"{key}={_yaml(item)}")
    elif isinstance(value, list) and all(isinstance(item, int) for item in value):
        yield from (flag, ",".join(map(str, value)))
    else:
        for item in value if isinstance(value, list) else [value]:
            yield from (flag, str(item))


def _yaml(value: Any) -> str:
    """Return a value as YAML on one line; JSON is YAML, and a text needs no quotes where YAML reads it as it is."""
    plain = isinstance(value, str) and value.strip() == value and "\n" not in value
    try:
        if plain and parse_yaml(value, ValueLoader) == value:
            return str(value)
    except RefusedError:
        return str(value)  # what is no YAML is taken as text
    return json.dumps(value, ensure_ascii=False)
