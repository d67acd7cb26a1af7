"""What a config.json says of a model's shape: 54 published models, and each family's way of saying it."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from quantgate.model.config.architectures import Architecture, FormatFile
from quantgate.model.config.shapes import shape_of_config, size_difference, size_in_name
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from warehouse.architectures import Shapes, refresh_shapes
from warehouse.configuration import configured_in_memory
from warehouse.database import Connection, fetch

FOLDER = ROOT / "tests" / "fixtures" / "model_configs"
PUBLISHED: dict[str, tuple[float, int, int, int]] = {
    # parameters in G; layers with a KV cache, those of them with a window, layers with experts
    "Qwen--Qwen3-0.6B": (0.60, 28, 0, 0),
    "Qwen--Qwen3-1.7B": (1.72, 28, 0, 0),
    "Qwen--Qwen3-30B-A3B-FP8": (30.53, 48, 0, 48),
    "Qwen--Qwen3-32B": (32.76, 64, 0, 0),
    "Qwen--Qwen3-32B-FP8": (32.76, 64, 0, 0),
    "Qwen--Qwen3-8B": (8.19, 36, 0, 0),
    "Qwen--Qwen3-VL-235B-A22B-Instruct": (235.67, 94, 0, 94),
    "Qwen--Qwen3-VL-2B-Instruct": (2.13, 28, 0, 0),
    "Qwen--Qwen3-VL-32B-Thinking": (33.36, 64, 0, 0),
    "Qwen--Qwen3-VL-4B-Instruct": (4.44, 36, 0, 0),
    "Qwen--Qwen3-VL-8B-Instruct": (8.77, 36, 0, 0),
    "Qwen--Qwen3.5-397B-A17B": (396.80, 15, 0, 60),
    "XiaomiMiMo--MiMo-7B-Base": (7.62, 36, 0, 0),
    "XiaomiMiMo--MiMo-V2-Flash": (308.78, 48, 39, 47),
    "deepseek-ai--DeepSeek-R1": (671.03, 61, 0, 58),
    "deepseek-ai--DeepSeek-V3": (671.03, 61, 0, 58),
    "deepseek-ai--DeepSeek-V3.2": (671.88, 61, 0, 58),
    "deepseek-ai--DeepSeek-V4-Pro": (1572.83, 61, 61, 61),
    "google--gemma-4-26B-A4B": (25.80, 30, 25, 30),
    "meta-llama--Meta-Llama-3.1-405B": (405.85, 126, 0, 0),
    "mistralai--Mixtral-8x22B-v0.1": (140.62, 56, 0, 56),
    "mistralai--Mixtral-8x7B-v0.1": (46.70, 32, 0, 32),
    "moonshotai--Kimi-K2-Instruct": (1026.41, 61, 0, 60),
    "moonshotai--Kimi-K3": (2779.87, 24, 0, 92),
    "nvidia--DeepSeek-V3.1-NVFP4": (671.03, 61, 0, 58),
    "nvidia--DeepSeek-V4-Flash-NVFP4": (284.26, 43, 43, 43),
    "nvidia--DeepSeek-V4-Pro-NVFP4": (1572.83, 61, 61, 61),
    "nvidia--GLM-5-NVFP4": (743.91, 78, 0, 75),
    "nvidia--GLM-5.1-NVFP4": (743.91, 78, 0, 75),
    "nvidia--GLM-5.2-NVFP4": (743.38, 78, 0, 75),
    "nvidia--Kimi-K2.5-NVFP4": (1026.88, 61, 0, 60),
    "nvidia--Llama-3.1-70B-Instruct-FP8": (70.55, 80, 0, 0),
    "nvidia--Llama-3_3-Nemotron-Super-49B-v1": (49.87, 49, 0, 0),
    "nvidia--MiniMax-M2.5-NVFP4": (228.69, 62, 0, 62),
    "nvidia--MiniMax-M2.7-NVFP4": (228.69, 62, 0, 62),
    "nvidia--MiniMax-M3-NVFP4": (426.81, 60, 0, 57),
    "nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": (31.58, 6, 0, 23),
    "nvidia--NVIDIA-Nemotron-3-Super-120B-A12B-NVFP4": (120.67, 8, 0, 40),
    "nvidia--NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16": (549.31, 12, 0, 48),
    "nvidia--NVIDIA-Nemotron-3-Ultra-550B-A55B-FP8": (549.31, 12, 0, 48),
    "nvidia--NVIDIA-Nemotron-3-Ultra-550B-A55B-NVFP4": (549.31, 12, 0, 48),
    "nvidia--Nemotron-H-56B-Base-8K": (56.32, 10, 0, 0),
    "nvidia--Qwen3-235B-A22B-NVFP4": (235.09, 94, 0, 94),
    "nvidia--Qwen3.5-122B-A10B-NVFP4": (122.56, 12, 0, 48),
    "nvidia--Qwen3.5-397B-A17B-NVFP4": (396.80, 15, 0, 60),
    "nvidia--Qwen3.6-27B-NVFP4": (27.36, 16, 0, 0),
    "nvidia--Qwen3.6-35B-A3B-NVFP4": (35.11, 10, 0, 40),
    "openai--gpt-oss-120b": (116.79, 36, 18, 36),
    "openai--gpt-oss-20b": (20.91, 24, 12, 24),
    "sgl-project--DeepSeek-V4-Flash-FP8": (284.26, 43, 43, 43),
    "sgl-project--DeepSeek-V4-Pro-FP8": (1572.83, 61, 61, 61),
    "stepfun-ai--Step-3.7-Flash": (195.83, 45, 33, 42),
    "zai-org--GLM-5": (743.91, 78, 0, 75),
    "zai-org--GLM-5.2": (743.38, 78, 0, 75),
}
NOT_AS_NAMED: dict[str, str] = {}
"""Models whose count differs from the size in their name by over 10 %, and why."""


def configs() -> dict[str, dict[str, Any]]:
    with tarfile.open(FOLDER / "model-configs.tar.xz") as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        return {
            name.split("/")[-2]: json.load(file)
            for name, file in files.items()
            if file is not None and name.endswith("/config.json")
        }


def shapes_of(connection: Connection, described: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return rows of the view by name."""
    entries = {
        name: Architecture(config=shape_of_config(config, name), source="test")
        for name, config in described.items()
    }
    refresh_shapes(connection, Shapes(entries, FormatFile()))
    return {row["model"]: row for row in fetch(connection, "FROM model_shapes")}


