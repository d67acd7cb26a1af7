"""Read what a published config.json says of a model's shape, in whatever family's words, as `ModelConfigKeys`.

The same thing has many names, and kinds of layers are listed in many ways: here they become one list of what mixes
tokens in each layer (``layer_types``) and one of its MLPs (``mlp_layer_types``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from quantgate.model.config.architectures import (
    EXPERTS,
    LAYER_TYPES,
    ModelConfigKeys,
    key_names,
    language_part,
)
from quantgate.model.errors import ConfigError
from quantgate.model.yaml_file import parse_record

NOMINAL_TOLERANCE = 0.1
"""Share by which a count may differ from the size in a model's name."""
_KINDS = {
    "full_attention": (
        "attention",
        "global_attention",
        "deepseek_sparse_attention",
        "sparse_attention",
        "*",
        "G",
    ),
    "sliding_attention": ("local_attention", "sliding_window_attention", "L"),
    "linear_attention": ("gated_delta_net", "kda"),
    "mamba": ("mamba2", "M"),
    "mlp": ("-",),
    "moe": ("E",),
    "no_attention": ("no_op",),
}
"""Kinds of layers by our name, with the names that families and patterns give them."""
_KIND_OF = {alias: kind for kind, aliases in _KINDS.items() for alias in aliases}
_RECURRENT = re.compile(
    r"mamba_|ssm_|lru_|rwkv|conv_L_cache|linear_(num|attn)|kda_|gdn_|attn_layer_period|full_attention_interval"
    r"|layer_group_size|mixer_types|lightning_|decay_low_rank"
)
"""Keys of layers whose state does not grow with the context."""
_LISTED = ("layers_block_type", "layer_types", "block_types")
"""Keys that name each layer's kind."""
_TIED = ("gemma", "cohere")
"""Families that share the embedding's matrix with the head where config.json does not say."""
_PATTERNS = {"gemma2": 2, "gemma3": 6}
"""One layer in so many attends to all tokens, by family, where config.json does not say."""
_UNGATED = ("starcoder2", "nemotron_h")
"""Families whose MLPs have no gate, beside those with squared ReLU or xIELU."""
_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)(b|t)(?![a-z0-9])", re.IGNORECASE)

_WITH_EXPERTS = re.compile(r"\d[bt]-\d+e(?![a-z0-9])", re.IGNORECASE)
"""Active parameters and experts (Llama-4-Scout-17B-16E)."""


def shape_of_config(config: Mapping[str, Any], where: str) -> ModelConfigKeys:
    """Return the shape that a config.json describes.

    Args:
        config: the file's content.
        where: of the file, for messages.

    Raises:
        ConfigError: a key that a shape needs is missing or wrong, or a kind of layer is unknown.
    """
    text = {key: value for key, value in language_part(config).items() if value is not None}
    keys = {key: value for key, value in text.items() if key in set(key_names()) - _READ_BELOW}
    if str(text.get("model_type")).startswith(_TIED):
        keys.setdefault("tie_word_embeddings", True)
    if str(text.get("model_type")).startswith("llama4"):
        keys.setdefault("n_shared_experts", 1)
    family = str(text.get("model_type")).removesuffix("_text")
    if family in _PATTERNS:
        keys.setdefault("sliding_window_pattern", _PATTERNS[family])
    if isinstance(keys.get("sliding_window_pattern"), str):
        del keys["sliding_window_pattern"]
    if keys.get("sliding_window") == 0:
        del keys["sliding_window"]
    if not any(keys.get(name) for name in EXPERTS):  # Granite 4 says 0 of a dense model
        keys = {key: value for key, value in keys.items() if key not in EXPERTS or value != 0}
        keys.pop("num_experts_per_tok", None)
    keys = {key: value if key in _LISTS else _same(value) for key, value in keys.items()}
    try:
        keys |= _layers(text, keys)
        keys |= _attention(text)
        keys |= _mlps(text)
        keys |= {"linear_attention": _linear(text), "vision": _vision(config)}
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:
        why = (
            str(error) if isinstance(error, ValueError) else f"a key is missing or of another type ({error})"
        )
        raise ConfigError(
            f"its layers can't be read: {why}",
            where=where,
            hint="Correct the file, or describe the model in configs/architectures.",
        ) from None
    return parse_record(ModelConfigKeys, {k: v for k, v in keys.items() if v is not None}, where)


def _same(value: Any) -> Any:
    """Return the value of all layers where a list gives each the same one (Hunyuan)."""
    return value[0] if isinstance(value, list) and value and value.count(value[0]) == len(value) else value


_LISTS = ("layer_types", "mlp_layer_types", "compress_ratios", "moe_layer_freq", "intermediate_size")
"""Keys whose lists are read for each layer."""
_READ_BELOW = {"linear_attention", "vision", "intermediate_sizes", "mlp_matrices", "index_layers"}


