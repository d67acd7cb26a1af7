from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.model.errors import ConfigError
from tasks.checkpoint.formats.precision import PRECISIONS, classify
from tasks.checkpoint.formats.quant_config import METHODS
from tasks.checkpoint.formats.schemes import COMPRESSED_TENSORS, MODELOPT, Scheme
from tasks.checkpoint.safetensors import Tensor
from tests.support.quantized_layouts import (
    AWQ,
    FP8,
    FP8_BLOCK,
    FP8_CHANNEL,
    FP8_INPUTS,
    GPT_OSS,
    GPTQ,
    GPTQ8,
    INT4_CT,
    INT4_MODELOPT,
    INT8,
    INT8_CT,
    KV8,
    LAYERS,
    LLAMA4_FP8,
    MIXED,
    MXFP4,
    MXFP4_CT,
    MXFP8,
    NVFP4,
    NVFP4_CT,
    TOKEN8,
    UP,
    V4,
    ct,
    hf,
    own,
)
from tests.support.tiny_checkpoints import CONFIG, PARAMETERS, PLAIN, Layout, Q


def tensors(layout: Layout) -> dict[str, Tensor]:
    return {name: Tensor(dtype, shape) for name, (dtype, shape) in layout.items()}


SCALES = ("scale", "scale_2", "scale_inv", "scales", "qzeros", "weight_shape", "g_idx", "bias")


def is_matrix(name: str, layout: Layout) -> bool:
    """A weight of two dimensions or more, as this file's layouts name them."""
    return len(layout[name][1]) > 1 and not name.endswith(SCALES)


N = PARAMETERS

