"""Determine a checkpoint's precision: its configuration's declaration, checked against the stored tensors.

A name proves nothing: repositories called "-NVFP4" have held mixed precision, and some changed their content
under the same name. Every tensor is explained, or the checkpoint is refused.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from quantgate.model.errors import ConfigError
from tasks.checkpoint.formats.packed import may_have
from tasks.checkpoint.formats.quant_config import (
    EXPORT_HINT,
    DeclaredFormat,
    read_declared_format,
    sections,
)
from tasks.checkpoint.formats.schemes import INT4_UNPACKED, Scheme
from tasks.checkpoint.safetensors import DTYPE_BITS, Tensor


class Format(NamedTuple):
    """The format that configuration and tensors agree on."""

    precision: str
    weight_format: str
    kv_cache_dtype: str
    parameters: int
    layers: dict[str, int]
    """Weight matrices by their precision, embeddings and head among them."""
    schemes: Mapping[str, int] = {}
    """Weight matrices by how they are stored: as `layers`, and blocks of another size than a format's own and bytes of
    one 4-bit number are named apart."""
    traits: tuple[str, ...] = ()
    """What an engine version may refuse (configs/refusals.yaml)."""
    remarks: tuple[str, ...] = ()
    """Peculiarities to report, one line each."""
    weight_only: bool = False
    """True if some weights are quantized and their activations are not."""

    def recorded(self) -> dict[str, Any]:
        """Return what a checkpoint's record holds of it."""
        fields = ("precision", "weight_format", "kv_cache_dtype", "parameters", "layers", "traits")
        return {name: getattr(self, name) for name in fields}


class Kind(NamedTuple):
    """A quantized weight as stored: its dtype and its scale's (None where no scale was quantized)."""

    weight: str
    scale: str | None


PRECISIONS = ("bf16", "fp16", "fp32", "fp8", "mxfp8", "nvfp4", "mxfp4", "int8", "int4", "mixed")

UNQUANTIZED = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}
"""Precision of an unquantized model by the dtype of most of its weights."""

_DTYPES_BY_PRECISION = {precision: dtype for dtype, precision in UNQUANTIZED.items()}

CONFIG_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32"}
"""The same by ``dtype`` (older: ``torch_dtype``) of config.json."""