def size_in_name(name: str) -> float | None:
    """Return the parameters that a model's name states; None for none, and for experts and a size (8x7B, 17B-16E)."""
    words = name.rpartition("/")[2].replace("_", "-")
    sizes = [] if _WITH_EXPERTS.search(words) else _SIZE.findall(words)
    return float(sizes[0][0]) * (1e9 if sizes[0][1].lower() == "b" else 1e12) if sizes else None


def size_difference(
    name: str, parameters: float, vision_parameters: float = 0, nominal: float | None = None
) -> str:
    """Say how a count differs from the size that is stated of a model.

    Args:
        name: of the model, with or without its organization.
        parameters: as counted, all of them.
        vision_parameters: those of a vision tower among them; names count it or leave it out.
        nominal: parameters as stated; those in the name if None.

    Returns:
        One sentence; empty within 10 %, or where none is stated.
    """
    nominal = nominal or size_in_name(name)
    counts = (parameters, parameters - vision_parameters)
    if nominal is None or any(abs(count - nominal) <= NOMINAL_TOLERANCE * nominal for count in counts):
        return ""
    return (
        f"{parameters / 1e9:.1f} G parameters were counted, and {name} is stated to have {nominal / 1e9:g} G: "
        "its configuration is incomplete, or of another model"
    )


def _kind(name: str) -> str:
    """Return our name of a kind of layer."""
    kind = _KIND_OF.get(name, name)
    if kind not in LAYER_TYPES:
        raise ValueError(f"the kind of layer '{name}' is unknown")
    return kind


def _blocks(text: Mapping[str, Any]) -> Sequence[str] | None:
    """Return what mixes tokens in each layer, or what each block is; None where all layers are alike."""
    if pattern := text.get("hybrid_override_pattern"):
        return [_kind(letter) for letter in pattern if letter != "|"]
    listed = next((text[name] for name in _LISTED if name in text), None)
    if listed is not None:
        return [_kind(kind) for kind in listed]
    count = text.get("num_hidden_layers", 0)
    if isinstance(letters := text.get("sliding_window_pattern"), str):  # Exaone: LLLG
        return [_kind(letters[number % len(letters)]) for number in range(count)]
    full, other = _windowed(text, count) or _hybrid(text, count) or (None, "")
    return (
        None if full is None else ["full_attention" if number in full else other for number in range(count)]
    )


def _windowed(text: Mapping[str, Any], count: int) -> tuple[Collection[int], str] | None:
    """Return the layers that attend to all tokens, of a family's own key, and the kind of the others: local ones."""
    if "hybrid_layer_pattern" in text:  # MiMo
        return _zeros(text["hybrid_layer_pattern"]), "sliding_attention"
    if str(text.get("model_type")).startswith("llama4"):
        interval = text.get("no_rope_layer_interval", 4)
        flags = text.get("no_rope_layers") or [(number + 1) % interval for number in range(count)]
        return _zeros(flags), "chunked_attention"
    if text.get("use_sliding_window") and "max_window_layers" in text:  # Qwen 2
        return range(text["max_window_layers"]), "sliding_attention"
    return ((), "sliding_attention") if "compress_ratios" in text else None  # DeepSeek V4


def _hybrid(text: Mapping[str, Any], count: int) -> tuple[Collection[int], str] | None:
    """Return the layers with attention, of a family's own key, and the kind of the others, which have none."""
    if "full_attn_layers" in (linear := text.get("linear_attn_config") or {}):  # Kimi, counted from 1
        return [number - 1 for number in linear["full_attn_layers"]], "linear_attention"
    if "attn_type_list" in text:  # MiniMax
        return set(range(count)) - set(_zeros(text["attn_type_list"])), "linear_attention"
    if "attn_layer_indices" in text:  # Bamba
        return text["attn_layer_indices"], "mamba"
    if "block_configs" in text:  # Nemotron found by neural architecture search
        return _zeros([block["attention"]["no_op"] for block in text["block_configs"]]), "no_attention"
    if "linear_num_value_heads" in text and "full_attention_interval" in text:  # Qwen
        interval = text["full_attention_interval"]
        return range(interval - 1, count, interval), "linear_attention"
    return None


def _zeros(flags: Sequence[int]) -> list[int]:
    """Return the positions of the zeros in a list of flags."""
    return [position for position, flag in enumerate(flags) if not flag]


