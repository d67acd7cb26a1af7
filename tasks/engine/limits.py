"""What a checkpoint and a workload ask of serving arguments, checked before an engine is started for nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantgate.model.config.workloads import Workload
from quantgate.model.errors import ConfigError
from tasks.checkpoint.files import read_json
from tasks.checkpoint.resolve import POSITION_KEYS

WHERE = "engine arguments"
ALLOW_LONG = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"
SCALED_ALREADY = ("default", "su", "longrope", "llama3")
"""RoPE types whose positions are never multiplied; yarn's are by some versions of vLLM (its config/model.py)."""

_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}


def check(arguments: Mapping[str, Any], folder: Path, workload: Workload | None) -> None:
    """Check parallel sizes and the context's length against a checkpoint and the load that is declared.

    Args:
        arguments: serving arguments by name, without dashes.
        folder: the checkpoint's folder; its config.json is read.
        workload: the ladder, whose requests must fit the context.

    Raises:
        ConfigError: the first that doesn't fit, with what does.
    """
    config = read_json(folder / "config.json", str(folder))
    text = config.get("text_config")
    settings = {**config, **text} if isinstance(text, dict) else config
    _check_heads(arguments.get("tensor-parallel-size", 1), settings, folder.name)
    asked = tokens_of(arguments.get("max-model-len"))
    most = None if "hf-overrides" in arguments or os.environ.get(ALLOW_LONG) == "1" else _positions(settings)
    if asked is not None and most is not None and asked > most:
        raise ConfigError(
            f"'max-model-len' is {asked} tokens, and {folder.name} has {most} positions",
            where=WHERE,
            hint=f"Lower it to {most} at most, or leave it out.",
        )
    context = asked if asked is not None else most
    if workload and context is not None and workload.isl_tokens + workload.osl_tokens > context:
        needed = workload.isl_tokens + workload.osl_tokens
        raise ConfigError(
            f"workload '{workload.name}' needs {needed} tokens ({workload.isl_tokens} in, {workload.osl_tokens} out), "
            f"and the engine's context is {context}",
            where=folder.name,
            hint=f"Give --engine-arg max-model-len={needed} or more, or choose a shorter workload.",
        )


def tokens_of(value: Any) -> int | None:
    """A context's length in tokens; None where the engine chooses it ("auto", -1, nothing).

    vLLM reads 32k as 32,000 and 32K as 32,768.

    Raises:
        ConfigError: it is no length.
    """
    if value is None or value == -1 or str(value).lower() == "auto":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgKMG])", str(value).strip())
    if not match:
        raise ConfigError(
            f"'max-model-len' is {value!r}", where=WHERE, hint="Give a number of tokens, e.g. 4096 or 32K."
        )
    return int(float(match[1]) * _SUFFIXES[match[2]])


def divides(size: int, heads: int, kv_heads: int | None) -> bool:
    """Whether vLLM can split the attention over so many devices.

    Key-value heads are divided as well, or replicated where there are fewer of them than devices.

    Args:
        size: of the tensor parallel group, devices.
        heads: attention heads.
        kv_heads: key-value heads; None for multi-head latent attention, which keeps none in its cache.
    """
    return heads % size == 0 and (kv_heads is None or kv_heads % size == 0 or size % kv_heads == 0)


def _check_heads(size: Any, settings: Mapping[str, Any], name: str) -> None:
    """Refuse a tensor parallel size that attention heads can't be divided by, as vLLM would after its imports."""
    heads = settings.get("num_attention_heads")
    if not isinstance(size, int) or size <= 1 or not isinstance(heads, int):
        return
    latent = settings.get("kv_lora_rank") is not None
    kv_heads = heads if latent else settings.get("num_key_value_heads") or heads
    fitting = [n for n in range(1, heads + 1) if divides(n, heads, None if latent else kv_heads)]
    if size not in fitting:
        shared = "" if kv_heads == heads else f" and {kv_heads} key-value heads"
        raise ConfigError(
            f"'tensor-parallel-size' is {size}, which doesn't divide the {heads} attention heads{shared} of {name}",
            where=WHERE,
            hint=f"Sizes that do: {', '.join(map(str, fitting))}.",
        )


def _positions(settings: Mapping[str, Any]) -> int | None:
    """The most positions that any vLLM takes the checkpoint for; None where its config doesn't tell."""
    most = next(
        (settings[k] for k in POSITION_KEYS if type(settings.get(k)) is int and settings[k] > 0), None
    )
    if most is None:
        return None
    longest = settings.get("model_max_length")
    if isinstance(longest, int):
        most = max(most, longest)
    rope = settings.get("rope_scaling") or settings.get("rope_parameters")
    if not isinstance(rope, dict) or "gemma3" in str(settings.get("model_type")):
        return int(most)
    if any(isinstance(value, dict) for value in rope.values()):  # one set for each kind of layer
        return None
    kind, factor = rope.get("rope_type", rope.get("type", "default")), rope.get("factor")
    if kind in SCALED_ALREADY or not isinstance(factor, int | float):
        return int(most)
    original = rope.get("original_max_position_embeddings")
    return max(int(most), int((original if isinstance(original, int) else most) * factor))
