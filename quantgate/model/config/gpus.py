"""configs/gpus.yaml: the accelerators, and the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator

from quantgate.model.errors import ConfigError, nearest_hint
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import Strict, load_yaml

ADD_GPU = (
    "Add a board to configs/gpus.yaml: its nvml_names, memory, bandwidth, TFLOPS, formats, and their source."
)
"""Hint for a board that is not listed."""


def choose_gpu(gpus: Mapping[str, GpuConfig], name: str, where: str) -> GpuConfig:
    """Return the GPU of a short name.

    Args:
        gpus: configs/gpus.yaml, by short name.
        name: of the GPU.
        where: it is named, for messages.

    Raises:
        ConfigError: there is none; the hint says how to add one.
    """
    if name in gpus:
        return gpus[name]
    hint = nearest_hint(name, gpus, f"Known: {', '.join(sorted(gpus))}.")
    raise ConfigError(f"nothing is called '{name}'", where=where, hint=f"{hint} {ADD_GPU}")


def unlisted(gpu: str, gpus: Mapping[str, GpuConfig]) -> str:
    """Say what is missing for a board that configs/gpus.yaml does not list; empty for one that it lists.

    Args:
        gpu: short name, or the driver's name of a board that has none.
        gpus: configs/gpus.yaml, by short name.
    """
    if gpu in gpus:
        return ""
    return f"configs/gpus.yaml has no board called '{gpu}', so it has no price, no memory model and no limit. {ADD_GPU}"


class GpuConfig(Strict):
    """One accelerator of configs/gpus.yaml (or the CPU)."""

    name: str
    nvml_names: tuple[str, ...] = Field(default=(), description="Names as NVML reports them.")
    sm_arch: str | None = Field(
        default=None, description="SM architecture, e.g. sm_90; found at run time on CPU."
    )
    cuda_min: str | None = Field(
        default=None,
        pattern=r"^\d+\.\d+$",
        description="First CUDA version that supports its architecture; not checked if empty.",
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


def load_gpus() -> dict[str, GpuConfig]:
    """Read configs/gpus.yaml, by short name.

    Raises:
        ConfigError: the file is wrong.
    """
    return load_yaml(ROOT / "configs" / "gpus.yaml", GpuFile).gpus
