"""The guide's claims as typed records, each with its conditions and its range."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field, model_validator

from quantgate.model.enums import PriceKind
from quantgate.model.yaml_file import Strict


class Measure(StrEnum):
    """The kind of evidence for a claim; each is a part of the view ``claim_values``."""

    NONE = "none"
    THROUGHPUT = "throughput"
    THROUGHPUT_RATIO = "throughput_ratio"
    COST = "cost"
    COST_RATIO = "cost_ratio"
    PRICE_RATIO = "price_ratio"
    SAVING = "saving"
    BEST_SYSTEM = "best_system"
    TTFT = "ttft"
    QUALITY = "quality"
    QUALITY_TASK = "quality_task"
    GPU_FACT = "gpu_fact"
    GPU_RATIO = "gpu_ratio"
    BOARD_MEMORY = "board_memory"
    FEWEST_GPUS = "fewest_gpus"
    MEMORY_LEFT = "memory_left"
    MEMORY_LEFT_RATIO = "memory_left_ratio"
    MEMORY_USABLE = "memory_usable"
    KV_TOKENS = "kv_tokens"
    BOUND_BATCH = "bound_batch"
    BOUND_RATIO = "bound_ratio"
    INTENSITY_RATIO = "intensity_ratio"


class Rule(StrEnum):
    """Which values of the evidence must lie in a claim's range: all of them, or their median."""

    EVERY = "every"
    TYPICAL = "typical"


class Select(Strict):
    """Which rows are evidence for a claim; an empty field doesn't restrict them."""

    gpu: str | None = None
    versus_gpu: str | None = None
    precision: tuple[str, ...] = ()
    versus_precision: tuple[str, ...] = ()
    price_kind: PriceKind | None = None
    versus_price_kind: PriceKind | None = None
    quantity: str | None = Field(default=None, description="A column of gpus, or a model of memory.")
    dataset: str | None = Field(default=None, description="Of published figures; runs count whatever it is.")
    round: str | None = Field(default=None, description="Of published figures; no run counts for a round.")
    models: tuple[str, ...] = ()
    scenario: str | None = Field(default=None, description="Of published figures; runs count whatever it is.")
    gpu_count: int | None = None
    billion_parameters: tuple[float, float] | None = None
    concurrency: tuple[int, int | None] | None = None


class Claim(Strict):
    """A numeric claim: the range in which its values should lie."""

    claim_id: str = Field(pattern=r"^[a-z0-9_]+$")
    claim: str = Field(max_length=84, description="In this project's words; fits a line of a terminal.")
    section: str = Field(description="The guide's section.")
    measure: Measure
    low: float | None = None
    high: float | None = None
    about: float | None = Field(default=None, gt=0, description="Instead of low and high: a figure …")
    within: float | None = Field(default=None, gt=0, lt=1, description="… and the fraction it may miss by.")
    unit: str
    rule: Rule = Rule.EVERY
    condition: str | None = None
    select: Select = Select()

    @model_validator(mode="after")
    def _has_a_range(self) -> Claim:
        bounded = self.low is not None or self.high is not None
        if (self.about is None) != (self.within is None) or bounded == (self.about is not None):
            raise ValueError("give low, high or both, or about and within")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low:g} lies above high {self.high:g}")
        return self

    @property
    def range(self) -> tuple[float | None, float | None]:
        """Return the least and the greatest value that support the claim."""
        if self.about is None or self.within is None:
            return self.low, self.high
        return self.about * (1 - self.within), self.about * (1 + self.within)


class ClaimFile(Strict):
    """configs/claims.yaml."""

    min_billion_parameters: float = Field(ge=0, description="Smaller models are no evidence for the claims.")
    claims: tuple[Claim, ...]


def claim_row(claim: Claim, min_billion_parameters: float) -> dict[str, Any]:
    """Return the claim as a row of ``store.claims``."""
    select = claim.select
    smallest, largest = select.billion_parameters or (min_billion_parameters, None)
    fewest, most = select.concurrency or (None, None)
    low, high = claim.range
    return {
        **claim.model_dump(exclude={"select", "within"}),
        "low": low,
        "high": high,
        **select.model_dump(exclude={"billion_parameters", "concurrency"}),
        "min_billion_parameters": smallest,
        "max_billion_parameters": largest,
        "min_concurrency": fewest,
        "max_concurrency": most,
    }