CASES = [
    (PLAIN, None, None, ("bf16", "unquantized", "auto", N)),
    (PLAIN, None, hf(None), ("bf16", "unquantized", "auto", N)),
    (FP8_INPUTS, own("FP8"), hf("FP8"), ("fp8", "modelopt:FP8", "auto", N)),
    (FP8_INPUTS, None, hf("FP8", "FP8"), ("fp8", "modelopt:FP8", "fp8", N)),
    (FP8_INPUTS, own("FP8", KV8), hf("FP8", "FP8"), ("fp8", "modelopt:FP8", "fp8", N)),
    (FP8_INPUTS, own("FP8", KV8), None, ("fp8", "modelopt:FP8", "fp8", N)),
    (FP8, own("fp8_pb_wo"), hf("fp8_pb_wo"), ("fp8", "modelopt:FP8_PB_WO", "auto", N)),
    (
        FP8_CHANNEL,
        None,
        hf("FP8_PER_CHANNEL_PER_TOKEN"),
        ("fp8", "modelopt:FP8_PER_CHANNEL_PER_TOKEN", "auto", N),
    ),
    (LLAMA4_FP8, None, hf("FP8"), ("fp8", "modelopt:FP8", "auto", N)),
    (MXFP8, None, hf("MXFP8"), ("mxfp8", "modelopt:MXFP8", "auto", N)),
    (NVFP4, own("NVFP4"), hf("NVFP4", group_size=16), ("nvfp4", "modelopt:NVFP4", "auto", N)),
    (NVFP4, None, hf("NVFP4", "NVFP4"), ("nvfp4", "modelopt:NVFP4", "nvfp4", N)),
    (NVFP4, None, hf("W4A16_NVFP4"), ("nvfp4", "modelopt:W4A16_NVFP4", "auto", N)),
    (MXFP4, None, hf("mxfp4"), ("mxfp4", "modelopt:MXFP4", "auto", N)),
    (INT4_MODELOPT, None, hf("W4A16_AWQ"), ("int4", "modelopt:W4A16_AWQ", "auto", N)),
    (INT8, None, hf("W8A8_SQ_PER_CHANNEL"), ("int8", "modelopt:W8A8_SQ_PER_CHANNEL", "auto", N)),
    (
        MIXED,
        own("MIXED_PRECISION", KV8),
        hf("MIXED_PRECISION", "FP8", quantized_layers=LAYERS),
        ("mixed", "modelopt:MIXED_PRECISION", "fp8", N + 128 * 128),
    ),
    (
        FP8_CHANNEL,
        ct("float-quantized", "float", 8, TOKEN8, strategy="channel"),
        None,
        ("fp8", "compressed-tensors:float-quantized/w8a8-channel-dynamic", "auto", N),
    ),
    (
        FP8_CHANNEL,
        ct(
            "float-quantized",
            "float",
            8,
            {**TOKEN8, "dynamic": False},
            strategy="tensor",
            kv_cache_scheme=KV8,
        ),
        None,
        ("fp8", "compressed-tensors:float-quantized/w8a8-tensor", "fp8", N),
    ),
    (
        NVFP4_CT,
        ct("nvfp4-pack-quantized", "float", 4, {"num_bits": 4, "type": "float", "dynamic": "local"}),
        None,
        ("nvfp4", "compressed-tensors:nvfp4-pack-quantized/w4a4-group", "auto", N),
    ),
    (
        NVFP4_CT,
        ct("nvfp4-pack-quantized", "float", 4),
        None,
        ("nvfp4", "compressed-tensors:nvfp4-pack-quantized/w4a16-group", "auto", N),
    ),
    (
        MXFP4_CT,
        ct("mxfp4-pack-quantized", "float", 4),
        None,
        ("mxfp4", "compressed-tensors:mxfp4-pack-quantized/w4a16-group", "auto", N),
    ),
    (
        MXFP8,
        ct("mxfp8-quantized", "float", 8),
        None,
        ("mxfp8", "compressed-tensors:mxfp8-quantized/w8a16-group", "auto", N),
    ),
    (
        INT4_CT,
        ct("pack-quantized", "int", 4),
        None,
        ("int4", "compressed-tensors:pack-quantized/w4a16-group", "auto", N),
    ),
    (
        INT8_CT,
        ct("pack-quantized", "int", 8),
        None,
        ("int8", "compressed-tensors:pack-quantized/w8a16-group", "auto", N),
    ),
    (
        INT8,
        ct("int-quantized", "int", 8),
        None,
        ("int8", "compressed-tensors:int-quantized/w8a16-group", "auto", N),
    ),
    (
        INT8,
        ct("int-quantized", "int", 4),
        None,
        ("int4", "compressed-tensors:int-quantized/w4a16-group (int4-in-bytes)", "auto", N),
    ),
    (
        AWQ,
        {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"},
        None,
        ("int4", "awq", "auto", N),
    ),
    (
        GPTQ,
        {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True},
        None,
        ("int4", "gptq", "auto", N),
    ),
    (GPTQ8, {"quant_method": "gptq", "bits": 8, "group_size": 128}, None, ("int8", "gptq", "auto", N)),
    (
        FP8_BLOCK,
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        None,
        ("fp8", "fp8:block", "auto", N),
    ),
    (FP8, {"quant_method": "fp8", "activation_scheme": "dynamic"}, None, ("fp8", "fp8:tensor", "auto", N)),
    (FP8_CHANNEL, {"quant_method": "fbgemm_fp8"}, None, ("fp8", "fbgemm_fp8", "auto", N)),
    (GPT_OSS, {"quant_method": "mxfp4"}, None, ("mxfp4", "mxfp4", "auto", N + 2 * 64)),
]


@pytest.mark.parametrize(("layout", "quantization", "hf_quant", "expected"), CASES)
def test_the_format_is_read_from_the_files(
    layout: Layout, quantization: Any, hf_quant: Any, expected: tuple[str, str, str, int]
) -> None:
    config = {**CONFIG, "quantization_config": quantization}
    found = classify(config, hf_quant, tensors(layout), "m")
    assert found[:4] == expected
    assert sum(found.layers.values()) == len(
        [name for name in layout if "norm" not in name and is_matrix(name, layout)]
    )
    assert found.layers["bf16"] >= 2  # embedding and head
    assert expected[0] in {"mixed", "bf16"} or found.layers[expected[0]] == len(found.layers) - 1


@pytest.mark.parametrize(
    ("dtype", "stated", "precision"),
    [("BF16", "bfloat16", "bf16"), ("F16", "float16", "fp16"), ("F32", "torch.float32", "fp32")],
)
def test_an_unquantized_model_goes_by_most_of_its_weights(dtype: str, stated: str, precision: str) -> None:
    layout: Layout = {
        "a.weight": (dtype, (64, 64)),
        "router.bias": ("F32", (8,)),
        "mask.bias": ("U8", (4, 4)),
    }
    found = classify({"torch_dtype": stated}, None, tensors(layout), "m")
    assert found[:5] == (precision, "unquantized", "auto", 64 * 64 + 8, {precision: 1})


def test_experts_in_another_format_make_a_mixed_model() -> None:
    config = {
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
        "expert_dtype": "fp4",
    }
    found = classify(config, None, tensors(V4), "m")
    assert found[:5] == ("mixed", "fp8:block", "auto", N + 128 * 128, {"bf16": 2, "fp8": 1, "mxfp4": 1})


def test_groups_of_different_schemes_make_a_mixed_model() -> None:
    quantization = ct("mixed-precision", "int", 4)
    group = quantization["config_groups"]["group_0"]
    quantization["config_groups"] = {
        "group_0": {**group, "format": "pack-quantized"},
        "group_1": {**group, "format": "float-quantized", "weights": {"num_bits": 8, "type": "float"}},
    }
    layout = {**INT4_CT, f"{UP}.weight": ("F8_E4M3", (128, 128)), f"{UP}.weight_scale": ("BF16", (128, 1))}
    found = classify({"quantization_config": quantization}, None, tensors(layout), "m")
    assert found.precision == "mixed"
    assert found.weight_format == "compressed-tensors:float-quantized/w8a16-tensor+pack-quantized/w4a16-group"
    assert found.parameters == N + 128 * 128
    assert found.layers == {"bf16": 2, "fp8": 1, "int4": 1}


def test_the_quantization_of_a_text_model_inside_counts() -> None:
    config = {"text_config": {"quantization_config": own("FP8")}}
    assert classify(config, None, tensors(FP8), "m").precision == "fp8"


def refusal(layout: Layout, quantization: Any = None, hf_quant: Any = None, **config: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        classify({"quantization_config": quantization, **config}, hf_quant, tensors(layout), "m")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("m: ")
    return message


def test_declared_and_found_that_differ_are_refused() -> None:
    redo = "Export the model again, or give a revision whose files agree."
    assert refusal(PLAIN, None, hf("FP8")) == (
        "m: hf_quant_config.json declares modelopt:FP8, but no fp8 weights (F8_E4M3) are stored, only BF16. "
        + redo
    )
    assert refusal(FP8) == (
        f"m: config.json declares unquantized, but '{Q}.weight' is F8_E4M3 with F32 scales. {redo}"
    )
    assert refusal(NVFP4, own("FP8")) == (
        f"m: config.json declares modelopt:FP8, but '{Q}.weight' is U8 with F8_E4M3 scales. {redo}"
    )


@pytest.mark.parametrize(
    ("layout", "quantization"),
    [
        (FP8, own("NVFP4")),
        (MXFP4, own("NVFP4")),
        (NVFP4, own("MXFP4")),
        (NVFP4, own("W4A16_AWQ")),
        (INT4_MODELOPT, own("NVFP4")),
        (MXFP8, own("FP8")),
        (FP8, own("MXFP8")),
        (INT8, ct("float-quantized", "float", 8)),
        (AWQ, {"quant_method": "fp8"}),
        (MIXED, own("FP8")),
        (FP8, own("MIXED_PRECISION", quantized_layers=LAYERS)),
        (NVFP4, None),
        (GPT_OSS, None),
        (AWQ, None),
        (INT8, None),
    ],
)
def test_a_format_that_the_tensors_do_not_bear_out_is_refused(layout: Layout, quantization: Any) -> None:
    assert " declares " in refusal(layout, quantization)


def test_two_configurations_that_disagree_are_reported_and_the_first_counts() -> None:
    """vLLM reads config.json first (transformers_utils/config.py)."""
    found = classify({"quantization_config": own("FP8", KV8)}, hf("NVFP4"), tensors(FP8), "m")
    assert found[:3] == ("fp8", "modelopt:FP8", "fp8")
    assert found.remarks == (
        (
            "config.json says modelopt:FP8 with KV cache fp8, but hf_quant_config.json says modelopt:NVFP4 with "
            "KV cache auto; the engine goes by config.json"
        ),
    )
    assert classify({"quantization_config": own("FP8")}, hf("FP8"), tensors(FP8), "m").remarks == ()
    unknown = classify({"quantization_config": own("FP8")}, hf("NEW"), tensors(FP8), "m")
    assert unknown.remarks == ("hf_quant_config.json: quant_algo NEW is not a known weight format",)


@pytest.mark.parametrize(
    ("quantization", "says"),
    [
        (
            {"quant_method": "bitsandbytes"},
            "quantization method 'bitsandbytes', whose precision is unknown. Known:",
        ),
        ({}, "quantization method ''"),
        ("fp8", "config.json: quantization_config is not a JSON object"),
        (own("INT3"), "config.json: quant_algo INT3 is not a known weight format. Known: FP8,"),
        (own("MIXED_PRECISION"), "config.json: quantized_layers is not a JSON object"),
        (ct("marlin-24", "int", 4), "config.json: marlin-24 int4 is not a known weight format"),
        (ct("pack-quantized", "int", 3), "config.json: pack-quantized int3 is not a known weight format"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"FP8": ["Linear"]}},
            "config.json: FP8 is not a JSON",
        ),
        (
            {"quant_method": "gptq", "bits": 3},
            "config.json: gptq with 3 bits is not a known weight format. Known: 4, 8",
        ),
        ({"quant_method": "fp8", "expert_dtype": "fp2"}, "expert_dtype 'fp2' is not a known weight format"),
    ],
)
def test_an_unknown_quantization_is_refused(quantization: Any, says: str) -> None:
    assert says in refusal(FP8, quantization)