def _refuse_unknown(text: Mapping[str, Any], blocks: Sequence[str] | None) -> None:
    """Refuse what would be counted as plain attention, and is something else.

    Raises:
        ValueError: keys say that there are such layers, and which they are isn't known.
    """
    shared = text.get("num_kv_shared_layers") or text.get("use_cla")
    if text.get("hidden_size_per_layer_input") or shared:
        raise ValueError("embeddings of each layer and layers that share a KV cache aren't known")
    strange = sorted(key for key in text if _RECURRENT.match(key))
    listed = any(name in text for name in _LISTED)
    if strange and not listed and not {"linear_attention", "mamba"} & set(blocks or ()):
        raise ValueError(f"layers of another kind than attention aren't known ('{strange[0]}')")


def _layers(text: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the layers' kinds and MLPs, and how many there are."""
    blocks = _blocks(text)
    _refuse_unknown(text, blocks)
    count = text.get("num_hidden_layers", len(blocks) if blocks else None)
    shape_keys: dict[str, Any] = {"num_hidden_layers": count, "layer_types": blocks}
    if blocks and count != len(blocks):
        raise ValueError(f"{len(blocks)} layers are listed, and num_hidden_layers is {count}")
    if blocks and {"mlp", "moe"} & set(blocks):  # a block is a mixer or an MLP
        shape_keys["mlp_layer_types"] = [
            {"mlp": "dense", "moe": "sparse"}.get(kind, "none") for kind in blocks
        ]
    elif isinstance(text.get("moe_layer_freq"), list):
        shape_keys["mlp_layer_types"] = ["sparse" if flag else "dense" for flag in text["moe_layer_freq"]]
        shape_keys["moe_layer_step"] = 1
    elif "block_configs" in text:
        shape_keys["mlp_layer_types"] = [
            "none" if block["ffn"]["no_op"] else "dense" for block in text["block_configs"]
        ]
    elif text.get("enable_moe_block"):
        shape_keys["mlp_layer_types"] = ["both"] * count
    elif text.get("mlp_only_layers"):
        dense, step = set(text["mlp_only_layers"]), text.get("decoder_sparse_step", 1)
        shape_keys["mlp_layer_types"] = [
            "dense" if number in dense or (number + 1) % step else "sparse" for number in range(count)
        ]
    elif "moe_layer_start_index" in text:  # Ernie
        first, last = text["moe_layer_start_index"], text.get("moe_layer_end_index", count - 1)
        step = text.get("moe_layer_interval", 1)
        shape_keys["mlp_layer_types"] = [
            "sparse" if first <= number <= last and not (number + 1) % step else "dense"
            for number in range(count)
        ]
    if isinstance(keys.get("moe_layer_freq"), list):
        shape_keys["moe_layer_freq"] = None
    if isinstance(text.get("compress_ratios"), list):
        shape_keys["compress_ratios"] = text["compress_ratios"][:count]
    return shape_keys


def _attention(text: Mapping[str, Any]) -> dict[str, Any]:
    """Return heads that differ between local and global layers, and of layers that index tokens or have blocks."""
    shape_keys: dict[str, Any] = {}
    if "global_head_dim" in text:  # Gemma 4: the plain keys are those of local layers
        shape_keys |= {"swa_head_dim": text.get("head_dim"), "head_dim": text["global_head_dim"]}
    if text.get("num_global_key_value_heads"):
        shape_keys |= {
            "swa_num_key_value_heads": text.get("num_key_value_heads"),
            "num_key_value_heads": text["num_global_key_value_heads"],
        }
    if "attention_head_dim" in text and "head_dim" not in text:
        shape_keys["head_dim"] = text["attention_head_dim"]
    if "block_configs" in text:
        groups = {block["attention"]["n_heads_in_group"] for block in text["block_configs"]} - {None}
        linear = any(block["attention"].get("replace_with_linear") for block in text["block_configs"])
        if len(groups) != 1 or linear:
            raise ValueError(
                "block_configs: layers with different KV heads, or linear ones in attention's place"
            )
        shape_keys["num_key_value_heads"] = text["num_attention_heads"] // groups.pop()
    sparse = text.get("sparse_attention_config") or {}
    if sparse.get("use_sparse_attention"):
        off = sparse.get("sparse_attention_freq") or [1] * text["num_hidden_layers"]
        shape_keys |= {
            "index_n_heads": sparse["sparse_num_index_heads"],
            "index_head_dim": sparse["sparse_index_dim"],
            "index_topk": sparse["sparse_topk_blocks"] * sparse["sparse_block_size"],
            "index_layers": sum(map(bool, off)),
        }
    elif "compress_ratios" in text:
        shape_keys["index_layers"] = sum(
            ratio == INDEXED_RATIO for ratio in text["compress_ratios"][: text["num_hidden_layers"]]
        )
    elif "index_head_dim" in text:
        kinds = text.get("indexer_types")
        shape_keys["index_layers"] = kinds.count("full") if kinds else text["num_hidden_layers"]
    if text.get("mla_use_output_gate") or text.get("attention_output_gate"):
        shape_keys["attn_output_gate"] = True
    return shape_keys


INDEXED_RATIO = 4
"""DeepSeek V4: layers that compress so many tokens into one choose among them by an index."""


def _mlps(text: Mapping[str, Any]) -> dict[str, Any]:
    """Return the widths of MLPs and of shared experts, where a family says them in its own way."""
    shape_keys: dict[str, Any] = {}
    if isinstance(text.get("intermediate_size"), list):
        shape_keys |= {"intermediate_sizes": text["intermediate_size"], "intermediate_size": None}
    if "block_configs" in text:
        shape_keys["intermediate_sizes"] = [
            0
            if block["ffn"]["no_op"]
            else _multiple(int(2 * block["ffn"]["ffn_mult"] * text["hidden_size"] / 3))
            for block in text["block_configs"]
        ]
    shared = text.get("moe_shared_expert_intermediate_size")
    if shared is not None:
        shape_keys["shared_expert_intermediate_size"] = shared * (text.get("n_shared_experts") or 1)
    activation = str(text.get("mlp_hidden_act") or text.get("hidden_act"))
    if text.get("model_type") in _UNGATED or any(name in activation for name in ("relu2", "xielu")):
        shape_keys["mlp_matrices"] = 2
    return shape_keys


def _multiple(width: int, of: int = 256) -> int:
    """Return a width rounded up to a multiple (nemotron_nas of vLLM)."""
    return -(-width // of) * of


_MAMBA_2 = (
    ("mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size", "conv_kernel"),
    ("mamba_n_heads", "mamba_d_head", "mamba_n_groups", "mamba_d_state", "mamba_d_conv"),
)
"""Names of Mamba 2's heads, their size, groups, state and convolution."""


def _linear(text: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the widths of linear-attention or Mamba layers; None where there are none."""
    if "linear_num_value_heads" in text:  # gated delta net: gate z, and two numbers a head
        value = text["linear_num_value_heads"] * text["linear_value_head_dim"]
        return {
            "key_width": text["linear_num_key_heads"] * text["linear_key_head_dim"],
            "value_width": value,
            "gate_inputs": value + 2 * text["linear_num_value_heads"],
            "conv_kernel": text.get("linear_conv_kernel_dim", 0),
        }
    for heads, size, groups, state, kernel in _MAMBA_2:
        if heads in text:  # B and C are keys and queries, gate z, one step width a head
            value = text[heads] * text[size]
            return {
                "key_width": text[groups] * text[state],
                "value_width": value,
                "gate_inputs": value + text[heads],
                "conv_kernel": text.get(kernel, 0),
            }
    if "minimax" in str(text.get("model_type")):  # lightning attention, with a gate at its output
        width = text["num_attention_heads"] * text.get(
            "head_dim", text["hidden_size"] // text["num_attention_heads"]
        )
        return {"key_width": width, "value_width": width, "gate_inputs": width}
    if linear := text.get("linear_attn_config"):  # Kimi Delta Attention: the decay's gate has low rank
        width, rank = linear["num_heads"] * linear["head_dim"], linear["head_dim"]
        full = bool(linear.get("use_full_rank_gate"))
        return {
            "key_width": width,
            "value_width": width,
            "gate_inputs": rank + linear["num_heads"] + (width if full else rank),
            "gate_parameters": rank * width * (1 if full else 2),
            "conv_kernel": linear.get("short_conv_kernel_size", 0),
        }
    return None


def _vision(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the sizes of a vision tower; None where there is none, or its config is too short."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        return None

    def first(*names: str, default: int = 0) -> int:
        return next((vision[name] for name in names if isinstance(vision.get(name), int)), default)

    hidden, layers = (
        first("hidden_size", "vt_hidden_size"),
        first("depth", "num_hidden_layers", "vt_num_hidden_layers"),
    )
    merge = first("spatial_merge_size", default=2)
    if not hidden or not layers:
        return None
    grid = first("init_pos_emb_height") * first("init_pos_emb_width")
    return {
        "hidden_size": hidden,
        "layers": layers,
        "intermediate_size": first("intermediate_size", "vt_intermediate_size", default=4 * hidden),
        "mlp_matrices": 3 if "gemma" in str(vision.get("model_type")) else 2,
        "positions": first("num_position_embeddings") or 2 * first("position_embedding_size") or grid,
        "patch_inputs": 3 * first("temporal_patch_size", default=1) * first("patch_size") ** 2,
        "mergers": 1 + len(vision.get("deepstack_visual_indexes") or ())
        if "spatial_merge_size" in vision or grid
        else 0,
        "merged_size": hidden * merge**2,
        "out_size": first("out_hidden_size", "text_hidden_size"),
    }
