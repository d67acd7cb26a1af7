"""How many GPUs a checkpoint needs, from the warehouse's view ``memory_fit``: nobody types it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from quantgate.model.config.engines import EngineConfig
from quantgate.model.config.models import CheckpointConfig, ModelConfig
from quantgate.model.errors import ConfigError
from quantgate.model.records import Hardware
from tasks.engine import limits
from tasks.engine.server import PARALLEL_ARGUMENTS, gpu_count, serving_arguments
from tasks.progress import Reporter
from warehouse.database import Connection
from warehouse.estimates import Fit, Shape, configured, memory_fits, shape_of

COUNTS = (1, 2, 4, 8)
"""Tensor-parallel sizes that are tried: those of one host."""
UTILIZATION = 0.9
"""vLLM's own gpu-memory-utilization, where the engine's arguments don't say."""
WIDEST = "bf16"
"""The most that vLLM makes of a checkpoint's weights by itself: what fits so, fits in any other precision."""


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
    asks for no more GPUs. The count must split the attention heads.

    Args:
        connection: a warehouse with the configuration.
        model: a name of configs/architectures, an organization before it doesn't matter.
        precision: of the weights; where it isn't declared, one GPU does if it holds them as bf16.
        gpu: a key of gpus.yaml.
        arguments: all the engine's serving arguments; a declared parallelism is taken as it is.

    Returns:
        The count and, in words, why; 1, and not computed, for a model without a shape.

    Raises:
        ConfigError: an argument is wrong, or the shape is known and something else that decides the count isn't.
    """
    if declared := [name for name in PARALLEL_ARGUMENTS if name in arguments]:
        return Fitting(gpu_count(arguments), False, f"declared ({', '.join(declared)})")
    shape = shape_of(connection, model)
    if shape is None:
        return Fitting(1, False, f"1 {gpu} is taken: '{model}' is none of configs/architectures")
    context = limits.tokens_of(arguments.get("max-model-len")) or shape.context_max_tokens
    if context is None:
        raise _undecided(shape, gpu, "its longest context isn't, give max-model-len")
    ask = partial(
        memory_fits,
        connection,
        shape.model,
        gpu=gpu,
        context_tokens=context,
        utilization=_utilization(arguments.get("gpu-memory-utilization", UTILIZATION)),
        counts=COUNTS,
    )
    kv_dtype = str(arguments.get("kv-cache-dtype", "auto"))
    kv_dtype = str(arguments.get("kv-cache-dtype", "auto"))
    taken = precision or WIDEST
    found = ask(taken, kv_dtype=kv_dtype)
    if not found:
        what = f"a KV cache of type '{kv_dtype}'" if ask(taken, kv_dtype="auto") else f"{taken} in its memory"
        raise _undecided(shape, gpu, f"nothing is known of {what}")
    kv_heads = None if shape.mla else shape.kv_heads
    fits = [one for one in found if one.fits and limits.divides(one.gpu_count, shape.heads, kv_heads)]
    if precision is None and (not fits or fits[0].gpu_count > 1):
        raise _undecided(shape, gpu, f"its precision isn't declared, and {WIDEST} takes more than one")
    if not fits:
        return Fitting(None, True, _too_large(shape, taken, gpu, context, found[-1]))
    least = fits[0]
    return Fitting(
        least.gpu_count,
        True,
        f"{least.weights_gb:.1f} GB of {taken} weights leave {least.kv_cache_tokens:,} tokens of KV cache "
        f"on {least.gpu_count} {gpu}; a request may have {context:,}",
    )


def _undecided(shape: Shape, gpu: str, why: str) -> ConfigError:
    """One GPU taken for want of knowledge would let a 70B fail after its download."""
    return ConfigError(
        f"how many {gpu} {shape.model} needs isn't known: {why}",
        where="engine arguments",
        hint="Correct it, or declare the engine argument tensor-parallel-size.",
    )


def _utilization(value: Any) -> float:
    """The engine's share of each GPU's memory, above 0 and at most 1."""
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
        ConfigError: one doesn't fit on any number of them, or what it needs can't be told.
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
            hint="Lower the engine argument max-model-len, or declare tensor-parallel-size.",
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
