"""Read what a checkpoint's configuration declares of its weights, by the precedence of vLLM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from quantgate.model.config.architectures import language_part
from quantgate.model.errors import ConfigError
from tasks.checkpoint.formats.layers import Layers, read_layers
from tasks.checkpoint.formats.schemes import (
    AUTO_ROUND,
    COMPRESSED_TENSORS,
    EXPERTS,
    FP8,
    FP8_BLOCK,
    FP_QUANT,
    INT8,
    KV_DTYPES,
    MODELOPT,
    MXFP4,
    MXFP8,
    QUARK,
    QUARK_SCALES,
    TORCHAO,
    WORDS,
    Scheme,
    weight_only,
)


class DeclaredFormat(NamedTuple):
    """Format of the weights as a configuration declares it; an unquantized model has no scheme."""

    weight_format: str
    schemes: tuple[Scheme, ...]
    kv_cache_dtype: str = "auto"
    """What vLLM takes for ``auto``."""
    stated_in: str = "config.json"
    layers: Layers = Layers()
    """Layers whose scheme is named; any other may have any of the schemes."""
    any_of: bool = False
    """True if not every scheme must occur: the names of layers that have another one may fit none."""
    allowed: tuple[Scheme, ...] = ()
    """Schemes that tensors may have beside those that some must have."""
    traits: tuple[str, ...] = ()
    """What an engine version may refuse (configs/refusals.yaml)."""
    remarks: tuple[str, ...] = ()
    """Peculiarities to report, one line each."""
    transforms: tuple[str, ...] = ()
    """Names of rotations that are stored beside the weights."""


MX_BLOCK = 32
"""Numbers that share a scale in the OCP's microscaling formats."""

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

    As in vLLM (transformers_utils/config.py), the latter counts only where config.json has no
    ``quantization_config``; where the two differ, that is a remark.

    Raises:
        ConfigError: an unknown quantization.
    """
    declared = _read_declaration(config, hf_quant, where)
    latent = ("attention:mla",) if language_part(config).get("kv_lora_rank") else ()
    return declared._replace(traits=(*declared.traits, *latent))


def _read_declaration(
    config: Mapping[str, Any], hf_quant: Mapping[str, Any] | None, where: str
) -> DeclaredFormat:
    """Return what config.json declares, or hf_quant_config.json where it is silent."""
    own = config.get(QUANTIZATION_KEYS[0])
    if own is None and hf_quant is not None:
        return _read_sidecar(hf_quant, where)
    if own is None:
        stated = (section.get(key) for section in sections(config) for key in QUANTIZATION_KEYS)
        own = next((value for value in stated if value is not None), None)
    if own is None:
        return DeclaredFormat("unquantized", ())
    settings = {
        "expert_dtype": config.get("expert_dtype"),
        **_mapping(own, "config.json: quantization_config", where),
    }
    if hf_quant is not None and isinstance(beside := hf_quant.get("quantization"), dict):
        settings = {"quantized_layers": beside.get("quantized_layers"), **settings}
    declared = _read_settings(settings, where)
    if hf_quant is None:
        return declared
    try:
        remark = _difference(declared, _read_sidecar(hf_quant, where))
    except ConfigError as error:
        remark = error.what
    return declared._replace(remarks=(*declared.remarks, remark)) if remark else declared


def _read_settings(settings: dict[str, Any], where: str) -> DeclaredFormat:
    """Read config.json's quantization by its method, or as ModelOpt's own form, which names none."""
    method = (
        str(settings.get("quant_method") or "").lower().replace("compressed_tensors", "compressed-tensors")
    )
    nested = settings.get("quantization")
    if not method and isinstance(nested, dict) and "quant_algo" in nested:
        return _with_producer(_read_modelopt(settings, where), settings)
    if method not in METHODS:
        what = f"config.json declares the quantization method '{method[:40]}', whose precision is unknown"
        raise ConfigError(what, where=where, hint=f"Known: {', '.join(METHODS)}.")
    declared = METHODS[method]({**settings, "quant_method": method}, where)
    return declared._replace(traits=(f"method:{method}", *declared.traits))


def _read_sidecar(hf_quant: Mapping[str, Any], where: str) -> DeclaredFormat:
    """Read hf_quant_config.json, which names no method."""
    inner = _mapping(hf_quant.get("quantization"), f"{QUANT_FILE}: quantization", where)
    declared = _read_modelopt(inner, where, QUANT_FILE)
    algorithm = declared.weight_format.removeprefix("modelopt:")
    return declared._replace(traits=(*declared.traits, f"sidecar:{algorithm}"))


def _with_producer(declared: DeclaredFormat, settings: Mapping[str, Any]) -> DeclaredFormat:
    """Add a remark where nothing tells vLLM that a declaration without a method is ModelOpt's."""
    if _optional(settings.get("producer")).get("name") == "modelopt" or not declared.schemes:
        return declared
    remark = (
        f"{declared.stated_in} names neither a quant_method nor modelopt as its producer: vLLM overlooks it"
    )
    return declared._replace(remarks=(*declared.remarks, remark))


