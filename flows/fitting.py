"""How many GPUs a checkpoint needs, from the warehouse's view ``memory_fit``: nobody types it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantgate.model.config import EngineConfig
from quantgate.model.errors import ConfigError
from quantgate.model.models import CheckpointConfig, ModelConfig
from quantgate.model.records import Hardware
from tasks.engine import PARALLEL_ARGUMENTS, gpu_count, serving_arguments
from tasks.progress import Reporter
from warehouse.database import Connection
from warehouse.estimates import Fit, Shape, configured, memory_fits, shape_of

COUNTS = (1, 2, 4, 8)
"""Tensor-parallel sizes that are tried: those of one host."""
UTILIZATION = 0.9
"""vLLM's own gpu-memory-utilization, where the engine's arguments don't say."""


@dataclass(frozen=True)
class Fitting:
    """GPUs that a checkpoint needs; None where it fits on none of the counts."""

    gpus: int | None
    computed: bool
    """Whether the count comes from ``memory_fit``; else it was declared, or it is 1 for want of a shape."""
    reason: str


def fitting(
    connection: Connection, model: str, precision: str | None, gpu: str, arguments: Mapping[str, Any]
) -> Fitting:
    """The fewest GPUs of a type that serve a checkpoint.

    Served means: the weights and one request of the longest context lie in the memory that the engine takes
    (the practical model of ``memory_fit``), because vLLM refuses to start where they don't. That context is the
    engine's max-model-len, else the model's own. A larger load than memory holds only waits, so the workload
    asks for no more GPUs. The count divides the attention heads, and the KV heads or is a multiple of them
    (vLLM's attention layers ask for it).

    Args:
        connection: a warehouse with the configuration.
        model: a name of configs/architectures, an organization before it doesn't matter.
        precision: of the weights.
        gpu: a key of gpus.yaml.
        arguments: all the engine's serving arguments; a declared parallelism is taken as it is.

    Returns:
        The count and, in words, why.
    """
    if declared := [name for name in PARALLEL_ARGUMENTS if name in arguments]:
        return Fitting(gpu_count(arguments), False, f"declared ({', '.join(declared)})")
    shape = shape_of(connection, model)
    if shape is None:
        return Fitting(1, False, f"1 {gpu} is taken: '{model}' is none of configs/architectures")
    context = arguments.get("max-model-len") or shape.context_max_tokens
    if precision is None or not isinstance(context, int) or context < 1:
        unknown = "precision" if precision is None else "longest context"
        return Fitting(1, False, f"1 {gpu} is taken: the {unknown} of {shape.model} isn't known as a number")
    found = memory_fits(
        connection,
        shape.model,
        precision,
        gpu,
        context_tokens=context,
        utilization=float(arguments.get("gpu-memory-utilization", UTILIZATION)),
        kv_dtype=str(arguments.get("kv-cache-dtype", "auto")),
        counts=COUNTS,
    )
    if not found:
        return Fitting(1, False, f"1 {gpu} is taken: nothing is known of {precision} in its memory")
    fits = [one for one in found if one.fits and _divides(one.gpu_count, shape)]
    if not fits:
        return Fitting(None, True, _too_large(shape, precision, gpu, context, found[-1]))
    least = fits[0]
    return Fitting(
        least.gpu_count,
        True,
        f"{least.weights_gb:.1f} GB of {precision} weights leave {least.kv_cache_tokens:,} tokens of KV cache "
        f"on {least.gpu_count} {gpu}; a request may have {context:,}",
    )


def _divides(gpus: int, shape: Shape) -> bool:
    """Whether vLLM can split the attention over so many GPUs; MLA's latent lies on each of them."""
    kv_split = shape.mla or shape.kv_heads % gpus == 0 or gpus % shape.kv_heads == 0
    return shape.heads % gpus == 0 and kv_split


def _too_large(shape: Shape, precision: str, gpu: str, context: int, most: Fit) -> str:
    return (
        f"{shape.model} in {precision} ({most.weights_gb:.1f} GB and a request of {context:,} tokens) "
        f"fits on none of {', '.join(map(str, COUNTS))} {gpu} ({most.memory_gb:.1f} GB at the most)"
    )


def spread(
    model: ModelConfig,
    checkpoints: tuple[CheckpointConfig, ...],
    config: EngineConfig,
    found: Hardware,
    report: Reporter,
) -> tuple[CheckpointConfig, ...]:
    """Each checkpoint with the tensor-parallel-size that it needs on this host's GPUs.

    One that declares a parallelism keeps it. On a CPU, and on a MIG slice, which has no other beside it,
    nothing changes.

    Args:
        model: whose checkpoints they are.
        checkpoints: with all their engine arguments.
        config: the engine.
        found: what the host has.
        report: where a count that isn't computed is told.

    Raises:
        ConfigError: one doesn't fit on any number of them.
    """
    if not found.uuids or found.mig_slice:
        return checkpoints
    with configured() as connection:
        return tuple(_spread(connection, model, one, config, found, report) for one in checkpoints)


def _spread(
    connection: Connection,
    model: ModelConfig,
    one: CheckpointConfig,
    config: EngineConfig,
    found: Hardware,
    report: Reporter,
) -> CheckpointConfig:
    arguments = serving_arguments(config, one.engine_arguments)
    need = fitting(connection, model.architecture or model.name, one.precision, found.gpu, arguments)
    if need.gpus is None:
        raise ConfigError(
            need.reason,
            where=one.source,
            mend="Lower the engine argument max-model-len, or declare tensor-parallel-size.",
        )
    report.line(f"{one.source}: {need.reason}")
    return with_gpus(one, need)


def with_gpus(one: CheckpointConfig, need: Fitting) -> CheckpointConfig:
    """The checkpoint with the computed count as its tensor-parallel-size; 1 is what an engine does by itself."""
    if not need.computed or need.gpus in {None, 1}:
        return one
    return one.model_copy(
        update={"engine_arguments": one.engine_arguments | {"tensor-parallel-size": need.gpus}}
    )
