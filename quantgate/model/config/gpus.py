"""configs/gpus.yaml: the accelerators, and the CPU."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from quantgate.model.yaml_file import Strict


class GpuConfig(Strict):
    """One accelerator of configs/gpus.yaml (or the CPU)."""

    name: str
    nvml_names: tuple[str, ...] = Field(default=(), description="Names as NVML reports them.")
    sm_arch: str | None = Field(
        default=None, description="SM architecture, e.g. sm_90; found at run time on CPU."
    )
    vram_gb: float | None = Field(default=None, gt=0, description="Memory in decimal GB (10^9 bytes).")
    nvml_memory_mib: int | None = Field(default=None, gt=0, description="NVML's total, MiB (2^20 bytes).")
    bandwidth_gb_s: float | None = Field(default=None, gt=0, description="Memory bandwidth, GB/s (10^9).")
    dense_fp16_tflops: float | None = Field(default=None, gt=0)
    dense_fp8_tflops: float | None = Field(default=None, gt=0)
    dense_fp4_tflops: float | None = Field(default=None, gt=0)
    mig_slices_max: int | None = Field(default=None, ge=0)
    mig_profiles: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="Instances that one GPU holds, by MIG profile (1g.10gb …)."
    )
    interconnect: str | None = Field(default=None, description="GPU to GPU, e.g. NVLink 4.")
    interconnect_gb_s: float | None = Field(
        default=None, gt=0, description="GPU to GPU, both directions together, one GPU, GB/s (10^9)."
    )
    formats: dict[str, Literal["native", "weight_only", "none"]] = Field(
        default_factory=dict, description="How the engine computes a precision on it."
    )
    source: str = Field(description="Source of every figure that `sources` doesn't name.")
    sources: dict[str, str] = Field(default_factory=dict, description="Source by figure.")
    note: str | None = None

    @field_validator("sources")
    @classmethod
    def _of_figures(cls, sources: dict[str, str]) -> dict[str, str]:
        """Refuse a misspelt figure, which would leave the real one with the wrong source."""
        for name in sources:
            if name not in cls.model_fields:
                raise ValueError(f"'{name}' is no figure of a GPU")
        return sources


class GpuFile(Strict):
    """configs/gpus.yaml, keyed by the short name that rows carry (h100, cpu …)."""

    gpus: dict[str, GpuConfig]
