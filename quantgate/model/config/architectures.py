"""A model's shape as its config.json gives it, and the number formats of its weights and KV cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, model_validator

from quantgate.model.yaml_file import Strict

NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
"""Names of config.json for the language model of a multimodal one."""
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Names of config.json for the experts of a layer."""


def language_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a config.json with those of its language model first, however deep they are nested."""
    merged = dict(config)
    for _ in NESTED:
        name = next((name for name in NESTED if isinstance(merged.get(name), dict)), None)
        if name is not None:
            merged |= merged.pop(name)
    return merged


def has_experts(config: Mapping[str, Any]) -> bool:
    """Return True if a config.json is of a mixture of experts."""
    return any(language_part(config).get(name) for name in EXPERTS)


LAYER_TYPES = (
    "full_attention",
    "sliding_attention",
    "chunked_attention",
    "linear_attention",
    "mamba",
    "mlp",
    "moe",
    "no_attention",
)
"""What mixes tokens in a layer; only attention's first three kinds have a KV cache."""


def key_names() -> Iterator[str]:
    """Yield every name that a key of a shape may have in a config.json."""
    for name, field in ModelConfigKeys.model_fields.items():
        yield name
        if isinstance(field.validation_alias, AliasChoices):
            yield from (str(choice) for choice in field.validation_alias.choices)


COUNTABLE = 1 << 58
"""Parameters that can be added up in 64 bits with room to spare; the largest models have 2^42."""


class LinearAttention(Strict):
    """Widths of a layer of linear attention or Mamba, whose state does not grow with the context."""

    key_width: int = Field(ge=1, description="Of all keys (Mamba 2: B), and as much of all queries (C).")
    value_width: int = Field(ge=1, description="Of all values (Mamba 2: x).")
    gate_inputs: int = Field(default=0, ge=0, description="Outputs of the input projections beyond those.")
    gate_parameters: int = Field(default=0, ge=0, description="Of second matrices of gates of low rank.")
    conv_kernel: int = Field(default=0, ge=0, description="Width of the convolution over those three.")


class VisionTower(Strict):
    """Sizes of a vision transformer and its merger."""

    hidden_size: int = Field(ge=1)
    layers: int = Field(ge=1)
    intermediate_size: int = Field(ge=1)
    mlp_matrices: int = Field(default=2, ge=1)
    positions: int = Field(default=0, ge=0, description="Learnt positions.")
    patch_inputs: int = Field(default=0, ge=0, description="Numbers of a patch.")
    mergers: int = Field(default=0, ge=0)
    merged_size: int = Field(default=0, ge=0, description="Width of patches that are merged.")
    out_size: int = Field(default=0, ge=0, description="Width that a merger gives.")


