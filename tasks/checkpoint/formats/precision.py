"""Determine a checkpoint's precision: its configuration's declaration, checked against the stored tensors.

A name proves nothing: repositories called "-NVFP4" have held mixed precision, and some changed their content
under the same name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from quantgate.model.errors import ConfigError
from tasks.checkpoint.formats.quant_config import (
    EXPORT_HINT,
    DeclaredFormat,
    Scheme,
    read_declared_format,
    sections,
)
from tasks.checkpoint.safetensors import DTYPE_BITS, Tensor


class Format(NamedTuple):
    """The format that configuration and tensors agree on."""

    precision: str
    weight_format: str
    kv_cache_dtype: str
    parameters: int
    layers: dict[str, int]
    """Weight matrices by their precision, embeddings and head among them."""


class Kind(NamedTuple):
    """A quantized weight as stored: its dtype and its scale's (None where no scale was found)."""

    weight: str
    scale: str | None


PRECISIONS = ("bf16", "fp16", "fp32", "fp8", "mxfp8", "nvfp4", "mxfp4", "int8", "int4", "mixed")

UNQUANTIZED = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}
"""Precision of an unquantized model by the dtype of most of its weights."""

_DTYPES_BY_PRECISION = {precision: dtype for dtype, precision in UNQUANTIZED.items()}

CONFIG_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32"}
"""The same by ``dtype`` (older: ``torch_dtype``) of config.json."""

_SCALES = ("scale", "scales", "scale_inv", "scale_2", "zero_point", "zeros", "qzeros", "inv_freq")
_WEIGHTS = ("weight", "qweight", "packed", "blocks", "proj", "w1", "w2", "w3", "w13")
_SCALE_ENDINGS = ("_scale", "_scale_inv", "_scales", "_weight_scale", "_weight_scale_inv")


def classify(
    config: Mapping[str, Any], hf_quant: Mapping[str, Any] | None, tensors: Mapping[str, Tensor], where: str
) -> Format:
    """Determine precision, weight format, KV-cache dtype and parameters of a checkpoint.

    Args:
        config: config.json.
        hf_quant: hf_quant_config.json (ModelOpt's), where there is one.
        tensors: every tensor of the safetensors headers.
        where: the checkpoint as messages name it.

    Returns:
        The format; its parameters are counted as stored, packed ones unpacked, scales left out.

    Raises:
        ConfigError: an unknown quantization, two configurations that disagree, or tensors that aren't what
            was declared.
    """
    declared = read_declared_format(config, hf_quant, where)
    kinds = {name: kind for name, tensor in tensors.items() if (kind := _kind(name, tensor, tensors))}
    _check(declared, kinds, tensors, where)
    parameters: Counter[str] = Counter()
    layers: Counter[str] = Counter()
    for name, tensor in tensors.items():
        if name in kinds:
            scheme = next(scheme for scheme in declared.schemes if _fits(kinds[name], scheme))
            parameters["quantized"] += tensor.elements * DTYPE_BITS[tensor.dtype] // scheme.stored_bits
            layers[scheme.precision] += 1
        elif tensor.dtype in UNQUANTIZED and not _ends_with(name, _SCALES):
            parameters[tensor.dtype] += tensor.elements
            layers[UNQUANTIZED[tensor.dtype]] += len(tensor.shape) > 1 and not _ends_with(name, ("bias",))
    precisions = {scheme.precision for scheme in declared.schemes}
    if not precisions:
        precisions = {_plain_precision(config, parameters, where)}
    precision = precisions.pop() if len(precisions) == 1 else "mixed"
    counts = {precision: count for precision, count in sorted(layers.items()) if count}
    return Format(precision, declared.weight_format, declared.kv_cache_dtype, parameters.total(), counts)