@pytest.fixture(scope="module")
def database() -> Iterator[Connection]:
    with configured_in_memory() as connection:
        yield connection


@pytest.fixture(scope="module")
def published(database: Connection) -> dict[str, dict[str, Any]]:
    return shapes_of(database, configs())


def test_the_54_published_configurations_are_read(published: dict[str, dict[str, Any]]) -> None:
    found = {
        name: (
            round(row["parameters"] / 1e9, 2),
            row["attention_layers"],
            row["local_layers"],
            row["moe_layers"],
        )
        for name, row in published.items()
    }
    assert found == PUBLISHED
    assert len(found) == 54


def test_parameters_are_within_one_percent_of_the_model_s_own_class(
    published: dict[str, dict[str, Any]],
) -> None:
    counted = json.loads((FOLDER / "parameters.json").read_text())
    assert counted.keys() == published.keys()
    for name, parameters in counted.items():
        if parameters is not None:
            assert published[name]["parameters"] == pytest.approx(parameters, rel=0.001), name


def test_parameters_are_what_the_name_says(published: dict[str, dict[str, Any]]) -> None:
    differing = {
        name
        for name, row in published.items()
        if size_difference(name, row["parameters"], row["vision_parameters"])
    }
    assert differing == NOT_AS_NAMED.keys()


def test_a_prediction_layer_is_stored_and_not_counted(published: dict[str, dict[str, Any]]) -> None:
    """The hub's headers of DeepSeek-R1 hold 684.53 G elements, among them a copy of embedding and head (1.85 G)."""
    row = published["deepseek-ai--DeepSeek-R1"]
    assert (row["parameters"] + row["mtp_parameters"]) / 1e9 == pytest.approx(684.53, rel=0.01)
    assert row["parameters"] / 1e9 == pytest.approx(671.03, abs=0.01)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 30e9),
        ("Qwen/Qwen3-0.6B", 0.6e9),
        ("org/model-1.5T", 1.5e12),
        ("org/Mixtral-8x7B-v0.1", None),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", None),
        ("nvidia/GLM-5.2-NVFP4", None),
        ("Qwen3-A3B", None),
    ],
)
def test_the_size_in_a_name(name: str, size: float | None) -> None:
    assert size_in_name(name) == size


def test_a_difference_from_the_name_is_reported() -> None:
    assert size_difference("org/model-30B-A3B", 31.6e9) == ""
    assert size_difference("org/model-4B", 4.44e9, 0.42e9) == "", "the name leaves the vision tower out"
    assert size_difference("org/model-30B-A3B", 102.3e9).startswith(
        "102.3 G parameters were counted, and org/model-30B-A3B is stated to have 30 G"
    )


