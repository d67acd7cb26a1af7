"""Choices that a form offers: names of configs/, read when the form is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

from pydantic import BaseModel, Field

from quantgate.model.config.engines import EngineFile
from quantgate.model.config.gpus import GpuFile
from quantgate.model.config.models import load_models
from quantgate.model.config.policy import PolicyFile
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import load_yaml


def _offering(names: Callable[[], Iterable[str]]) -> Callable[[dict[str, Any]], None]:
    def offer(schema: dict[str, Any]) -> None:
        schema["enum"] = sorted(names())

    return offer


def _precisions() -> set[str]:
    return {
        str(candidate.precision)
        for model in load_models().values()
        for candidate in model.candidates
        if candidate.precision
    }


def _configured(file: str, record: type[BaseModel], key: str) -> Callable[[dict[str, Any]], None]:
    return _offering(lambda: getattr(load_yaml(ROOT / "configs" / file, record), key))


ModelName = Annotated[str, Field(json_schema_extra=_offering(load_models))]
Precision = Annotated[str, Field(json_schema_extra=_offering(_precisions))]
PolicyName = Annotated[str, Field(json_schema_extra=_configured("policy.yaml", PolicyFile, "policies"))]
GpuName = Annotated[str, Field(json_schema_extra=_configured("gpus.yaml", GpuFile, "gpus"))]
EngineName = Annotated[str, Field(json_schema_extra=_configured("engines.yaml", EngineFile, "engines"))]
