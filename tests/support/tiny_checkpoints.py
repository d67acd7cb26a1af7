"""Checkpoints of a few kilobytes, tensors by dtype and shape, in the layouts that exporters write."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantgate.model.records import Checkpoint

BITS = {
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "U8": 8,
    "I8": 8,
    "BF16": 16,
    "F16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
}

Layout = Mapping[str, tuple[str, tuple[int, ...]]]

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "vocab_size": 64,
    "max_position_embeddings": 256,
    "dtype": "bfloat16",
}

Q = "model.layers.0.self_attn.q_proj"
REST: Layout = {
    "model.embed_tokens.weight": ("BF16", (64, 128)),
    "model.norm.weight": ("BF16", (128,)),
    "lm_head.weight": ("BF16", (64, 128)),
}
PLAIN: Layout = {f"{Q}.weight": ("BF16", (128, 128)), **REST}
PARAMETERS = 2 * 64 * 128 + 128 + 128 * 128
"""Of PLAIN, and of every layout that quantizes its one linear layer."""


def safetensors(layout: Layout, metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of zeros."""
    table: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, (dtype, shape) in layout.items():
        begin, end = end, end + math.prod(shape) * BITS[dtype] // 8
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + bytes(end)


def checkpoint_files(
    layout: Layout = PLAIN, *, quantization: Any = None, hf_quant: Any = None, **config: Any
) -> dict[str, bytes]:
    """The files of a checkpoint by name; ``config`` adds to config.json."""
    settings = {**CONFIG, **config}
    if quantization is not None:
        settings["quantization_config"] = quantization
    files = {
        "config.json": json.dumps(settings).encode(),
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b"{}",
        "model.safetensors": safetensors(layout, {"format": "pt"}),
    }
    if hf_quant is not None:
        files["hf_quant_config.json"] = json.dumps(hf_quant).encode()
    return files


def write_checkpoint(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files into a folder, made if need be."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def bare_checkpoint(**differs: Any) -> Checkpoint:
    """The record of a checkpoint that is nowhere, for what only passes it on."""
    return Checkpoint(
        **{
            "source": "x",
            "path": "/nowhere/x",
            "name": "x",
            "revision": "sha256:1",
            "model": "x",
            "architecture": "LlamaForCausalLM",
            "precision": "bf16",
            "weight_format": "unquantized",
            "kv_cache_dtype": "auto",
            "parameters": 1,
            "size_bytes": 1,
            "vocab_size": 256,
            **differs,
        }
    )
