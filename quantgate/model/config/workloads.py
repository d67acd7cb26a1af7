"""configs/workloads/*.yaml: the load that throughput is measured under."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from quantgate.model.yaml_file import Strict


class Workload(Strict):
    """configs/workloads/*.yaml: a concurrency sweep of one request shape."""

    name: str
    description: str = ""
    isl_tokens: int = Field(ge=1, description="Input sequence length (ISL).")
    osl_tokens: int = Field(ge=2, description="Output sequence length (OSL).")
    concurrency: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    prompts_per_concurrency: int = Field(default=4, ge=1)
    min_prompts: int = Field(default=16, ge=1)
    seed: int = 0
    level_timeout_s: float = Field(default=600, gt=0)

    @field_validator("concurrency")
    @classmethod
    def _each_once(cls, concurrency: tuple[int, ...]) -> tuple[int, ...]:
        """Refuse a level that is listed twice: its concurrency is its name."""
        if len(set(concurrency)) < len(concurrency):
            raise ValueError("a level is listed twice")
        return concurrency