def test_a_dtype_in_the_configuration_that_the_weights_contradict_is_refused() -> None:
    assert refusal(PLAIN, dtype="float16") == (
        "m: config.json says dtype float16, but most weights are stored as BF16. "
        "Correct 'dtype' in config.json, or save the model again in the dtype it is served in."
    )
    assert "no BF16, F16 or F32 weights" in refusal({"a.position_ids": ("I64", (4, 4))})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    "quantization",
    "quant_algo",
    "kv_cache_quant_algo",
    "kv_cache_scheme",
    "quantized_layers",
    "config_groups",
]
KEYS += ["format", "weights", "num_bits", "bits", "expert_dtype", "weight_block_size"]
SETTINGS = st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6)


@settings(max_examples=120, deadline=None)
@given(
    method=st.sampled_from(sorted(METHODS)) | JSON,
    quantization=SETTINGS,
    hf_quant=st.none() | st.fixed_dictionaries({"quantization": SETTINGS | JSON}),
    config=st.dictionaries(st.sampled_from(["dtype", "text_config", "compression_config"]), JSON),
    layout=st.sampled_from([PLAIN, FP8, NVFP4, AWQ]),
)
def test_any_configuration_is_classified_or_refused(
    method: Any, quantization: dict[str, Any], hf_quant: Any, config: dict[str, Any], layout: Layout
) -> None:
    config["quantization_config"] = {"quant_method": method, **quantization}
    message = ""
    try:
        found = classify(config, hf_quant, tensors(layout), "m")
    except ConfigError as error:
        message = str(error)
    else:
        assert found.precision in PRECISIONS
        assert found.parameters > 0
    assert len(message) < 900


@pytest.mark.parametrize("scheme", [*MODELOPT.values(), *COMPRESSED_TENSORS.values()])
def test_every_row_of_the_tables_names_a_known_precision(scheme: Scheme) -> None:
    assert scheme.precision in PRECISIONS
