"""Compute how many GPUs a checkpoint needs, from the warehouse's view ``memory_fit``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from quantgate.model.config.engines import EngineConfig
from quantgate.model.config.gpus import load_gpus, unlisted
from quantgate.model.config.models import CheckpointConfig, ModelConfig
from quantgate.model.errors import ConfigError
from quantgate.model.records import Hardware
from quantgate.model.served import served_kv_cache_dtype, served_precision
from tasks.checkpoint.files import read_json, read_json_if_any, source_folders
from tasks.checkpoint.formats.quant_config import QUANT_FILE, read_declared_format
from tasks.engine.arguments import PARALLEL_ARGUMENTS, gpu_count, serving_arguments, tokens_of
from tasks.progress import Reporter
from warehouse.configuration import configured_in_memory
from warehouse.database import Connection
from warehouse.estimates import Fit, Shape, memory_fits, shape_of

COUNTS = (1, 2, 4, 8)
"""Tensor-parallel sizes to try: those of one host."""
UTILIZATION = 0.9
"""vLLM's default of gpu-memory-utilization."""
CHANGES_WEIGHTS = frozenset({"quantization", "cpu-offload-gb"})
"""Serving arguments under which a checkpoint takes less of a GPU's memory than its files have."""
WIDEST = "bf16"
"""Largest form that vLLM gives a checkpoint's weights by itself: what fits in it, fits in any other precision."""


@dataclass(frozen=True)
class Fitting:
    """GPUs that a checkpoint needs; None where it fits on none of the counts."""

    gpus: int | None
    computed: bool
    """True if the count comes from ``memory_fit``; else it was declared, or it is 1 because the shape isn't known."""
    reason: str


@dataclass(frozen=True)
class Stored:
    """Facts of a checkpoint's files that decide how much memory it takes."""

    kv_cache_dtype: str = "auto"
    """As the files declare it; of a hub id as configs/models says."""
    weights_bytes: int | None = None
    """Of its safetensors; None where they are not at hand."""


def stored(checkpoint: CheckpointConfig) -> Stored:
    """Return what a checkpoint's folder says; of a hub id what configs/models says, so that every host counts alike.

    Raises:
        ConfigError: its configuration can't be read.
    """
    for folder in source_folders(checkpoint.source):
        if (folder / "config.json").is_file():
            config = read_json(folder / "config.json", checkpoint.source)
            beside = read_json_if_any(folder / QUANT_FILE, checkpoint.source)
            sizes = [file.stat().st_size for file in folder.glob("*.safetensors")]
            declared = read_declared_format(config, beside, checkpoint.source)
            return Stored(declared.kv_cache_dtype, sum(sizes) or None)
    return Stored(checkpoint.kv_cache_dtype or "auto")


def fitting(
    connection: Connection,
    model: str,
    precision: str | None,
    gpu: str,
    arguments: Mapping[str, Any],
    files: Stored = Stored(),
) -> Fitting:
    """Return the smallest number of GPUs of a type that serve a checkpoint.

    The weights and one request of the longest context must fit the memory that the engine takes (the practical model
    of ``memory_fit``): vLLM refuses to start otherwise. That context is the engine's max-model-len, else the model's
    own. The workload does not matter, since requests that find no memory wait. ``memory_fit`` leaves out counts
    that can't share the attention heads. What counts is what is served: FP32 in 16 bits, and a KV cache as the
    files declare it where no argument says otherwise.

    Args:
        connection: a warehouse with the configuration.
        model: a name of configs/architectures, with or without an organization before it.
        precision: of the weights; if it isn't declared, one GPU is enough where it holds them as bf16.
        gpu: a key of gpus.yaml.
        arguments: all the engine's serving arguments; a declared parallelism is kept.
        files: what its files declare; of mixed precisions the weights' size is theirs.

    Returns:
        The count and the reason in words; 1, not computed, for a model whose shape isn't known.

    Raises:
        ConfigError: an argument is wrong, or the shape is known and something else that decides the count isn't.
    """
    if declared := [name for name in PARALLEL_ARGUMENTS if name in arguments]:
        return Fitting(gpu_count(arguments), False, f"declared ({', '.join(declared)})")
    shape = shape_of(connection, model)
    if shape is None:
        return Fitting(1, False, f"1 {gpu} is assumed: configs/architectures has no '{model}'")
    context = tokens_of(arguments.get("max-model-len")) or shape.context_max_tokens
    if context is None:
        raise _undecided(shape, gpu, "its longest context isn't, give max-model-len")
    weights = served_precision(precision or WIDEST, arguments)
    sizes = _sizes(connection, shape, weights, gpu, context, arguments, files)
    fits = [size for size in sizes if size.fits]
    if precision is None and (not fits or fits[0].gpu_count > 1):
        raise _undecided(shape, gpu, f"its precision isn't declared, and {WIDEST} takes more than one")
    if not fits:
        return Fitting(None, True, _too_large(shape, weights, gpu, context, sizes))
    least = fits[0]
    return Fitting(
        least.gpu_count,
        True,
        f"{least.weights_gb:.1f} GB of {weights} weights leave {least.kv_cache_tokens:,} tokens of KV cache "
        f"on {least.gpu_count} {gpu}; a request may have {context:,}",
    )