def _difference(declared: DeclaredFormat, beside: DeclaredFormat) -> str:
    """Say how two declarations differ; empty where they do not, or where the second only names fewer layers."""
    stated, other = ({scheme.precision for scheme in of.schemes} for of in (declared, beside))
    if declared.weight_format.startswith("modelopt:"):
        same = stated == other and declared.weight_format == beside.weight_format
    else:
        same = other <= stated
    if same and declared.kv_cache_dtype == beside.kv_cache_dtype:
        return ""
    return f"{_say(declared)}, but {_say(beside)}; the engine goes by config.json"


def _say(declared: DeclaredFormat) -> str:
    """Describe a declaration in a few words."""
    return f"{declared.stated_in} says {declared.weight_format} with KV cache {declared.kv_cache_dtype}"


def _mapping(value: Any, what: str, where: str) -> dict[str, Any]:
    """Return the value, which must be a JSON object."""
    if not isinstance(value, dict):
        raise ConfigError(f"{what} is not a JSON object", where=where, hint=EXPORT_HINT)
    return value


def _optional(value: Any) -> dict[str, Any]:
    """Return the value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


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


def _group_size(settings: Mapping[str, Any]) -> int:
    """Return the weights that share a scale; 0 where that is not said, or is a whole channel."""
    size = settings.get("group_size", settings.get("q_group_size"))
    return size if type(size) is int and size > 0 else 0


def _read_modelopt(settings: dict[str, Any], where: str, stated_in: str = "config.json") -> DeclaredFormat:
    """Read ModelOpt's own form, or the one it converts to for config.json."""
    inner = _mapping(settings.get("quantization", settings), f"{stated_in}: quantization", where)
    names = ("kv_cache_scheme", "kv_cache_quant_algo")  # vLLM's order (utils/torch_utils.py)
    kv = next((of[name] for name in names for of in (inner, settings) if of.get(name)), None)
    kv_cache_dtype = _kv_dtype(kv)
    if isinstance(kv, dict) and (
        kv_cache_dtype == "int8" or (kv_cache_dtype, kv.get("dynamic")) == ("fp8", True)
    ):
        kv_cache_dtype = "auto"
    remarks: tuple[str, ...] = ()
    if kv and kv_cache_dtype == "auto":
        remarks = (
            f"{stated_in} declares the KV cache '{str(kv)[:40]}', which is not known: it is served as auto",
        )
    traits: tuple[str, ...] = ("kv:affine",) if "AFFINE" in str(kv).upper() else ()
    algorithm = str(inner.get("quant_algo") or "").upper()
    if not algorithm:
        traits = (*traits, "modelopt:no quant_algo") if settings.get("quant_method") else traits
        return DeclaredFormat("unquantized", (), kv_cache_dtype, stated_in, traits=traits, remarks=remarks)
    layers = Layers()
    if algorithm == "MIXED_PRECISION":
        layers = _modelopt_layers(inner, stated_in, where)
        schemes = layers.schemes
        named = _optional(inner.get("quantized_layers")).values()
        traits += tuple(sorted({f"modelopt:mixed:{str(layer.get('quant_algo')).upper()}" for layer in named}))
    else:
        schemes = (_choose(MODELOPT, algorithm, f"{stated_in}: quant_algo {algorithm}", where),)
        groups = [_optional(group) for group in _optional(inner.get("config_groups")).values()]
        if groups and not any(group.get("input_activations") for group in groups):
            schemes = (weight_only(schemes[0]),)
    return DeclaredFormat(
        f"modelopt:{algorithm}",
        schemes,
        kv_cache_dtype,
        stated_in,
        layers=layers,
        traits=(f"modelopt:{algorithm}", *traits),
        remarks=remarks,
    )


