"""Check that a checkpoint fits a CPU host's memory: its weights, the KV cache that the engine takes, and the engine."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any

from quantgate.model.config.engines import EngineConfig
from quantgate.model.config.fleet import Pool
from quantgate.model.config.models import CheckpointConfig, ModelConfig
from quantgate.model.errors import ConfigError
from tasks.checkpoint.files import source_folders
from tasks.device.hardware import host_memory_bytes
from tasks.engine.arguments import serving_arguments
from tasks.engine.server import recorded_environment
from warehouse.configuration import configured_in_memory
from warehouse.database import Connection
from warehouse.estimates import weights_gb

GIB = 2**30
OVERHEAD_BYTES = 2 * 10**9
"""Memory of the engine itself: one that served 2 MB of weights held up to 2.9 GB, of which 1 GiB was its KV cache."""
KV_SPACE = "VLLM_CPU_KVCACHE_SPACE"
"""The engine's variable for its KV cache, GiB. Without it the engine takes what its share of the memory leaves."""
THIS_HOST = ("local", "localhost")
"""Names of fleet.yaml for the machine that reads it, beside its own."""


def too_large(
    weights_bytes: float, config: EngineConfig, arguments: Mapping[str, Any], memory_bytes: float
) -> str:
    """Say why a checkpoint does not fit a host's memory; empty where it fits.

    Args:
        weights_bytes: of the checkpoint.
        config: the engine.
        arguments: all its serving arguments.
        memory_bytes: of the host, as a process there may use it.

    Raises:
        ConfigError: the engine's KV space is no number.
    """
    kv_bytes = _kv_bytes(config, arguments)
    if weights_bytes + kv_bytes + OVERHEAD_BYTES <= memory_bytes:
        return ""
    return (
        f"{weights_bytes / 1e9:.1f} GB of weights, {kv_bytes / 1e9:.1f} GB of KV cache and "
        f"{OVERHEAD_BYTES / 1e9:.1f} GB for the engine do not fit {memory_bytes / 1e9:.1f} GB of memory"
    )


def _kv_bytes(config: EngineConfig, arguments: Mapping[str, Any]) -> float:
    """Return the KV cache that the engine is told to take, bytes; 0 where it takes what is left."""
    space = recorded_environment(config).get(KV_SPACE, "")
    declared = arguments.get("kv-cache-memory-bytes")
    given = space or (declared if declared is not None else 0)
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = -1.0
    if number < 0:
        name = KV_SPACE if space else "kv-cache-memory-bytes"
        raise ConfigError(f"{name} is {given!r}", where="engine", hint="Give a number, or leave it out.")
    return number * GIB if space else number


def check_memory(model: ModelConfig, checkpoints: Sequence[CheckpointConfig], config: EngineConfig) -> None:
    """Refuse a checkpoint that this host's memory does not hold, before it is pulled.

    Args:
        model: whose checkpoints they are.
        checkpoints: with all their engine arguments.
        config: the engine, on a CPU.

    Raises:
        ConfigError: one does not fit.
    """
    sizes = {checkpoint.source: _folder_bytes(checkpoint.source) for checkpoint in checkpoints}
    if None in sizes.values():
        with configured_in_memory() as connection:
            architecture = model.architecture or model.name
            for checkpoint in checkpoints:
                sizes[checkpoint.source] = weights_bytes(
                    connection, architecture, checkpoint.precision, checkpoint.source
                )
    for checkpoint in checkpoints:
        if size := sizes[checkpoint.source]:
            check_size(checkpoint.source, size, config, checkpoint.engine_arguments)


def check_size(source: str, size_bytes: float, config: EngineConfig, overrides: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of a known size that this host's memory does not hold.

    Args:
        source: of the checkpoint.
        size_bytes: of its weights.
        config: the engine, on a CPU.
        overrides: serving arguments of the run.

    Raises:
        ConfigError: it does not fit.
    """
    reason = too_large(size_bytes, config, serving_arguments(config, overrides), host_memory_bytes())
    if reason:
        hint = f"Use a host with more memory, a smaller checkpoint, or a lower {KV_SPACE} in engines.yaml."
        raise ConfigError(reason, where=source, hint=hint)


def weights_bytes(
    connection: Connection, architecture: str, precision: str | None, source: str
) -> float | None:
    """Return the size of a checkpoint's weights: of its files if it is a folder, else by its model's shape.

    Args:
        connection: a warehouse with the configuration.
        architecture: a key of configs/architectures.
        precision: of the weights.
        source: a folder or a hub id.

    Returns:
        Bytes; None where neither is known.
    """
    if size := _folder_bytes(source):
        return size
    size_gb = None if precision is None else weights_gb(connection, architecture, precision)
    return None if size_gb is None else size_gb * 1e9


def _folder_bytes(source: str) -> float | None:
    """Return the size of a folder's weights; None for a hub id."""
    folders = [folder for folder in source_folders(source) if folder.is_dir()]
    return sum(file.stat().st_size for file in folders[0].glob("*.safetensors")) if folders else None


def pool_memory_bytes(pool: Pool) -> float | None:
    """Return the memory of a CPU pool's smallest host; None where one of them is unknown.

    Args:
        pool: a host of it says its own (``memory_gb``), or is this machine.
    """
    own_names = {*THIS_HOST, socket.gethostname()}
    known = [
        host.memory_gb * 1e9 if host.memory_gb else host_memory_bytes() if host.name in own_names else None
        for host in pool.hosts
    ]
    sizes = [size for size in known if size is not None]
    return min(sizes) if sizes and len(sizes) == len(known) else None