BASE = {
    "hidden_size": 64,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "head_dim": 16,
    "vocab_size": 100,
    "intermediate_size": 128,
    "max_position_embeddings": 4096,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
MIXER = {"mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 2, "ssm_state_size": 16, "conv_kernel": 4}
DELTA = {
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_num_value_heads": 4,
    "linear_value_head_dim": 16,
}


def without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in names}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param(
            {**BASE, **EXPERTS, "n_routed_experts": 8},
            {"experts": 8, "moe_layers": 5},
            id="two names, one value",
        ),
        pytest.param(
            {**BASE, "sliding_window": 128, "attention_chunk_size": 128},
            {"window_tokens": 128, "local_layers": 5, "chunked": False},
            id="a window and a chunk of one length",
        ),
        pytest.param(
            {**BASE, **EXPERTS, "moe_layer_freq": [0, 0, 0, 1, 1]}, {"moe_layers": 2}, id="a flag a layer"
        ),
        pytest.param(
            {**without(BASE | EXPERTS, "num_experts_per_tok"), "top_k_experts": 2},
            {"experts_per_token": 2},
            id="top_k",
        ),
        pytest.param(
            {**without(BASE | EXPERTS, "num_experts_per_tok"), "num_experts_per_token": 2},
            {"experts_per_token": 2},
            id="per token",
        ),
        pytest.param(
            without(BASE | EXPERTS, "intermediate_size"),
            {"expert_parameters": 5 * 3 * 64 * 32, "dense_mlp_parameters": 0},
            id="experts alone have a width",
        ),
        pytest.param(
            {
                **without(BASE | MIXER, "num_hidden_layers"),
                "layers_block_type": ["mamba", "mamba", "attention"],
            },
            {"layers": 3, "attention_layers": 1, "linear_layers": 2},
            id="the length of a list of layers",
        ),
        pytest.param(
            {**BASE, **MIXER, **EXPERTS, "hybrid_override_pattern": "ME*-M", "mlp_hidden_act": "relu2"},
            {
                "attention_layers": 1,
                "linear_layers": 2,
                "moe_layers": 1,
                "dense_mlp_parameters": 2 * 64 * 128,
            },
            id="a pattern of blocks",
        ),
        pytest.param(
            {**BASE, **DELTA, "layer_types": ["linear_attention"] * 4 + ["full_attention"]},
            {"attention_layers": 1, "linear_layers": 4, "local_layers": 0, "global_layers": 1},
            id="linear attention",
        ),
        pytest.param(
            {"model_type": "x", "text_config": {**BASE, **DELTA, "full_attention_interval": 5}},
            {"attention_layers": 1, "linear_layers": 4},
            id="nested, one layer in five",
        ),
        pytest.param(
            {"thinker_config": {"text_config": {**BASE, "num_key_value_heads": 2}}},
            {"kv_heads": 2},
            id="nested twice",
        ),
        pytest.param(
            {**BASE, "model_type": "gemma3_text", "num_hidden_layers": 12, "sliding_window": 128},
            {"local_layers": 10, "global_layers": 2},
            id="Gemma 3 names no pattern",
        ),
        pytest.param(
            {**BASE, "model_type": "llama4_text", "num_hidden_layers": 8, "attention_chunk_size": 128},
            {"local_layers": 6, "global_layers": 2, "chunked": True},
            id="Llama 4 names no pattern",
        ),
        pytest.param(
            {
                **BASE,
                "model_type": "llama4_text",
                "attention_chunk_size": 128,
                "no_rope_layers": [1, 1, 0, 1, 1],
            },
            {"local_layers": 4, "global_layers": 1, "chunked": True},
            id="Llama 4 lists layers",
        ),
        pytest.param(
            {**BASE, "sliding_window": 128, "sliding_window_pattern": "LLLG"},
            {"local_layers": 4, "global_layers": 1},
            id="a pattern in letters",
        ),
        pytest.param(
            {**BASE, "sliding_window": 128, "use_sliding_window": True, "max_window_layers": 3},
            {"local_layers": 2, "global_layers": 3},
            id="the first layers without a window",
        ),
        pytest.param(
            {**BASE, "num_local_experts": 0, "num_experts_per_tok": 0},
            {"experts": 0, "moe_layers": 0, "dense_mlp_parameters": 5 * 3 * 64 * 128},
            id="no experts",
        ),
        pytest.param(
            {
                **BASE,
                "num_experts": 8,
                "moe_topk": [2] * 5,
                "moe_intermediate_size": [32] * 5,
                "num_shared_expert": [1] * 5,
            },
            {"experts_per_token": 2, "moe_layers": 5, "expert_parameters": 5 * 3 * 64 * 32},
            id="one number a layer",
        ),
        pytest.param(
            {**BASE, **EXPERTS, "mlp_only_layers": [1], "decoder_sparse_step": 2},
            {"moe_layers": 1},
            id="dense layers and a step",
        ),
        pytest.param(
            {**BASE, "hidden_act": "relu2"}, {"dense_mlp_parameters": 5 * 2 * 64 * 128}, id="squared ReLU"
        ),
        pytest.param({**BASE, "hidden_act": "xielu"}, {"dense_mlp_parameters": 5 * 2 * 64 * 128}, id="xIELU"),
        pytest.param(
            {**BASE, "mamba_d_conv": 4, "layer_types": ["attention"] * 5},
            {"attention_layers": 5, "linear_layers": 0},
            id="a hybrid family's model without Mamba",
        ),
        pytest.param(
            {**BASE, "num_nextn_predict_layers": 1},
            {"parameters": 100 * 64 * 2 + 5 * (4 * 64 * 64 + 3 * 64 * 128) + 11 * 64},
            id="a prediction layer is none of the model's",
        ),
    ],
)
def test_a_family_s_way_of_saying_it(
    database: Connection, config: dict[str, Any], expected: dict[str, Any]
) -> None:
    row = shapes_of(database, {"model": config})["model"]
    assert {name: row[name] for name in expected} == expected