def _modelopt_layers(inner: Mapping[str, Any], stated_in: str, where: str) -> Layers:
    """Return the scheme of each layer that ``quantized_layers`` names."""
    named = _mapping(inner.get("quantized_layers") or None, f"{stated_in}: quantized_layers", where)
    schemes = {}
    for name, layer in named.items():
        algorithm = str(_mapping(layer, f"{stated_in}: {name[:60]}", where).get("quant_algo")).upper()
        schemes[name] = _choose(MODELOPT, algorithm, f"{stated_in}: quant_algo {algorithm}", where)
    return read_layers(schemes)


def _read_compressed_tensors(settings: dict[str, Any], where: str) -> DeclaredFormat:
    """Read compressed-tensors: one scheme for each group of layers; a group without weights is attention's or KV's."""
    sparsity = _optional(settings.get("sparsity_config"))
    if sparsity.get("targets") and sparsity.get("format") not in (None, "dense"):
        what = f"config.json: sparsity_config '{str(sparsity['format'])[:40]}' is not a known weight format"
        raise ConfigError(what, where=where, hint="Export the model without sparse compression.")
    groups = _mapping(settings.get("config_groups"), "config.json: config_groups", where)
    schemes, labels, traits = [], set(), set()
    named: dict[str, Scheme | None] = {}
    for name, entry in groups.items():
        group = _mapping(entry, f"config.json: {name[:60]}", where)
        if group.get("weights") is None:
            continue
        weights = _mapping(group.get("weights"), f"config.json: {name[:60]}.weights", where)
        inputs = group.get("input_activations")
        inputs = inputs if isinstance(inputs, dict) else {"num_bits": 16}
        layout = str(group.get("format") or settings.get("format"))
        key = (layout, f"{weights.get('type')}{weights.get('num_bits')}")
        scheme = _choose(COMPRESSED_TENSORS, key, f"config.json: {' '.join(key)}", where)
        scheme = scheme._replace(group_size=_group_size(weights), weight_only=inputs.get("num_bits") == 16)
        schemes.append(scheme)
        targets = group.get("targets")
        named |= (
            {target: scheme for target in targets if isinstance(target, str)}
            if isinstance(targets, list)
            else {}
        )
        strategy = str(weights.get("strategy") or "tensor")
        dynamic = "-dynamic" if inputs.get("dynamic") is True else ""
        label = f"{layout}/w{weights['num_bits']}a{inputs.get('num_bits')}-{strategy[:20]}{dynamic}"
        labels.add(label)
        traits |= {f"compressed-tensors:{label}", f"compressed-tensors:actorder:{weights.get('actorder')}"}
        if (scheme.precision, inputs.get("type"), inputs.get("num_bits")) == ("int4", "float", 8):
            traits.add("compressed-tensors:int4 with fp8 activations")
    cache = settings.get("kv_cache_scheme")
    kv_cache_dtype = _kv_dtype(cache)
    if isinstance(cache, dict) and _is_odd_cache(cache):
        traits.add("kv:odd compressed-tensors scheme")
    weight_format = f"compressed-tensors:{'+'.join(sorted(labels))}" if schemes else "unquantized"
    return DeclaredFormat(
        weight_format,
        tuple(schemes),
        kv_cache_dtype,
        layers=read_layers(
            {**named, **({"re:": named["Linear"]} if "Linear" in named else {})}, marked="re:"
        ),
        traits=tuple(sorted(traits)),
        transforms=tuple(_optional(_optional(settings.get("transform_config")).get("config_groups"))),
    )


def _is_odd_cache(scheme: Mapping[str, Any]) -> bool:
    """Return True for a KV cache that no vLLM reads of compressed-tensors (its validate_kv_cache_scheme)."""
    plain = (scheme.get("type"), scheme.get("num_bits")) == ("float", 8)
    spread = scheme.get("strategy") not in {None, "tensor", "attn_head"}
    return not plain or spread or scheme.get("symmetric") is False


def _read_words(settings: dict[str, Any], where: str) -> DeclaredFormat:
    """Read AWQ and GPTQ; layers that GPTQModel quantizes in another way are in ``dynamic``."""
    method = str(settings["quant_method"])
    bits = settings.get("bits", settings.get("w_bit"))
    scheme = _words(settings, bits, f"config.json: {method}", where)
    named: dict[str, Scheme | None] = {}
    for name, entry in _optional(settings.get("dynamic")).items():
        changed = {**settings, **_optional(entry)}
        taken = not name.startswith("-:")
        key = f"re:{name.removeprefix('+:').removeprefix('-:')}"
        named[key] = (
            _words(changed, changed.get("bits", bits), f"config.json: dynamic {name[:40]}", where)
            if taken
            else None
        )
    layers = read_layers(named, marked="re:")
    traits = (f"{method}:desc_act",) if settings.get("desc_act") is True and scheme.group_size else ()
    return DeclaredFormat(
        method, tuple(dict.fromkeys((scheme, *layers.schemes))), layers=layers, traits=traits, any_of=True
    )


