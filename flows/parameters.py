"""What every flow's parameters have in common: an unknown one is refused, in a line that names the nearest."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from quantgate.model.yaml_file import explained


class Parameters(BaseModel):
    """Parameters of a flow; a misspelt one would otherwise be dropped, and all of it measured instead of some.

    Raises:
        ConfigError: one of them is unknown, missing or wrong. It is no ValueError, so that neither pydantic nor
            Prefect makes a page of it: the run's state says this one line.
    """

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="wrap")
    @classmethod
    def _one_line(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            flow = cls.__name__.removesuffix("Parameters").lower()
            raise explained(cls, error, f"parameters of {flow}") from None
