"""Make click options from the record of a flow's parameters, so that each parameter is written once."""

from __future__ import annotations

import types
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import annotated_types
import click
from pydantic.fields import FieldInfo

from flows.parameters import CliOption, Parameters
from quantgate.model.bounded import RefusedError, TooMuchError, ValueLoader, parse_yaml
from quantgate.model.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

FORMATS = click.Choice(["table", "record", "csv", "json"])


def format_option(**attributes: Any) -> Callable[[F], F]:
    """Return the option ``--format`` of verbs that print rows, as the argument ``form``."""
    return click.option("--format", "form", type=FORMATS, **attributes)


require_validated_option = click.option(
    "--require-validated", is_flag=True, help="Exit with status 3 unless every candidate is VALIDATED."
)


def options_of(record: type[Parameters]) -> Callable[[F], F]:
    """Return a decorator that gives a command an option for each field of a record.

    The command receives the values as keyword arguments by the fields' names, as the record takes them.

    Args:
        record: the parameters; a field's ``CliOption`` says what its name and description do not.
    """

    def decorate(command: F) -> F:
        for name, field in reversed(record.model_fields.items()):
            spelling = CliOption.of(field)
            if spelling.shown:
                command = _parameter(name, field, spelling)(command)
        return command

    return decorate


def _parameter(name: str, field: FieldInfo, spelling: CliOption) -> Callable[[F], F]:
    """Return the decorator that adds a field's option or argument."""
    if spelling.is_argument:
        return click.argument(name, metavar=f"[{spelling.name.upper()}]", required=False)
    flag = spelling.flag(name)
    text = spelling.help or field.description or ""
    kind, items = _type_of(field.annotation)
    attributes: dict[str, Any]
    if kind is bool and field.default is None:
        flag, attributes = f"{flag}/--no-{flag[2:]}", {"default": None}
    elif kind is bool:
        attributes = {"is_flag": True}
    elif kind is list and items is int:
        attributes = {"callback": _whole_numbers}
    elif kind in {list, dict}:
        pairs = {"metavar": "KEY=VALUE", "callback": _pairs} if kind is dict else {}
        text, attributes = f"{text} May be repeated.", {"multiple": True, **pairs}
    else:
        attributes = {"type": _click_type(kind, field)}
    if spelling.metavar:
        attributes["metavar"] = spelling.metavar
    return click.option(flag, name, help=text, **attributes)


def _type_of(annotation: Any) -> tuple[Any, Any]:
    """Return the plain type of an annotation, and that of its items (of a map: of its keys), without ``None``."""
    if get_origin(annotation) in {Union, types.UnionType}:
        (annotation,) = [member for member in get_args(annotation) if member is not type(None)]
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return get_origin(annotation) or annotation, next(iter(get_args(annotation)), None)


def _click_type(kind: Any, field: FieldInfo) -> click.ParamType[Any]:
    """Return the click type of a single value: a choice, a bounded number, or text."""
    if issubclass(kind, Enum):
        return click.Choice([member.value for member in kind])
    for bound in field.metadata:
        if isinstance(bound, annotated_types.Ge):
            return click.IntRange(min=bound.ge)  # type: ignore[arg-type]
        if isinstance(bound, annotated_types.Gt):
            return click.FloatRange(min=bound.gt, min_open=True)  # type: ignore[arg-type]
    return click.STRING


def _pairs(_context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` pairs whose values are YAML: 4096 is a number, true a bare flag, null removes a key.

    Raises:
        ConfigError: one of them has no key, or no equals sign.
    """
    values = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise ConfigError(
                f"'{pair}' is not KEY=VALUE", where=option.opts[0], hint="Write e.g. max-model-len=4096."
            )
        try:
            values[key.lstrip("-")] = parse_yaml(value, ValueLoader)
        except TooMuchError as error:
            raise ConfigError(
                f"'{key}' is a value that is not read ({error})",
                where=option.opts[0],
                hint="Write a plain value.",
            ) from None
        except RefusedError:
            values[key.lstrip("-")] = value
    return values


def _whole_numbers(_context: click.Context, option: click.Parameter, given: str | None) -> list[int] | None:
    """Read whole numbers from 1 on, separated by commas.

    Raises:
        ConfigError: one of them is no such number.
    """
    if given is None:
        return None
    try:
        numbers = [int(part) for part in given.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ConfigError(
            f"'{given}' is not a list of whole numbers from 1 on",
            where=option.opts[0],
            hint="Write e.g. 1,8,32.",
        )
    return numbers
