"""Hold a host's driver and an engine's CUDA version against what each needs of the other and of the board."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from quantgate.model.config.engines import EngineConfig
from quantgate.model.config.gpus import GpuConfig
from quantgate.model.errors import ConfigError
from quantgate.model.records import Hardware


def too_old(
    devices: Hardware, name: str, engine: EngineConfig, gpus: Mapping[str, GpuConfig]
) -> Iterator[str]:
    """Yield a sentence for each version that is too old; what is not known is passed over.

    Args:
        devices: of the host.
        name: of the engine.
        engine: its configuration.
        gpus: configs/gpus.yaml, by short name.
    """
    board = gpus.get(devices.gpu)
    least = board.cuda_min if board else None
    needs = engine.requires
    label = f"engine {name}{f' {engine.version}' if engine.version else ''}"
    if needs and _older(devices.driver, needs.driver_min):
        yield (
            f"the NVIDIA driver {devices.driver} is too old for {label}: its CUDA {needs.cuda} needs "
            f"{needs.driver_min} or later"
        )
    elif _older(devices.cuda_version, least):
        yield (
            f"the NVIDIA driver {devices.driver} (CUDA {devices.cuda_version}) is too old for "
            f"{devices.device_name} ({devices.sm_arch}), which needs CUDA {least} or later"
        )
    if needs and _older(needs.cuda, least):
        yield (
            f"{label} is too old for {devices.device_name} ({devices.sm_arch}): it is built with CUDA {needs.cuda}, "
            f"and the board needs {least} or later"
        )


def check_versions(devices: Hardware, name: str, engine: EngineConfig, gpus: Mapping[str, GpuConfig]) -> None:
    """Refuse a host whose driver or whose engine is too old, before anything is pulled.

    Args:
        devices: of the host; a CPU has no driver.
        name: of the engine.
        engine: its configuration.
        gpus: configs/gpus.yaml, by short name.

    Raises:
        ConfigError: one is too old.
    """
    for fault in too_old(devices, name, engine, gpus):
        raise ConfigError(
            fault,
            where=devices.device_name,
            hint="Update it, or give --engine another of engines.yaml. Where a forward-compatibility package is "
            "installed, leave 'requires' out there.",
        )


def _older(version: str | None, least: str | None) -> bool:
    """Return True if a version is before another; False where one of them is unknown."""
    numbers = [_numbers(text) for text in (version, least)]
    return None not in numbers and numbers[0] < numbers[1]  # type: ignore[operator]


def _numbers(version: str | None) -> tuple[int, ...] | None:
    """Return the numbers of a version such as 580.65.06; None where it is none."""
    parts = (version or "").split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else None
