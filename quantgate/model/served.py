"""What an engine makes of what a checkpoint stores: the dtypes that its weights and its KV cache are served in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_DTYPES = {"half": "fp16", "float16": "fp16", "bfloat16": "bf16", "float": "fp32", "float32": "fp32"}
"""Precision by vLLM's argument ``dtype``."""
_UNQUANTIZED = frozenset(_DTYPES.values())


def served_precision(stored: str, arguments: Mapping[str, Any]) -> str:
    """Return the precision that weights are served in.

    vLLM rounds FP32 to 16 bits unless ``dtype`` says otherwise (its config/model.py, ``_resolve_auto_dtype``);
    quantized weights stay as they are.

    Args:
        stored: the checkpoint's precision.
        arguments: serving arguments, named as vLLM's help does.
    """
    if stored not in _UNQUANTIZED:
        return stored
    return _DTYPES.get(str(arguments.get("dtype", "auto")), "bf16" if stored == "fp32" else stored)


def served_kv_cache_dtype(declared: str, arguments: Mapping[str, Any]) -> str:
    """Return the dtype that the KV cache is served in: the engine's argument, else what the files declare.

    Args:
        declared: by the checkpoint's files; auto is the model's own dtype.
        arguments: serving arguments, named as vLLM's help does.
    """
    given = str(arguments.get("kv-cache-dtype", "auto"))
    return declared if given == "auto" else given