def _words(settings: Mapping[str, Any], bits: Any, what: str, where: str) -> Scheme:
    """Return the scheme of integers in 32-bit words."""
    scheme = _choose(WORDS, str(bits), f"{what} with {bits} bits", where)
    return weight_only(scheme)._replace(group_size=_group_size(settings))


def _read_auto_round(settings: dict[str, Any], where: str) -> DeclaredFormat:
    """Read AutoRound's own form; layers that are quantized in another way are in ``extra_config``."""
    kind, packing = str(settings.get("data_type") or "int"), str(settings.get("packing_format") or "")
    scheme = _auto_round(settings, "config.json: auto-round", where)
    named: dict[str, Scheme | None] = {}
    for name, entry in _optional(settings.get("extra_config")).items():
        changed = {**settings, **_optional(entry)}
        plain = type(changed.get("bits")) is int and changed["bits"] >= 16
        named[name] = None if plain else _auto_round(changed, f"config.json: extra_config {name[:40]}", where)
    layers = read_layers(named, search=True)
    traits = (f"auto-round:data_type:{kind[:40]}", f"auto-round:packing_format:{packing[:40]}")
    weight_format = "auto-round" if kind == "int" else f"auto-round:{kind[:40]}{settings.get('bits')}"
    schemes = tuple(dict.fromkeys((scheme, *layers.schemes)))
    if packing == "auto_round:llm_compressor" and any(of.precision == "int8" for of in schemes):
        schemes = (*schemes, INT8)  # of W8A8, which no words are packed for
    return DeclaredFormat(
        weight_format,
        schemes,
        layers=layers,
        traits=traits,
        any_of=True,
    )


def _auto_round(settings: Mapping[str, Any], what: str, where: str) -> Scheme:
    """Return AutoRound's scheme of all layers, or of one."""
    kind, bits = str(settings.get("data_type") or "int"), settings.get("bits")
    family = next((family for family, _ in AUTO_ROUND if kind.startswith(family)), kind)
    scheme = _choose(AUTO_ROUND, (family, str(bits)), f"{what} with {kind} of {bits} bits", where)
    activations = settings.get("act_bits")
    alone = not (type(activations) is int and activations < 16)
    return scheme._replace(weight_only=alone, group_size=_group_size(settings))


def _read_fp8(settings: dict[str, Any], where: str) -> DeclaredFormat:
    """Read DeepSeek's FP8: scales by block (or by tensor), experts perhaps in another format."""
    expert_dtype = str(settings.get("expert_dtype"))
    if expert_dtype not in EXPERTS:
        what = f"config.json: expert_dtype '{expert_dtype[:40]}' is not a known weight format"
        raise ConfigError(what, where=where, hint="Known: fp8, fp4.")
    weight_format = f"fp8:{'block' if settings.get('weight_block_size') else 'tensor'}"
    algorithm = settings.get("moe_quant_algo")
    if not settings.get("quantized_layers") and not algorithm:
        return DeclaredFormat(weight_format, (FP8_BLOCK, *EXPERTS[expert_dtype]), traits=(weight_format,))
    layers = (
        _modelopt_layers(settings, "config.json", where) if settings.get("quantized_layers") else Layers()
    )
    others = layers.schemes
    if algorithm:
        chosen = _choose(MODELOPT, str(algorithm).upper(), f"config.json: moe_quant_algo {algorithm}", where)
        others = tuple(dict.fromkeys((*others, chosen)))
    names = "+".join(sorted({scheme.precision for scheme in others}))
    return DeclaredFormat(
        f"{weight_format}+modelopt:{names}",
        (FP8_BLOCK, *others),
        layers=layers,
        allowed=EXPERTS[expert_dtype],
        traits=(weight_format,),
    )


