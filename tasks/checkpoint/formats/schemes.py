"""How quantized weights are stored, by the names that their exporters give them; a new format is a row in a table."""

from __future__ import annotations

from typing import NamedTuple


class Scheme(NamedTuple):
    """Storage of one kind of quantized weight."""

    precision: str
    stored_bits: int
    """Bits that one weight takes in the file."""
    weights: tuple[str, ...]
    """Safetensors dtypes a weight may have."""
    scales: tuple[str, ...]
    """Safetensors dtypes its scale may have."""
    weight_only: bool = False
    """True if the exporter left the activations in 16 bits."""
    group_size: int = 0
    """Weights that share a scale, where the configuration says; 0 where it does not."""


_REAL = ("F32", "BF16", "F16")
_E8M0 = ("U8", "F8_E8M0")
FP8 = Scheme("fp8", 8, ("F8_E4M3",), _REAL)
FP8_BLOCK = Scheme("fp8", 8, ("F8_E4M3",), (*_REAL, "F8_E8M0"))
MXFP8 = Scheme("mxfp8", 8, ("F8_E4M3",), _E8M0)
NVFP4 = Scheme("nvfp4", 4, ("U8", "F4"), ("F8_E4M3",))
NVFP4_SCALES_AS_BYTES = Scheme("nvfp4", 4, ("U8",), ("U8", "F8_E4M3"))
MXFP4 = Scheme("mxfp4", 4, ("U8", "I8", "F4"), _E8M0)
INT8 = Scheme("int8", 8, ("I8",), _REAL)
INT4_IN_BYTES = Scheme("int4", 4, ("U8",), _REAL)
INT4_UNPACKED = Scheme("int4", 8, ("I8",), _REAL)
INT8_IN_WORDS = Scheme("int8", 8, ("I32",), _REAL)
INT4_IN_WORDS = Scheme("int4", 4, ("I32",), _REAL)
INT4_PACKED = Scheme("int4", 4, ("U8", "I32"), _REAL)


def weight_only(scheme: Scheme) -> Scheme:
    """Return the scheme with activations of 16 bits."""
    return scheme._replace(weight_only=True)


MODELOPT = {
    "FP8": FP8,
    "FP8_PER_CHANNEL_PER_TOKEN": FP8,
    "FP8_PB_WO": FP8_BLOCK,
    "FP8_PB_REAL": FP8_BLOCK,
    "FP8_BLOCK_SCALES": FP8_BLOCK,
    "MXFP8": MXFP8,
    "NVFP4": NVFP4,
    "NVFP4_AWQ": NVFP4,
    "NVFP4_SVD": NVFP4,
    "W4A16_NVFP4": weight_only(NVFP4),
    "W4A8_NVFP4_FP8": NVFP4,
    "MXFP4": MXFP4,
    "W4A8_MXFP4_FP8": MXFP4,
    "W4A16_AWQ": weight_only(INT4_IN_BYTES),
    "W4A8_AWQ": INT4_IN_BYTES,
    "W8A16": weight_only(INT8),
    "W8A8_SQ_PER_CHANNEL": INT8,
}
"""By ``quant_algo``, as nvidia-modelopt 0.47 exports them (modelopt/torch/export/quant_utils.py)."""

COMPRESSED_TENSORS = {
    ("float-quantized", "float8"): FP8_BLOCK,
    ("naive-quantized", "float8"): FP8_BLOCK,
    ("naive-quantized", "int8"): INT8,
    ("int-quantized", "int8"): INT8,
    ("int-quantized", "int4"): INT4_UNPACKED,
    ("pack-quantized", "int8"): INT8_IN_WORDS,
    ("pack-quantized", "int4"): INT4_IN_WORDS,
    ("nvfp4-pack-quantized", "float4"): NVFP4,
    ("mxfp4-pack-quantized", "float4"): MXFP4,
    ("mxfp8-quantized", "float8"): MXFP8,
}
"""By a group's format, and its weights' type and bits (compressed-tensors 0.17, config/base.py)."""

WORDS = {"4": INT4_IN_WORDS, "8": INT8_IN_WORDS}
"""AWQ, GPTQ and auto-round pack integers into 32-bit words; by their bits."""

AUTO_ROUND = {
    ("int", "4"): INT4_IN_WORDS,
    ("int", "8"): INT8_IN_WORDS,
    ("nv_fp", "4"): NVFP4,
    ("mx_fp", "4"): MXFP4,
    ("mx_fp", "8"): MXFP8,
    ("fp", "8"): FP8_BLOCK,
}
"""By the beginning of ``data_type`` (nv_fp4_with_static_gs is an nv_fp) and ``bits`` (auto-round 0.16)."""

QUARK = {
    ("fp8_e4m3", "per_tensor"): FP8,
    ("fp8_e4m3", "per_channel"): FP8,
    ("fp8_e4m3", "per_block"): FP8_BLOCK,
    ("fp8_e4m3", "per_group"): MXFP8,
    ("int8", "per_tensor"): INT8,
    ("int8", "per_channel"): INT8,
    ("int4", "per_channel"): INT4_IN_WORDS,
    ("int4", "per_group"): INT4_IN_WORDS,
    ("uint4", "per_channel"): INT4_IN_WORDS,
    ("uint4", "per_group"): INT4_IN_WORDS,
    ("fp4", "per_group"): MXFP4,
    ("fp4", "per_group, scales fp8_e4m3"): NVFP4,
}
"""By a weight's ``dtype`` and ``qscheme``, with the dtype of scales that are quantized themselves (amd-quark 0.13)."""

QUARK_SCALES = frozenset({("fp4", "fp8_e4m3")})
"""Dtypes of a weight's stages of which the second quantizes the scales of the first; else it quantizes the numbers."""

TORCHAO = {
    "Float8WeightOnlyConfig": weight_only(FP8),
    "Float8DynamicActivationFloat8WeightConfig": FP8,
    "Float8StaticActivationFloat8WeightConfig": FP8,
    "Int8WeightOnlyConfig": weight_only(INT8),
    "Int8DynamicActivationInt8WeightConfig": INT8,
    "Int4WeightOnlyConfig": weight_only(INT4_PACKED),
    "NVFP4InferenceConfig": NVFP4,
    "NVFP4WeightOnlyConfig": weight_only(NVFP4),
    "NVFP4DynamicActivationNVFP4WeightConfig": NVFP4,
}
"""By the configuration's class (torchao 0.18)."""

FP_QUANT = {"mxfp4": MXFP4, "nvfp4": NVFP4_SCALES_AS_BYTES}
"""By ``forward_dtype`` (FP-Quant)."""

EXPERTS = {"fp4": (MXFP4,), "fp8": (), "None": ()}
"""Schemes that ``expert_dtype`` of an FP8 model's config.json adds (DeepSeek V4 stores its experts apart)."""

KV_DTYPES = {
    "FP8": "fp8",
    "FP8_AFFINE": "fp8",
    "float8": "fp8",
    "NVFP4": "nvfp4",
    "NVFP4_AFFINE": "nvfp4",
    "float4": "nvfp4",
    "int8": "int8",
}
"""KV-cache dtype by ``kv_cache_quant_algo``, or type and bits of ``kv_cache_scheme``; others mean none."""
