"""Read what a checkpoint's configuration declares of its weights; a new format is a row in a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from quantgate.model.errors import ConfigError


class Scheme(NamedTuple):
    """Storage of one kind of quantized weight."""

    precision: str
    stored_bits: int
    """Bits that one weight takes in the file."""
    weights: tuple[str, ...]
    """Safetensors dtypes a weight may have."""
    scales: tuple[str, ...]
    """Safetensors dtypes its scale may have."""


class DeclaredFormat(NamedTuple):
    """Format of the weights as a configuration declares it; an unquantized model has no scheme."""

    weight_format: str
    schemes: tuple[Scheme, ...]
    kv_cache_dtype: str = "auto"
    stated_in: str = "config.json"


_REAL = ("F32", "BF16", "F16")
_E8M0 = ("U8", "F8_E8M0")
FP8 = Scheme("fp8", 8, ("F8_E4M3",), _REAL)
FP8_BLOCK = Scheme("fp8", 8, ("F8_E4M3",), (*_REAL, "F8_E8M0"))
MXFP8 = Scheme("mxfp8", 8, ("F8_E4M3",), _E8M0)
NVFP4 = Scheme("nvfp4", 4, ("U8", "F4"), ("F8_E4M3",))
MXFP4 = Scheme("mxfp4", 4, ("U8", "I8", "F4"), _E8M0)
INT8 = Scheme("int8", 8, ("I8",), _REAL)
INT4_IN_BYTES = Scheme("int4", 4, ("U8",), _REAL)
INT4_UNPACKED = Scheme("int4", 8, ("I8",), _REAL)
INT8_IN_WORDS = Scheme("int8", 8, ("I32",), _REAL)
INT4_IN_WORDS = Scheme("int4", 4, ("I32",), _REAL)

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
    "W4A16_NVFP4": NVFP4,
    "W4A8_NVFP4_FP8": NVFP4,
    "MXFP4": MXFP4,
    "W4A8_MXFP4_FP8": MXFP4,
    "W4A16_AWQ": INT4_IN_BYTES,
    "W4A8_AWQ": INT4_IN_BYTES,
    "W8A16": INT8,
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

EXPERTS = {"fp4": (MXFP4,), "fp8": (), "None": ()}
"""Schemes that ``expert_dtype`` of an FP8 model's config.json adds (DeepSeek V4 stores its experts apart)."""

KV_DTYPES = {"FP8": "fp8", "float8": "fp8", "NVFP4": "nvfp4", "float4": "nvfp4"}
"""KV-cache dtype by ``kv_cache_quant_algo``, or type and bits of ``kv_cache_scheme``; others mean none."""

QUANT_FILE = "hf_quant_config.json"
"""ModelOpt's own file beside config.json."""

QUANTIZATION_KEYS = ("quantization_config", "compression_config")
"""Keys of config.json, or of its ``text_config``, that hold the quantization."""

EXPORT_HINT = "Export the model again, or give a revision whose files agree."