class ModelConfigKeys(Strict):
    """Keys of a config.json that determine memory and limits, under their own names.

    Where model families name the same thing differently, each name is accepted.
    """

    hidden_size: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1)
    num_attention_heads: int = Field(ge=1)
    num_key_value_heads: int | None = Field(default=None, ge=1, description="As many as heads if empty.")
    head_dim: int | None = Field(default=None, ge=1, description="hidden_size / heads if empty.")
    vocab_size: int = Field(ge=1)
    tie_word_embeddings: bool = False
    max_position_embeddings: int | None = Field(default=None, ge=1, description="Longest context, tokens.")
    intermediate_size: int | None = Field(
        default=None, ge=1, description="Width of the MLP (of an expert, where no other says)."
    )
    intermediate_size_mlp: int | None = Field(
        default=None,
        ge=1,
        validation_alias=AliasChoices("intermediate_size_mlp", "dense_intermediate_size"),
        description="Width of the layers without experts, where it is another.",
    )
    intermediate_sizes: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        default=None, description="Width of each layer's MLP, where they differ."
    )
    mlp_matrices: int = Field(
        default=3, ge=1, description="Matrices of an MLP and an expert: 2 without a gate."
    )
    sliding_window: int | None = Field(
        default=None,
        ge=1,
        description="Tokens that a local layer attends to; without it or a chunk size no layer is local.",
    )
    attention_chunk_size: int | None = Field(
        default=None,
        ge=1,
        description="Llama 4: a local layer attends to the tokens before it in its chunk of so many.",
    )
    use_sliding_window: bool = True
    sliding_window_pattern: int | None = Field(
        default=None,
        ge=1,
        validation_alias=AliasChoices("sliding_window_pattern", "no_rope_layer_interval"),
        description="One layer in this many attends to all tokens; if empty and there is a window, none does.",
    )
    layer_types: tuple[str, ...] | None = Field(
        default=None,
        description=f"What mixes tokens in each layer, where config.json gives it: {', '.join(LAYER_TYPES)}.",
    )
    mlp_layer_types: tuple[Literal["dense", "sparse", "both", "none"], ...] | None = Field(
        default=None, description="Each layer's MLP, where config.json gives it: sparse ones have experts."
    )
    swa_num_attention_heads: int | None = Field(default=None, ge=1, description="Of local layers, if others.")
    swa_num_key_value_heads: int | None = Field(default=None, ge=1)
    swa_head_dim: int | None = Field(default=None, ge=1)
    swa_v_head_dim: int | None = Field(default=None, ge=1)
    attn_output_gate: bool = Field(
        default=False, description="True if attention's output has a gate as wide."
    )
    attention_k_eq_v: bool = Field(default=False, description="True if global layers have no V projection.")
    linear_attention: LinearAttention | None = None
    num_experts: int | None = Field(
        default=None,
        ge=1,
        validation_alias=AliasChoices(*EXPERTS),
    )
    num_experts_per_tok: int | None = Field(
        default=None,
        ge=1,
        validation_alias=AliasChoices(
            "num_experts_per_tok",
            "num_experts_per_token",
            "top_k_experts",
            "experts_per_token",
            "moe_topk",
            "moe_k",
        ),
    )
    moe_intermediate_size: int | None = Field(default=None, ge=1, description="Width of an expert.")
    n_shared_experts: int | None = Field(
        default=None,
        ge=0,
        validation_alias=AliasChoices(
            "n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts"
        ),
    )
    shared_expert_intermediate_size: int | None = Field(
        default=None,
        ge=0,
        validation_alias=AliasChoices(
            "shared_expert_intermediate_size", "shared_intermediate_size", "share_expert_dim"
        ),
        description="Width of all shared experts of a layer, if it is not experts' width times their number.",
    )
    moe_latent_size: int | None = Field(
        default=None,
        ge=1,
        validation_alias=AliasChoices("moe_latent_size", "routed_expert_hidden_size"),
        description="Width that experts work in, between two more matrices, where it is not hidden_size.",
    )
    first_k_dense_replace: int = Field(
        default=0,
        ge=0,
        validation_alias=AliasChoices("first_k_dense_replace", "num_dense_layers"),
        description="First layers without experts.",
    )
    moe_layer_step: int = Field(
        default=1,
        ge=1,
        validation_alias=AliasChoices(
            "moe_layer_step", "interleave_moe_layer_step", "decoder_sparse_step", "moe_layer_freq"
        ),
        description="One layer in this many has experts.",
    )
    kv_lora_rank: int | None = Field(default=None, ge=1, description="MLA: the latent that is cached.")
    q_lora_rank: int | None = Field(default=None, ge=1)
    qk_nope_head_dim: int | None = Field(default=None, ge=1)
    qk_rope_head_dim: int | None = Field(default=None, ge=1)
    v_head_dim: int | None = Field(default=None, ge=1, description="head_dim if empty.")
    o_lora_rank: int | None = Field(default=None, ge=1, description="DeepSeek V4: of the output, a group.")
    o_groups: int = Field(default=1, ge=1)
    compress_ratios: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        default=None,
        description="DeepSeek V4: tokens that each layer caches as one beside its window; 0 none.",
    )
    index_n_heads: int | None = Field(
        default=None, ge=1, description="Heads that choose the tokens to attend to."
    )
    index_head_dim: int | None = Field(default=None, ge=1)
    index_topk: int | None = Field(default=None, ge=1, description="Tokens that are chosen.")
    index_layers: int = Field(default=0, ge=0, description="Layers with an index of their own.")
    num_nextn_predict_layers: int = Field(
        default=0,
        ge=0,
        validation_alias=AliasChoices(
            "num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules", "mtp_layers"
        ),
        description="Layers that predict further tokens: stored, and loaded for speculative decoding only.",
    )
    vision: VisionTower | None = None

    def _products(self) -> int:
        """Return a number that no count of parameters exceeds by much: the largest widths over layers and experts."""
        sizes = {
            name: value
            for name, value in self
            if isinstance(value, int) and name != "max_position_embeddings"
        }
        parts = [value for part in (self.linear_attention, self.vision) if part for _, value in part]
        heads = max(value for name, value in sizes.items() if name.endswith("heads"))
        head = max([1, *(value for name, value in sizes.items() if name.endswith("head_dim"))])
        widest: int = max(heads * head, *sizes.values(), *parts, *(self.intermediate_sizes or ()))
        return int(widest**2 * (self.num_experts or 1) * self.num_hidden_layers)

    @model_validator(mode="before")
    @classmethod
    def _one_name(cls, data: Any) -> Any:
        """Keep one name of a key that is there under several; they must agree."""
        if not isinstance(data, dict):
            return data
        kept = dict(data)
        for name, field in cls.model_fields.items():
            choices = (
                field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else ()
            )
            given = [str(choice) for choice in choices if kept.get(str(choice)) is not None]
            if any(kept[other] != kept[given[0]] for other in given[1:]):
                raise ValueError(f"{name}: " + " and ".join(f"{other} is {kept[other]!r}" for other in given))
            for other in given[1:]:
                del kept[other]
        return kept

    @model_validator(mode="after")
    def _whole(self) -> ModelConfigKeys:
        """Check that experts, MLA and linear layers have all of their keys, and that each layer has a kind."""
        if self.num_experts is not None and not 1 <= (self.num_experts_per_tok or 0) <= self.num_experts:
            raise ValueError("num_experts needs a num_experts_per_tok between 1 and it")
        latent = (self.kv_lora_rank, self.qk_nope_head_dim, self.qk_rope_head_dim, self.v_head_dim)
        if self.kv_lora_rank is not None and None in latent:
            raise ValueError(
                "MLA needs kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim and v_head_dim together"
            )
        if (
            self.intermediate_size is None
            and self.intermediate_sizes is None
            and self.moe_intermediate_size is None
        ):
            raise ValueError("key 'intermediate_size' is missing")
        for name in ("layer_types", "mlp_layer_types", "intermediate_sizes", "compress_ratios"):
            listed = getattr(self, name)
            if listed is not None and len(listed) != self.num_hidden_layers:
                raise ValueError(
                    f"{name} lists {len(listed)} layers, and num_hidden_layers is {self.num_hidden_layers}"
                )
        if self._products() > COUNTABLE:
            raise ValueError("its numbers are larger than those of any model")
        kinds = set(self.layer_types or ())
        if unknown := sorted(kinds - set(LAYER_TYPES)):
            raise ValueError(f"the kind of layer '{unknown[0]}' is unknown")
        if kinds & {"linear_attention", "mamba"} and self.linear_attention is None:
            raise ValueError("layers of linear attention or Mamba need the widths of their heads")
        if self.num_experts is None and (
            kinds & {"moe"} or {"sparse", "both"} & set(self.mlp_layer_types or ())
        ):
            raise ValueError("layers with experts need num_experts")
        return self