_BESIDE = (
    *(
        "scale",
        "scales",
        "scale_inv",
        "scale_2",
        "scale_ub",
        "scale_and_zero",
        "zero_point",
        "zeros",
        "qzeros",
        "inv_freq",
    ),
    *("shape", "g_idx", "perm", "amax", "hadamard_matrix", "svdquant_lora_a", "svdquant_lora_b"),
)
"""Endings of what is stored beside weights to read them, and is no parameter."""
_BUFFERS = (
    *("bias", "mask", "position_ids", "token_type_ids", "num_batches_tracked", "relative_position_index"),
    *("tid2eid", "d2t", "t2d", "freqs_cis", "index"),
)
"""Endings of tables of integers and flags that a model needs, and that are no weights."""
_WEIGHTS = (
    "weight",
    "qweight",
    "packed",
    "blocks",
    "proj",
    "w1",
    "w2",
    "w3",
    "w13",
    "wi",
    "wo",
    "kernel",
    "qdata",
)
_SCALE_ENDINGS = ("_scale", "_scale_inv", "_scales", "_weight_scale", "_weight_scale_inv")
_LOCATIONS = ("input", "output", "weight_input", "weight_output", "k_cache", "q_attn")
"""Where compressed-tensors applies a rotation (transform_args.py)."""
_KV_BIASES = ("k_bias", "v_bias")
_HEADS = {"lm_head": "lm_head", "head": "lm_head", "output": "lm_head", "embed_out": "lm_head"}
_HEADS |= dict.fromkeys(("embed_tokens", "wte", "word_embeddings", "embed"), "embedding")
_NVFP4_BLOCK = 16


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
        ConfigError: an unknown quantization, or tensors that aren't what was declared or that nothing explains.
    """
    declared = read_declared_format(config, hf_quant, where)
    weights = {name: tensor for name, tensor in tensors.items() if not _is_beside(name, tensor, declared)}
    kinds = {
        name: _kind(name, tensors) for name, tensor in weights.items() if tensor.dtype not in UNQUANTIZED
    }
    quantized = {name: _scheme_of(name, kind, tensors, declared, where) for name, kind in kinds.items()}
    _check(declared, set(quantized.values()), weights, kinds, where)
    parameters: Counter[str] = Counter()
    layers: Counter[str] = Counter()
    for name, tensor in weights.items():
        if name in quantized:
            parameters["quantized"] += _numbers(name, tensors, quantized[name])
            layers[quantized[name].precision] += 1
        else:
            parameters[tensor.dtype] += tensor.elements
            layers[UNQUANTIZED[tensor.dtype]] += len(tensor.shape) > 1 and not _ends_with(name, ("bias",))
    precisions = {scheme.precision for scheme in quantized.values()}
    if not precisions:
        precisions = {_plain_precision(config, parameters, where)}
    precision = precisions.pop() if len(precisions) == 1 else "mixed"
    labels = Counter(_label(name, tensors, scheme) for name, scheme in quantized.items())
    plain = {name: layers[name] for name in UNQUANTIZED.values() if layers[name]}
    odd = sorted(label for label in labels if label not in PRECISIONS)
    return Format(
        precision,
        declared.weight_format + (f" ({', '.join(odd)})" if odd else ""),
        declared.kv_cache_dtype,
        parameters.total(),
        {precision: count for precision, count in sorted(layers.items()) if count},
        dict(sorted((plain | labels).items())),
        tuple(dict.fromkeys((*declared.traits, *_traits(tensors, quantized, odd, declared)))),
        declared.remarks,
        any(scheme.weight_only for scheme in quantized.values()),
    )


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
    stated = stated_format(config, hf_quant, where)
    if stated.precision is None:
        hint = 'Add "dtype", e.g. "bfloat16", to config.json: pickle weights are not opened to find out.'
        raise ConfigError("config.json names no known 'dtype'", where=where, hint=hint)
    stored_bits = [scheme.stored_bits for scheme in stated.declared.schemes]
    bits = max(stored_bits) if stored_bits else DTYPE_BITS[_DTYPES_BY_PRECISION[stated.precision]]
    weight_format = f"{stated.weight_format} (pickle, unread)"
    declared = stated.declared
    return Format(
        stated.precision,
        weight_format,
        declared.kv_cache_dtype,
        size_bytes * 8 // bits,
        {},
        traits=declared.traits,
        remarks=declared.remarks,
    )


class StatedFormat(NamedTuple):
    """The format by the configuration alone."""

    precision: str | None
    """None where it is not stated."""
    weight_format: str
    declared: DeclaredFormat


def stated_format(config: Mapping[str, Any], hf_quant: Mapping[str, Any] | None, where: str) -> StatedFormat:
    """Return precision and weight format by the configuration alone, before a download.

    Raises:
        ConfigError: an unknown quantization.
    """
    declared = read_declared_format(config, hf_quant, where)
    return StatedFormat(_stated_precision(config, declared), declared.weight_format, declared)


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
    return f"_{name.rpartition('.')[2]}".endswith(_underscored(endings))


@lru_cache
def _underscored(endings: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"_{ending}" for ending in endings)


def _is_beside(name: str, tensor: Tensor, declared: DeclaredFormat) -> bool:
    """Return True if a tensor is no weight: what others are read with, a table, or the KV cache's own."""
    if _ends_with(name, _BESIDE) or (tensor.dtype == "BOOL"):
        return True
    parts = name.split(".")
    if parts[-1] in _KV_BIASES and len(tensor.shape) > 1:
        return True
    if any(f"{name}_{location}" in parts for name in declared.transforms for location in _LOCATIONS):
        return True
    return tensor.dtype not in UNQUANTIZED and (tensor.elements <= 1 or _ends_with(name, _BUFFERS))


def _kind(name: str, tensors: Mapping[str, Tensor]) -> Kind:
    """Return how a quantized weight is stored."""
    scale = _scale_of(name, tensors)
    return Kind(tensors[name].dtype, scale.dtype if scale else None)


def _scale_of(name: str, tensors: Mapping[str, Tensor]) -> Tensor | None:
    """Return the scales of a quantized weight."""
    stem = name.removesuffix("_packed").removesuffix("_blocks").removesuffix("_qdata")
    parent = name.rpartition(".")[0]
    candidates = (*(stem + ending for ending in _SCALE_ENDINGS), f"{parent}.scales", f"{parent}.scale")
    return next((tensors[candidate] for candidate in candidates if candidate in tensors), None)