def _sizes(
    connection: Connection,
    shape: Shape,
    weights: str,
    gpu: str,
    context: int,
    arguments: Mapping[str, Any],
    files: Stored,
) -> list[Fit]:
    """Return how the weights and a request of this context fit each number of GPUs.

    Raises:
        ConfigError: the warehouse does not know the weights' precision, or the type of the KV cache.
    """
    ask = partial(
        memory_fits,
        connection,
        shape.model,
        weights,
        gpu=gpu,
        context_tokens=context,
        utilization=_utilization(arguments.get("gpu-memory-utilization", UTILIZATION)),
        counts=COUNTS,
        mixed_bytes=files.weights_bytes,
    )
    kv_dtype = served_kv_cache_dtype(files.kv_cache_dtype, arguments)
    sizes = ask(kv_dtype=kv_dtype)
    listed = load_gpus()
    if missing := unlisted(gpu, listed):
        raise _undecided(shape, gpu, missing.removesuffix("."))
    if not sizes:
        fault = f"a KV cache of type '{kv_dtype}'" if ask(kv_dtype="auto") else f"{weights} in its memory"
        raise _undecided(shape, gpu, f"nothing is known of {fault}")
    return sizes


def _undecided(shape: Shape, gpu: str, why: str) -> ConfigError:
    """Return the refusal to guess: one GPU as a guess would let a 70B model fail after its download."""
    return ConfigError(
        f"how many {gpu} {shape.model} needs isn't known: {why}",
        where="engine arguments",
        hint="Correct it, or declare the engine argument tensor-parallel-size.",
    )


def _utilization(value: Any) -> float:
    """Read the engine's share of each GPU's memory, above 0 and at most 1."""
    try:
        share = float(value) if not isinstance(value, bool) else 0.0
    except (TypeError, ValueError):
        share = 0.0
    if not 0 < share <= 1:
        raise ConfigError(
            f"'gpu-memory-utilization' is {value!r}",
            where="engine arguments",
            hint="Give a share above 0 and at most 1, e.g. 0.9.",
        )
    return share


def served_bytes(size_bytes: int, precision: str | None, arguments: Mapping[str, Any]) -> int:
    """Return the memory of weights of a known size: FP32 that is served in 16 bits takes half.

    Args:
        size_bytes: of the weight files.
        precision: of them; unknown if None.
        arguments: all serving arguments.
    """
    halved = precision == "fp32" and served_precision(precision, arguments) != precision
    return size_bytes // 2 if halved else size_bytes


def check_gpus(source: str, size_bytes: int, arguments: Mapping[str, Any], devices: Hardware) -> None:
    """Refuse a checkpoint whose weight files alone are larger than what the engine takes of the GPUs' memory.

    Weights that the engine changes as it loads them (``quantization``, ``cpu-offload-gb``) are not judged by their
    files.

    Args:
        source: of the checkpoint.
        size_bytes: of its weight files.
        arguments: all its serving arguments.
        devices: the GPUs that serve it.

    Raises:
        ConfigError: it does not fit.
    """
    share = _utilization(arguments.get("gpu-memory-utilization", UTILIZATION))
    memory_bytes = share * devices.memory_bytes * devices.gpu_count
    if CHANGES_WEIGHTS & arguments.keys() or size_bytes <= memory_bytes:
        return
    raise ConfigError(
        f"{size_bytes / 1e9:.1f} GB of weights do not fit {memory_bytes / 1e9:.1f} GB, the engine's share of "
        f"{devices.gpu_count} {devices.gpu}",
        where=source,
        hint="Use more GPUs (the engine argument tensor-parallel-size), larger ones, or a smaller checkpoint.",
    )


def _too_large(shape: Shape, precision: str, gpu: str, context: int, sizes: Sequence[Fit]) -> str:
    most = sizes[-1]
    return (
        f"{shape.model} in {precision} ({most.weights_gb:.1f} GB and a request of {context:,} tokens) "
        f"fits on none of {', '.join(str(size.gpu_count) for size in sizes)} {gpu} ({most.memory_gb:.1f} GB at most)"
    )


def spread(
    model: ModelConfig,
    checkpoints: tuple[CheckpointConfig, ...],
    config: EngineConfig,
    devices: Hardware,
    report: Reporter,
) -> tuple[CheckpointConfig, ...]:
    """Give each checkpoint the tensor-parallel-size that it needs on this host's GPUs.

    A checkpoint that declares a parallelism keeps it. On a CPU and on a MIG slice nothing changes: an engine there has
    one device.

    Args:
        model: whose checkpoints they are.
        checkpoints: with all their engine arguments.
        config: the engine.
        devices: of this host.
        report: receives the reason for each count.

    Raises:
        ConfigError: a checkpoint fits on no number of them, or what it needs can't be computed.
    """
    if not devices.uuids or devices.mig_slice:
        return checkpoints
    architecture, placed = model.architecture or model.name, []
    with configured_in_memory() as connection:
        for checkpoint in checkpoints:
            arguments = serving_arguments(config, checkpoint.engine_arguments)
            need = fitting(
                connection, architecture, checkpoint.precision, devices.gpu, arguments, stored(checkpoint)
            )
            if need.gpus is None:
                raise ConfigError(
                    need.reason,
                    where=checkpoint.source,
                    hint="Lower the engine argument max-model-len, or declare tensor-parallel-size.",
                )
            report.line(f"{checkpoint.source}: {need.reason}")
            placed.append(with_gpus(checkpoint, need))
    return tuple(placed)


def with_gpus(checkpoint: CheckpointConfig, need: Fitting) -> CheckpointConfig:
    """Return the checkpoint with the computed count as its tensor-parallel-size; 1 is the engine's default."""
    if not need.computed or need.gpus in {None, 1}:
        return checkpoint
    return checkpoint.model_copy(
        update={"engine_arguments": checkpoint.engine_arguments | {"tensor-parallel-size": need.gpus}}
    )
