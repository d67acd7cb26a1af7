"""configs/engines.yaml, kernels.yaml and refusals.yaml: engines, how kernels compute, what versions do not serve."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from quantgate.model.enums import EngineKind, KernelMode
from quantgate.model.yaml_file import Strict


class EngineRequirements(Strict):
    """What a build of an engine needs of a GPU host."""

    cuda: str = Field(description="CUDA version that it is built with, e.g. 13.0.")
    driver_min: str = Field(description="Oldest NVIDIA driver that runs that CUDA version.")
    source: str

    @field_validator("cuda", "driver_min", mode="before")
    @classmethod
    def _text(cls, version: object) -> object:
        """Return a version that YAML read as a number as it was written."""
        return str(version) if isinstance(version, int | float) and not isinstance(version, bool) else version


class EngineConfig(Strict):
    """One engine of configs/engines.yaml."""

    description: str
    kind: EngineKind
    distribution: str = Field(description="The package whose version is the engine's version.")
    version: str | None = Field(default=None, description="Expected version; any where empty.")
    python: str | None = Field(default=None, description="Python version an environment is made with (uv).")
    requirements: str | None = Field(default=None, description="Pinned requirements, from the root (uv).")
    interpreter: str | None = Field(default=None, description="The interpreter that has the engine (python).")
    torch_backend: str | None = Field(default=None, description="uv's --torch-backend, e.g. cpu (uv).")
    port: int | None = Field(default=None, ge=1, le=65535, description="Port; a free one if empty.")
    plugins: tuple[str, ...] = Field(
        default=(), description="Local packages installed into it, from the root."
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="Environment variables it runs with."
    )
    arguments: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="Serving arguments without the leading dashes; true is a bare flag."
    )
    requires: EngineRequirements | None = Field(
        default=None, description="Of the driver; unknown, and not checked, if empty."
    )
    start_timeout_s: float = Field(default=600, gt=0, description="Seconds until it must answer /health.")


class EngineFile(Strict):
    """configs/engines.yaml."""

    default: dict[str, str] = Field(description="Engine by kind of hardware: cpu, gpu.")
    engines: dict[str, EngineConfig]


class KernelRule(Strict):
    """Rule that reads from a kernel's name how it computes."""

    pattern: str = Field(description="Shell pattern over the kernel's or backend's name in the engine's log.")
    layer: str = Field(default="*", description="Shell pattern over what the log says that it is chosen for.")
    kernel_mode: KernelMode | None = Field(
        default=None, description="Empty: such layers are not quantized and say nothing."
    )
    activations: str | None = Field(
        default=None, description="Format that 16-bit activations are rounded to, added to the kernel's name."
    )
    why: str


class KernelFile(Strict):
    """configs/kernels.yaml: the first rule that matches decides; of a kernel that none matches nothing is known."""

    rules: tuple[KernelRule, ...]


class EngineVersion(Strict):
    """One version whose refusals are known."""

    kv_cache_dtypes: tuple[str, ...] = Field(
        description="What its argument kv-cache-dtype may be; shell patterns."
    )
    source: str


class Refusal(Strict):
    """Something that versions of an engine do not serve, or serve wrongly."""

    traits: tuple[str, ...] = Field(
        min_length=1,
        description="Shell patterns over what a checkpoint's files and its KV cache are; any fits.",
    )
    versions: tuple[str, ...] = Field(min_length=1, description="Versions, of those that are listed.")
    hardware: Literal["cpu", "gpu"] | None = Field(default=None, description="Only there; anywhere if empty.")
    sm_arch: tuple[str, ...] = Field(
        default=(), description="Only on these SM architectures; shell patterns; on any if empty."
    )
    unless: str | None = Field(default=None, description="A serving argument that makes it served.")
    why: str = Field(description="What the engine does, after its name and version.")
    hint: str = Field(default="Give another checkpoint, or another engine.", description="How to go on.")
    source: str


class RefusalFile(Strict):
    """configs/refusals.yaml."""

    distributions: tuple[str, ...] = Field(description="Packages that these are versions of.")
    versions: dict[str, EngineVersion]
    refusals: tuple[Refusal, ...]

    @model_validator(mode="after")
    def _of_listed_versions(self) -> RefusalFile:
        """Refuse a version that is not listed, for which nothing would be refused."""
        for refusal in self.refusals:
            for version in refusal.versions:
                if version not in self.versions:
                    raise ValueError(f"'{version}' of '{refusal.traits[0]}' is not among 'versions'")
        return self
