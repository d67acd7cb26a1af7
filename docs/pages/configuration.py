"""docs/configuration.md: every key of configs/, generated from the records that read the files.

``python -m docs.pages.configuration`` writes it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from docs.pages.outside_cases import Cases
from docs.pages.page import fill
from quantgate.model.config.answer_settings import AnswerSettingFile
from quantgate.model.config.architectures import ArchitectureFile, FormatFile
from quantgate.model.config.engines import EngineFile, KernelFile, RefusalFile
from quantgate.model.config.fleet import FleetFile
from quantgate.model.config.gpus import GpuFile
from quantgate.model.config.models import ModelConfig
from quantgate.model.config.policy import PolicyFile
from quantgate.model.config.prices import PriceFile
from quantgate.model.config.suites import Suite
from quantgate.model.config.workloads import Workload
from quantgate.model.home import ROOT
from warehouse.evidence.claims import ClaimFile
from warehouse.evidence.records import Catalogue, Guide

PAGE = ROOT / "docs" / "configuration.md"
FILES: Mapping[str, type[BaseModel]] = {
    "models/*.yaml": ModelConfig,
    "suites/*.yaml": Suite,
    "workloads/*.yaml": Workload,
    "policy.yaml": PolicyFile,
    "engines.yaml": EngineFile,
    "fleet.yaml": FleetFile,
    "prices.yaml": PriceFile,
    "gpus.yaml": GpuFile,
    "kernels.yaml": KernelFile,
    "refusals.yaml": RefusalFile,
    "answer_settings.yaml": AnswerSettingFile,
    "formats.yaml": FormatFile,
    "architectures/*.yaml": ArchitectureFile,
    "claims.yaml": ClaimFile,
    "reference/catalogue.yaml": Catalogue,
    "reference/guide.yaml": Guide,
    "reference/outside-cases.yaml": Cases,
}
"""The record that reads each file, by the file's pattern below configs/; what is edited most comes first."""

_NAMES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    date: "date",
    Any: "any value",
}


class Key(NamedTuple):
    """One key of a record."""

    name: str
    type: str
    default: str
    meaning: str


class Record(NamedTuple):
    """One record as the page shows it."""

    name: str
    summary: str
    fields: list[Key]


def configuration_page() -> str:
    """Return the page as markdown: a section for each file, with a table for each of its records."""
    files = [
        (pattern, _described(record), [_described(nested) for nested in _below(record, {record})])
        for pattern, record in FILES.items()
    ]
    return fill("configuration", files=files)


def _described(record: type[BaseModel]) -> Record:
    keys = [
        Key(name, _typed(field), _default(field), _plain(_meaning(field)))
        for name, field in record.model_fields.items()
    ]
    return Record(record.__name__, _plain(_summary(record)), keys)


def _below(record: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """Yield each record that a record's fields hold, once, in the order of the fields."""
    for field in record.model_fields.values():
        for nested in _records(field.annotation):
            if nested not in seen:
                seen.add(nested)
                yield nested
                yield from _below(nested, seen)


def _records(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _records(argument)


def _typed(field: FieldInfo) -> str:
    return _bounded(_named(field.annotation), field.metadata)


def _named(annotation: Any) -> str:
    """Return a type in words; an optional one as the type itself, since its default says the rest."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None:
        return _one_of(annotation) if _is_enum(annotation) else _NAMES.get(annotation, annotation.__name__)
    if origin is Annotated:
        return _bounded(_named(arguments[0]), arguments[1:])
    if origin is Literal:
        return _one_of(arguments)
    names = [_named(argument) for argument in arguments if argument not in (type(None), Ellipsis)]
    if origin is dict:
        return f"map of {names[0]} to {names[1]}"
    return f"list of {names[0]}" if origin is tuple else " or ".join(names)


def _is_enum(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, StrEnum)


def _one_of(values: Iterable[str]) -> str:
    return "one of " + ", ".join(f"`{value}`" for value in values)


def _bounded(name: str, metadata: Any) -> str:
    bounds = ", ".join(_bounds(metadata))
    return f"{name} {bounds}" if bounds else name


def _bounds(metadata: Any) -> Iterator[str]:
    for bound in metadata:
        match bound:
            case FieldInfo():
                yield from _bounds(bound.metadata)
            case annotated_types.Ge():
                yield f"≥ {bound.ge}"
            case annotated_types.Gt():
                yield f"> {bound.gt}"
            case annotated_types.Le():
                yield f"≤ {bound.le}"
            case annotated_types.Lt():
                yield f"< {bound.lt}"


def _meaning(field: FieldInfo) -> str:
    """Return a field's description, or where it has none that of the record which it holds."""
    return field.description or next(map(_summary, _records(field.annotation)), "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or value is None or value in ((), {}, ""):
        return "–"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _summary(record: type[BaseModel]) -> str:
    return inspect.cleandoc(record.__doc__ or "").split("\n\n")[0].replace("\n", " ")


def _plain(text: str) -> str:
    """Return a text as one line without what markdown would read as a tag."""
    return re.sub(r"<(?=[/a-zA-Z])", "&lt;", " ".join(text.split()).replace("``", "`"))


if __name__ == "__main__":
    PAGE.write_text(configuration_page(), encoding="utf-8")
