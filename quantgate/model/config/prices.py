"""Prices as typed records: dated offers, and a rule for reservations."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from quantgate.model.enums import Evidence, PriceKind
from quantgate.model.yaml_file import Strict

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
Name = Annotated[str, Field(min_length=1, max_length=10_000)]


class PriceOffer(Strict):
    """A dated offer: USD per hour for ``gpu_count`` GPUs together."""

    provider: Name
    region: Name = "any"
    gpu: Name
    gpu_count: int = Field(default=1, ge=1, lt=2**31)
    price_kind: PriceKind
    usd_per_hour: float = Field(ge=1e-9, le=1e9, allow_inf_nan=False)
    currency: Literal["USD"] = Field(default="USD", description="Only USD is priced: convert, and say how.")
    valid_from: date = Field(description="From its start, UTC.")
    valid_to: date | None = Field(default=None, description="Until its start, UTC; open if empty.")
    source: Name
    evidence: Evidence = Evidence.PUBLISHED
    note: str | None = Field(default=None, max_length=10_000)

    @field_validator("valid_from", "valid_to", mode="before")
    @classmethod
    def _a_day(cls, value: Any) -> Any:
        """Require a day written as 2026-03-20: pydantic would read a bare number as seconds since 1970."""
        written = value if isinstance(value, str) else ""
        if isinstance(value, int | float) or (written and not _DAY.fullmatch(written)):
            raise PydanticCustomError("day", "a day is written like 2026-03-20")
        return value

    @field_validator("gpu_count", "usd_per_hour", mode="before")
    @classmethod
    def _no_truth_value(cls, value: Any) -> Any:
        """Refuse a truth value: True would count as 1."""
        if isinstance(value, bool):
            raise PydanticCustomError("number", "it should be a number")
        return value


class ReservedRule(Strict):
    """Range that a reservation is said to save, where no offer names its price."""

    saving_low: float = Field(ge=0, lt=1, description="Least saving, a fraction of the on-demand price.")
    saving_high: float = Field(ge=0, lt=1, description="Greatest saving, a fraction of the on-demand price.")
    source: Name

    @field_validator("saving_high")
    @classmethod
    def _in_order(cls, value: float, info: ValidationInfo) -> float:
        """Check that the range's ends are in order."""
        if value < info.data.get("saving_low", 0):
            raise ValueError("it is below saving_low")
        return value


class PriceFile(Strict):
    """configs/prices.yaml, and each file of imported offers."""

    reserved: ReservedRule | None = Field(default=None, description="Derives ranges, never offers.")
    prices: tuple[PriceOffer, ...]