class ModelCode(Strict):
    """Facts of a model's code that its config.json doesn't give."""

    norms_per_layer: int = Field(default=2, ge=0, description="RMSNorm vectors of hidden_size per layer.")
    qk_norm: bool = Field(default=False, description="True if queries and keys have a norm of head_dim each.")
    router_bias: bool = Field(default=False, description="True if the router has a bias per expert.")
    shared_experts: int = Field(default=0, ge=0, description="Where config.json has no n_shared_experts.")
    vision_parameters: int = Field(default=0, ge=0, description="Vision tower and projector, unquantized.")


class Architecture(Strict):
    """One model of configs/architectures/*.yaml."""

    names: tuple[str, ...] = Field(default=(), description="Its other names; case doesn't matter.")
    nominal_billions: float | None = Field(
        default=None, gt=0, description="Parameters as its name has them, for the nominal memory model."
    )
    config: ModelConfigKeys | None = None
    config_json: str | None = Field(default=None, description="A config.json to read instead, from the root.")
    code: ModelCode = ModelCode()
    source: str
    note: str | None = None

    @model_validator(mode="after")
    def _one_shape(self) -> Architecture:
        """Require the shape either in this file or in a config.json."""
        if (self.config is None) == (self.config_json is None):
            raise ValueError("it must have either 'config' or 'config_json'")
        return self


class ArchitectureFile(Strict):
    """configs/architectures/*.yaml, keyed by the name that memory_fit and bounds show."""

    architectures: dict[str, Architecture]


class NumberFormat(Strict):
    """Storage of a number, its share of the scale included."""

    bits: float = Field(gt=0, description="Bits of one value.")
    scale_bits: float = Field(default=0, ge=0, description="Bits of scale and zero point of a block.")
    values_per_scale: int | None = Field(default=None, ge=1, description="Values of a block.")
    compute: Literal["fp16", "fp8", "fp4"] | None = Field(
        default=None,
        description="The dense TFLOPS of gpus.yaml that a native kernel reaches; unknown if empty.",
    )
    source: str

    @model_validator(mode="after")
    def _block(self) -> NumberFormat:
        """Check that a scale has a block, and a block a scale."""
        if bool(self.scale_bits) != (self.values_per_scale is not None):
            raise ValueError("scale_bits and values_per_scale belong together")
        return self


class FormatFile(Strict):
    """configs/formats.yaml: weight formats by precision, KV caches by the engine's name of the dtype."""

    weights: dict[str, NumberFormat] = Field(default_factory=dict)
    kv_cache: dict[str, NumberFormat] = Field(default_factory=dict)
    native: dict[str, str] = Field(
        default_factory=dict,
        description="Precision of a family's own weights, where quantized, by model_type.",
    )