def _scheme_of(
    name: str, kind: Kind, tensors: Mapping[str, Tensor], declared: DeclaredFormat, where: str
) -> Scheme:
    """Return the scheme of a quantized weight: the one its layer is named with, else any declared one that fits.

    Raises:
        ConfigError: none fits.
    """
    named = declared.layers.scheme_of(name)
    candidates: tuple[Scheme, ...] = (*declared.schemes, *declared.allowed)
    candidates = (named, *candidates) if named else candidates
    if len(tensors[name].shape) > 1 and _ends_with(name, _WEIGHTS):
        for scheme in candidates:
            if _fits(kind, scheme) and (
                kind.weight != "I32" or may_have(scheme.stored_bits, name, tensors, scheme.group_size)
            ):
                return scheme
    scale = f" with {kind.scale} scales" if kind.scale else ""
    stated = f"{declared.stated_in} declares {declared.weight_format}"
    raise ConfigError(f"{stated}, but '{name}' is {kind.weight}{scale}", where=where, hint=EXPORT_HINT)


def _fits(kind: Kind, scheme: Scheme) -> bool:
    """Return True if a weight as stored can be one of the scheme's."""
    return kind.weight in scheme.weights and (kind.scale is None or kind.scale in scheme.scales)


def _numbers(name: str, tensors: Mapping[str, Tensor], scheme: Scheme) -> int:
    """Return how many numbers a quantized weight holds; packing may have padded it."""
    sizes = tensors.get(f"{name.removesuffix('_packed')}_shape")
    if sizes is not None and sizes.values and 0 not in sizes.values:
        return math.prod(sizes.values)
    return tensors[name].elements * DTYPE_BITS[tensors[name].dtype] // scheme.stored_bits


def _label(name: str, tensors: Mapping[str, Tensor], scheme: Scheme) -> str:
    """Return a scheme's name: its precision, with what is unusual about how it is stored."""
    if scheme.weights == INT4_UNPACKED.weights and scheme.precision == "int4":
        return "int4-in-bytes"
    scale, weight = _scale_of(name, tensors), tensors[name]
    if (
        scheme.precision == "nvfp4"
        and scale
        and scale.shape[:-1] == weight.shape[:-1]
        and scale.shape[-1:] > (0,)
    ):
        numbers = weight.shape[-1] * DTYPE_BITS[weight.dtype] // scheme.stored_bits
        block = numbers // scale.shape[-1]
        return "nvfp4" if block == _NVFP4_BLOCK else f"nvfp4-g{block}"
    return scheme.precision


def _traits(
    tensors: Mapping[str, Tensor],
    quantized: Mapping[str, Scheme],
    odd: Iterable[str],
    declared: DeclaredFormat,
) -> Iterator[str]:
    """Yield what the tensors show that an engine version may refuse."""
    exporter = declared.weight_format.partition(":")[0]
    for name in quantized:
        part = _HEADS.get(name.rpartition(".")[0].rpartition(".")[2])
        if part and ".layers." not in name:
            yield f"{exporter}:quantized {part}"
    if any(name.endswith(_KV_BIASES) and len(tensor.shape) > 1 for name, tensor in tensors.items()):
        yield "kv:affine"
    for precision in sorted({scheme.precision for scheme in quantized.values()}):
        yield f"holds:{precision}"
        yield f"{exporter}:holds {precision}"
    yield from (f"holds:{label}" for label in odd)
    if any("experts" in name.split(".") for name in quantized):
        yield "experts:quantized"


def _check(
    declared: DeclaredFormat,
    quantized: set[Scheme],
    weights: Mapping[str, Tensor],
    kinds: Mapping[str, Kind],
    where: str,
) -> None:
    """Refuse a declaration that no tensor bears out, and an unquantized tensor that is no layer's weight or bias."""
    precisions = {scheme.precision for scheme in quantized}
    for scheme in declared.schemes:
        if scheme.precision in precisions or (declared.any_of and quantized):
            continue
        stored = ", ".join(sorted({tensor.dtype for tensor in weights.values()}))
        expected = " or ".join(scheme.weights)
        what = (
            f"{declared.stated_in} declares {declared.weight_format}, but no {scheme.precision} weights "
            f"({expected}) are stored, only {stored}"
        )
        raise ConfigError(what, where=where, hint=EXPORT_HINT)
    modules = {name.rpartition(".")[0] for name in kinds}
    for name, tensor in weights.items():
        unusual = len(tensor.shape) > 1 and not _ends_with(name, (*_WEIGHTS, "bias"))
        if unusual and name not in kinds and name.rpartition(".")[0] in modules:
            what = f"'{name}' ({tensor.dtype}) lies beside a quantized weight, and nothing explains it"
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
