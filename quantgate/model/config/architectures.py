"""A model's shape as its config.json gives it, and the number formats of its weights and KV cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AliasChoices, Field, model_validator

from quantgate.model.yaml_file import Strict

NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
"""Names of config.json for the language model of a multimodal one."""
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""Names of config.json for the experts of a layer."""


def language_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a config.json with those of its language model first, where they are nested."""
    nested = [config[name] for name in NESTED if isinstance(config.get(name), dict)]
    return {**config, **(nested[0] if nested else {})}


def has_experts(config: Mapping[str, Any]) -> bool:
    """Return True if a config.json is of a mixture of experts."""
    return any(language_part(config).get(name) for name in EXPERTS)


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
    intermediate_size: int = Field(ge=1, description="Width of the MLP (of an expert, where no other says).")
    intermediate_size_mlp: int | None = Field(
        default=None, ge=1, description="Llama 4: width of the layers without experts."
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
        description="Each layer's kind, where config.json gives it: 'full_attention' or a local one.",
    )
    num_experts: int | None = Field(
        default=None,
        ge=1,
        validation_alias=AliasChoices(*EXPERTS),
    )
    num_experts_per_tok: int | None = Field(default=None, ge=1)
    moe_intermediate_size: int | None = Field(default=None, ge=1, description="Width of an expert.")
    n_shared_experts: int | None = Field(default=None, ge=0)
    first_k_dense_replace: int = Field(default=0, ge=0, description="First layers without experts.")
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
    v_head_dim: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _whole(self) -> ModelConfigKeys:
        """Check that experts and MLA have all of their keys."""
        if self.num_experts is not None and not 1 <= (self.num_experts_per_tok or 0) <= self.num_experts:
            raise ValueError("num_experts needs a num_experts_per_tok between 1 and it")
        latent = (self.kv_lora_rank, self.qk_nope_head_dim, self.qk_rope_head_dim, self.v_head_dim)
        if any(value is not None for value in latent) and None in latent:
            raise ValueError(
                "MLA needs kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim and v_head_dim together"
            )
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