def _read_quark(settings: dict[str, Any], where: str) -> DeclaredFormat:
    """Read Quark: one configuration for all layers, and others by the layers' names or types."""
    everywhere = _optional(settings.get("global_quant_config"))
    by_name = _optional(settings.get("layer_quant_config"))
    entries = {"": everywhere, **by_name, **_optional(settings.get("layer_type_quant_config"))}
    named: dict[str, Scheme | None] = {}
    labels = set()
    for name, entry in entries.items():
        weight = _optional(entry).get("weight")
        named[name] = None
        if weight is not None:
            key = _quark_key(weight)
            scheme = _choose(QUARK, key, f"config.json: Quark's {' '.join(key)}", where)
            named[name] = scheme._replace(weight_only=_optional(entry).get("input_tensors") is None)
            labels.add(key)
    traits = [f"quark:{' '.join(label)}" for label in sorted(labels)]
    if everywhere.get("output_tensors") or everywhere.get("bias"):
        traits.append("quark:quantized outputs or biases")
    remarks: tuple[str, ...] = ()
    if _optional(settings.get("export")).get("kv_cache_group") or settings.get("kv_cache_quant_config"):
        remarks = ("vLLM's auto does not take the KV cache that Quark declares: give kv-cache-dtype=fp8",)
    schemes = tuple(dict.fromkeys(scheme for scheme in named.values() if scheme))
    return DeclaredFormat(
        f"quark:{'+'.join(sorted({dtype for dtype, _ in labels}))}" if schemes else "unquantized",
        schemes,
        layers=read_layers({name: scheme for name, scheme in named.items() if name in by_name}),
        any_of=True,
        traits=tuple(traits),
        remarks=remarks,
    )


def _quark_key(weight: Any) -> tuple[str, str]:
    """Return dtype and granularity of a Quark weight; a second stage quantizes the scales, or the numbers again."""
    stages = [_optional(stage) for stage in weight] if isinstance(weight, list) else [_optional(weight)]
    first, *others = stages or [{}]
    dtype, granularity = str(first.get("dtype")), str(first.get("qscheme"))
    dtypes = (dtype, *(str(other.get("dtype")) for other in others))
    if dtypes in QUARK_SCALES:
        return dtype, f"{granularity}, scales {dtypes[-1]}"
    block = first.get("block_size")
    if dtype == "fp8_e4m3" and granularity in {"per_group", "per_block"}:  # either may be MXFP8
        size = block[-1] if isinstance(block, list) and block else first.get("group_size")
        granularity = "per_group" if size == MX_BLOCK else "per_block"
    return "+".join(dtypes), granularity


def _read_torchao(settings: dict[str, Any], where: str) -> DeclaredFormat:
    """Read torchao as transformers stores it: a configuration's class."""
    stated = settings.get("quant_type")
    default = _optional(stated).get("default", stated)
    name = str(_optional(default).get("_type", default))
    scheme = _choose(TORCHAO, name, f"config.json: torchao's {name}", where)
    remarks = ("vLLM serves torchao's formats only where torchao is installed beside it",)
    return DeclaredFormat(f"torchao:{name[:60]}", (scheme,), remarks=remarks)


def _read_fp_quant(settings: dict[str, Any], where: str) -> DeclaredFormat:
    """Read FP-Quant: 4-bit floats behind a Hadamard rotation."""
    dtype = str(settings.get("forward_dtype"))
    return DeclaredFormat(
        f"fp_quant:{dtype[:40]}", (_choose(FP_QUANT, dtype, f"config.json: fp_quant {dtype}", where),)
    )


METHODS: dict[str, Callable[[dict[str, Any], str], DeclaredFormat]] = {
    "modelopt": _read_modelopt,
    "modelopt_fp4": _read_modelopt,
    "modelopt_mxfp8": _read_modelopt,
    "modelopt_mixed": _read_modelopt,
    "compressed-tensors": _read_compressed_tensors,
    "awq": _read_words,
    "gptq": _read_words,
    "auto-round": _read_auto_round,
    "intel/auto-round": _read_auto_round,
    "fp8": _read_fp8,
    "fbgemm_fp8": lambda _settings, _where: DeclaredFormat("fbgemm_fp8", (FP8,)),
    "mxfp4": lambda _settings, _where: DeclaredFormat("mxfp4", (weight_only(MXFP4),)),
    "mxfp8": lambda _settings, _where: DeclaredFormat("mxfp8", (MXFP8,)),
    "quark": _read_quark,
    "torchao": _read_torchao,
    "fp_quant": _read_fp_quant,
}
"""Readers of a quantization_config, by its ``quant_method``; each takes it and the checkpoint as messages name it."""