def sections(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Return config.json and, of a multimodal model, the ``text_config`` in it, where its keys may be."""
    text_config = config.get("text_config")
    return (config, text_config) if isinstance(text_config, dict) else (config,)


def read_declared_format(
    config: Mapping[str, Any], hf_quant: Mapping[str, Any] | None, where: str
) -> DeclaredFormat:
    """Read what config.json and hf_quant_config.json say of the weights.

    Raises:
        ConfigError: an unknown quantization, or the two disagree.
    """
    own = _own_quantization(config)
    if hf_quant is not None:
        beside = _mapping(hf_quant.get("quantization"), "hf_quant_config.json: quantization", where)
        second = _read_modelopt(beside, where, "hf_quant_config.json")
        if own is None:
            return second
        if isinstance(own, dict):
            own = {"quantized_layers": beside.get("quantized_layers"), **own}
    if own is None:
        return DeclaredFormat("unquantized", ())
    settings = {
        "expert_dtype": config.get("expert_dtype"),
        **_mapping(own, "config.json: quantization_config", where),
    }
    method = str(settings.get("quant_method", "")).lower()
    if method not in METHODS:
        what = f"config.json declares the quantization method '{method[:40]}', whose precision is unknown"
        raise ConfigError(what, where=where, hint=f"Known: {', '.join(METHODS)}.")
    first = METHODS[method](settings, where)
    if hf_quant is not None and (set(first.schemes), first.kv_cache_dtype) != (
        set(second.schemes),
        second.kv_cache_dtype,
    ):
        raise ConfigError(f"{_say(first)}, but {_say(second)}", where=where, hint=EXPORT_HINT)
    return first


def _say(declared: DeclaredFormat) -> str:
    """Describe a declaration in a few words."""
    return f"{declared.stated_in} says {declared.weight_format} with KV cache {declared.kv_cache_dtype}"


def _own_quantization(config: Mapping[str, Any]) -> Any:
    """Return the quantization that config.json states, or None."""
    stated = (section.get(key) for section in sections(config) for key in QUANTIZATION_KEYS)
    return next((value for value in stated if value is not None), None)


def _mapping(value: Any, what: str, where: str) -> dict[str, Any]:
    """Return the value, which must be a JSON object."""
    if not isinstance(value, dict):
        raise ConfigError(f"{what} is not a JSON object", where=where, hint=EXPORT_HINT)
    return value


def _choose(table: Mapping[Any, Scheme], key: Any, what: str, where: str) -> Scheme:
    """Return the scheme of a table, or raise a ConfigError that names the unknown one."""
    if key not in table:
        known = ", ".join(" ".join(k) if isinstance(k, tuple) else str(k) for k in table)
        raise ConfigError(f"{what[:120]} is not a known weight format", where=where, hint=f"Known: {known}.")
    return table[key]


def _kv_dtype(value: Any) -> str:
    """Return the KV-cache dtype from an algorithm's name or a scheme."""
    if isinstance(value, dict):
        return KV_DTYPES.get(f"{value.get('type')}{value.get('num_bits')}", "auto")
    return KV_DTYPES.get(str(value).upper(), "auto")


def _read_modelopt(settings: dict[str, Any], where: str, stated_in: str = "config.json") -> DeclaredFormat:
    """Read ModelOpt's own form, or the one it converts to for config.json."""
    inner = _mapping(settings.get("quantization", settings), f"{stated_in}: quantization", where)
    kv_cache_dtype = _kv_dtype(inner.get("kv_cache_quant_algo") or inner.get("kv_cache_scheme"))
    algorithm = str(inner.get("quant_algo") or "").upper()
    if not algorithm:
        return DeclaredFormat("unquantized", (), kv_cache_dtype, stated_in)
    algorithms = {algorithm}
    if algorithm == "MIXED_PRECISION":
        layers = _mapping(inner.get("quantized_layers") or None, f"{stated_in}: quantized_layers", where)
        layers = {name: _mapping(layer, f"{stated_in}: {name[:60]}", where) for name, layer in layers.items()}
        algorithms = {str(layer.get("quant_algo")).upper() for layer in layers.values()}
    schemes = tuple(
        _choose(MODELOPT, name, f"{stated_in}: quant_algo {name}", where) for name in sorted(algorithms)
    )
    return DeclaredFormat(f"modelopt:{algorithm}", schemes, kv_cache_dtype, stated_in)


def _read_compressed_tensors(settings: dict[str, Any], where: str) -> DeclaredFormat:
    """Read compressed-tensors: one scheme for each group of layers."""
    groups = _mapping(settings.get("config_groups"), "config.json: config_groups", where)
    schemes, labels = [], set()
    for name, entry in groups.items():
        group = _mapping(entry, f"config.json: {name[:60]}", where)
        weights = _mapping(group.get("weights"), f"config.json: {name[:60]}.weights", where)
        inputs = group.get("input_activations")
        inputs = inputs if isinstance(inputs, dict) else {"num_bits": 16}
        layout = str(group.get("format") or settings.get("format"))
        key = (layout, f"{weights.get('type')}{weights.get('num_bits')}")
        schemes.append(_choose(COMPRESSED_TENSORS, key, f"config.json: {' '.join(key)}", where))
        strategy = str(weights.get("strategy") or "tensor")
        dynamic = "-dynamic" if inputs.get("dynamic") is True else ""
        labels.add(f"{layout}/w{weights['num_bits']}a{inputs.get('num_bits')}-{strategy[:20]}{dynamic}")
    kv_cache_dtype = _kv_dtype(settings.get("kv_cache_scheme"))
    weight_format = f"compressed-tensors:{'+'.join(sorted(labels))}" if schemes else "unquantized"
    return DeclaredFormat(weight_format, tuple(schemes), kv_cache_dtype)


def _read_words(settings: dict[str, Any], where: str) -> DeclaredFormat:
    """Read AWQ, GPTQ and auto-round."""
    method = str(settings["quant_method"]).lower()
    bits = str(settings.get("bits", settings.get("w_bit")))
    return DeclaredFormat(method, (_choose(WORDS, bits, f"config.json: {method} with {bits} bits", where),))


def _read_fp8(settings: dict[str, Any], where: str) -> DeclaredFormat:
    """Read DeepSeek's FP8: scales by block (or by tensor), experts perhaps in another format."""
    expert_dtype = str(settings.get("expert_dtype"))
    if expert_dtype not in EXPERTS:
        what = f"config.json: expert_dtype '{expert_dtype[:40]}' is not a known weight format"
        raise ConfigError(what, where=where, hint="Known: fp8, fp4.")
    granularity = "block" if settings.get("weight_block_size") else "tensor"
    return DeclaredFormat(f"fp8:{granularity}", (FP8_BLOCK, *EXPERTS[expert_dtype]))


METHODS: dict[str, Callable[[dict[str, Any], str], DeclaredFormat]] = {
    "modelopt": _read_modelopt,
    "modelopt_fp4": _read_modelopt,
    "modelopt_mxfp8": _read_modelopt,
    "modelopt_mixed": _read_modelopt,
    "compressed-tensors": _read_compressed_tensors,
    "awq": _read_words,
    "gptq": _read_words,
    "auto-round": _read_words,
    "fp8": _read_fp8,
    "fbgemm_fp8": lambda _settings, _where: DeclaredFormat("fbgemm_fp8", (FP8,)),
    "mxfp4": lambda _settings, _where: DeclaredFormat("mxfp4", (MXFP4,)),
}
"""Readers of a quantization_config, by its ``quant_method``; each takes it and the checkpoint as messages name it."""
