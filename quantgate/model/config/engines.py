"""configs/engines.yaml and configs/kernels.yaml: engines, and how kernels compute."""

from __future__ import annotations

from pydantic import Field

from quantgate.model.enums import EngineKind, KernelMode
from quantgate.model.yaml_file import Strict


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
    start_timeout_s: float = Field(default=600, gt=0, description="Seconds until it must answer /health.")


class EngineFile(Strict):
    """configs/engines.yaml."""

    default: dict[str, str] = Field(description="Engine by kind of hardware: cpu, gpu.")
    engines: dict[str, EngineConfig]


class KernelRule(Strict):
    """Rule that reads from a kernel's name how it computes."""

    pattern: str = Field(description="Shell pattern over the kernel's name in the engine's log.")
    kernel_mode: KernelMode
    why: str


class KernelFile(Strict):
    """configs/kernels.yaml: the first rule that matches decides; a kernel that no rule matches is native."""

    rules: tuple[KernelRule, ...]