def test_only_attention_layers_cache_and_a_local_one_keeps_its_window_of_its_own_heads(
    database: Connection,
) -> None:
    hybrid = {**BASE, **DELTA, "layer_types": ["linear_attention"] * 4 + ["full_attention"]}
    local = {
        **BASE,
        "layer_types": ["sliding_attention"] * 4 + ["full_attention"],
        "sliding_window": 128,
        "num_key_value_heads": 2,
        "swa_num_key_value_heads": 4,
    }
    shapes_of(database, {"hybrid": hybrid, "local": local})
    rows = fetch(
        database, "SELECT kv_request_bytes(s, 1000, 2, 1) AS bytes FROM model_shapes s ORDER BY model"
    )
    assert [row["bytes"] for row in rows] == [
        1000 * 2 * 4 * 16 * 2,
        1000 * 2 * 2 * 16 * 2 + 4 * 128 * 2 * 4 * 16 * 2,
    ]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**BASE, **EXPERTS, "n_routed_experts": 16}, "num_experts is 8 and n_routed_experts is 16"),
        ({**BASE, "layer_types": ["strange"] * 5}, "the kind of layer 'strange' is unknown"),
        ({**BASE, "layer_types": ["full_attention"] * 4}, "4 layers are listed, and num_hidden_layers is 5"),
        ({**BASE, "hybrid_override_pattern": "M*M*M"}, "need the widths of their heads"),
        (
            {**BASE, "mamba_d_ssm": 1024},
            r"layers of another kind than attention aren't known \('mamba_d_ssm'\)",
        ),
        ({**BASE, "layer_group_size": 8}, r"aren't known \('layer_group_size'\)"),
        ({**BASE, "mixer_types": ["lightning-attn"] * 5}, r"aren't known \('mixer_types'\)"),
        ({**BASE, "decay_low_rank_dim": 64}, r"aren't known \('decay_low_rank_dim'\)"),
        ({**BASE, "full_attention_interval": 4}, r"aren't known \('full_attention_interval'\)"),
        ({**BASE, "use_cla": True, "cla_share_factor": 2}, "share a KV cache"),
        ({**BASE, "hidden_size_per_layer_input": 256}, "embeddings of each layer"),
        ({**BASE, **EXPERTS, "mlp_only_layers": [0], "decoder_sparse_step": 0}, "layers can't be read"),
        ({**BASE, "sliding_window": 128, "sliding_window_pattern": ""}, "layers can't be read"),
        (without(BASE, "hidden_size"), "key 'hidden_size' is missing"),
        (without(BASE, "intermediate_size"), "key 'intermediate_size' is missing"),
        ({"model_type": "gpt2", "n_embd": 768}, "is missing"),
        ({**BASE, "hidden_size": 10**12, "intermediate_size": 10**12}, "larger than those of any model"),
        ({**BASE, "vision_config": {"depth": 10**9, "hidden_size": 10**9}}, "larger than those of any model"),
    ],
)
def test_what_cannot_be_counted_is_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        shape_of_config(config, "config.json")
    assert "\n" not in str(caught.value)