def classify_unread(
    config: Mapping[str, Any], hf_quant: Mapping[str, Any] | None, size_bytes: int, where: str
) -> Format:
    """Determine the format from the configuration alone, for weights that must not be opened (pickles).

    Args:
        config: config.json.
        hf_quant: hf_quant_config.json, where there is one.
        size_bytes: of the weight files; parameters are estimated from it, as if all had that dtype.
        where: the checkpoint as messages name it.

    Raises:
        ConfigError: the configuration names no dtype, or an unknown quantization.
    """
    declared = read_declared_format(config, hf_quant, where)
    precision = _stated_precision(config, declared)
    if precision is None:
        hint = 'Add "dtype", e.g. "bfloat16", to config.json: pickle weights are not opened to find out.'
        raise ConfigError("config.json names no known 'dtype'", where=where, hint=hint)
    stored_bits = [scheme.stored_bits for scheme in declared.schemes]
    bits = max(stored_bits) if stored_bits else DTYPE_BITS[_DTYPES_BY_PRECISION[precision]]
    weight_format = f"{declared.weight_format} (pickle, unread)"
    return Format(precision, weight_format, declared.kv_cache_dtype, size_bytes * 8 // bits, {})


def stated_format(
    config: Mapping[str, Any], hf_quant: Mapping[str, Any] | None, where: str
) -> tuple[str | None, str]:
    """Return precision (None if not stated) and weight format by the configuration alone, before a download.

    Raises:
        ConfigError: an unknown quantization, or two configurations that disagree.
    """
    declared = read_declared_format(config, hf_quant, where)
    return _stated_precision(config, declared), declared.weight_format


def _stated_precision(config: Mapping[str, Any], declared: DeclaredFormat) -> str | None:
    """Return the precision that a configuration states."""
    precisions = {scheme.precision for scheme in declared.schemes}
    if precisions:
        return precisions.pop() if len(precisions) == 1 else "mixed"
    return next((CONFIG_DTYPES[dtype] for dtype in _stated_dtypes(config) if dtype in CONFIG_DTYPES), None)


def _stated_dtypes(config: Mapping[str, Any]) -> list[str]:
    """Return ``dtype`` (older: ``torch_dtype``) of config.json and of its text_config, if stated."""
    stated = [section.get("dtype") or section.get("torch_dtype") for section in sections(config)]
    return [str(dtype).removeprefix("torch.") for dtype in stated if dtype]


def _ends_with(name: str, endings: tuple[str, ...]) -> bool:
    """Return True if a tensor's own name (after the last dot) is one of the endings, or ends with _ and one."""
    own = name.rpartition(".")[2]
    return own in endings or own.endswith(tuple(f"_{ending}" for ending in endings))


def _kind(name: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> Kind | None:
    """Return the kind of a tensor that holds quantized weights; None for any other."""
    if len(tensor.shape) < 2 or _ends_with(name, _SCALES):
        return None
    eight_bit_float = tensor.dtype.startswith("F8_") or tensor.dtype.startswith("F4")
    if not eight_bit_float and not (tensor.dtype in {"U8", "I8", "I32"} and _ends_with(name, _WEIGHTS)):
        return None
    stem = name.removesuffix("_packed").removesuffix("_blocks")
    parent = name.rpartition(".")[0]
    candidates = (*(stem + ending for ending in _SCALE_ENDINGS), f"{parent}.scales", f"{parent}.scale")
    scale = next((tensors[candidate].dtype for candidate in candidates if candidate in tensors), None)
    return Kind(tensor.dtype, scale)


def _fits(kind: Kind, scheme: Scheme) -> bool:
    """Return True if a weight as stored can be one of the scheme's."""
    return kind.weight in scheme.weights and (kind.scale is None or kind.scale in scheme.scales)


def _check(
    declared: DeclaredFormat, kinds: Mapping[str, Kind], tensors: Mapping[str, Tensor], where: str
) -> None:
    """Refuse tensors that the declaration doesn't explain, and a declaration that no tensor bears out."""
    for name, kind in kinds.items():
        if not any(_fits(kind, scheme) for scheme in declared.schemes):
            scale = f" with {kind.scale} scales" if kind.scale else ""
            stated = f"{declared.stated_in} declares {declared.weight_format}"
            what = f"{stated}, but '{name}' is {kind.weight}{scale}"
            raise ConfigError(what, where=where, hint=EXPORT_HINT)
    for scheme in declared.schemes:
        if not any(_fits(kind, scheme) for kind in kinds.values()):
            stored = ", ".join(sorted({tensor.dtype for tensor in tensors.values()}))
            expected = " or ".join(scheme.weights)
            what = (
                f"{declared.stated_in} declares {declared.weight_format}, but no {scheme.precision} weights "
                f"({expected}) are stored, only {stored}"
            )
            raise ConfigError(what, where=where, hint=EXPORT_HINT)


def _plain_precision(config: Mapping[str, Any], parameters: Counter[str], where: str) -> str:
    """Return the dtype of most weights of an unquantized model; config.json must not contradict it."""
    if not parameters:
        raise ConfigError("no BF16, F16 or F32 weights are stored", where=where, hint=EXPORT_HINT)
    stored = parameters.most_common(1)[0][0]
    for stated in _stated_dtypes(config):
        if stated in CONFIG_DTYPES and CONFIG_DTYPES[stated] != UNQUANTIZED[stored]:
            what = f"config.json says dtype {stated}, but most weights are stored as {stored}"
            hint = "Correct 'dtype' in config.json, or save the model again in the dtype it is served in."
            raise ConfigError(what, where=where, hint=hint)
    return UNQUANTIZED[stored]
