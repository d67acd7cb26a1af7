"""Dialects of exporters beyond one format for all layers, and what none of them writes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from quantgate.model.errors import ConfigError
from tasks.checkpoint.files import read_weights
from tasks.checkpoint.formats.precision import Format, classify
from tasks.checkpoint.safetensors import read_spans
from tests.support.quantized_layouts import (
    AWQ,
    AWQ_GEMV,
    FP8,
    FP8_BLOCK,
    FP_QUANT,
    GPTQ,
    INT4_CT,
    INT8,
    INT8_CT,
    KV8,
    MXFP4,
    MXFP4_CT,
    MXFP8,
    MXFP8_INV,
    NVFP4,
    NVFP4_CT,
    QUARK_INT4,
    SPINQUANT,
    TORCHAO_NVFP4,
    UP,
    ct,
    hf,
    own,
    quark,
)
from tests.support.tiny_checkpoints import PARAMETERS, PLAIN, Layout, Q, checkpoint_files, write_checkpoint
from tests.tasks.checkpoint.formats.test_precision import tensors


def read(layout: Layout, quantization: Any, hf_quant: Any = None, **config: Any) -> Format:
    return classify({"quantization_config": quantization, **config}, hf_quant, tensors(layout), "m")


def refusal(layout: Layout, quantization: Any, **config: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(layout, quantization, **config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def both(first: Layout, second: Layout) -> Layout:
    """A layer of one layout, and the second's as the MLP's."""
    return {**first, **{name.replace(Q, UP): tensor for name, tensor in second.items() if Q in name}}


def auto_round(bits: int, data_type: str = "int", group_size: int = 32, **more: Any) -> dict[str, Any]:
    """A quantization_config as AutoRound writes its own."""
    return {
        "quant_method": "auto-round",
        "bits": bits,
        "data_type": data_type,
        "group_size": group_size,
        **more,
    }


PER_GROUP = {"dtype": "fp4", "qscheme": "per_group", "group_size": 16}
MX = {"qscheme": "per_group", "group_size": 32, "scale_format": "e8m0"}
BLOCKS = {"dtype": "fp8_e4m3", "qscheme": "per_block", "block_size": [128, 128]}
UNDERSCORE = ct("nvfp4-pack-quantized", "float", 4) | {"quant_method": "compressed_tensors"}
ROTATED = ct("pack-quantized", "int", 4, transform_config={"config_groups": {"R4": {}}})
TORCHAO = {"quant_method": "torchao", "quant_type": {"default": {"_type": "NVFP4WeightOnlyConfig"}}}
GEMV = {"quant_method": "awq", "bits": 4, "group_size": 16, "version": "gemv"}
AWQ_PACKED = auto_round(4, group_size=128, packing_format="auto_round:auto_awq")


@pytest.mark.parametrize(
    ("layout", "quantization", "precision", "weight_format"),
    [
        (NVFP4_CT, UNDERSCORE, "nvfp4", "compressed-tensors:"),
        (SPINQUANT, ROTATED, "int4", "compressed-tensors:"),
        (MXFP4_CT, auto_round(4, "mx_fp"), "mxfp4", "auto-round:mx_fp4"),
        (MXFP8, auto_round(8, "mx_fp"), "mxfp8", "auto-round:mx_fp8"),
        (NVFP4_CT, auto_round(4, "nv_fp4_with_static_gs", 16), "nvfp4", "auto-round:nv_fp4"),
        (FP8, auto_round(8, "fp", packing_format="auto_round:fp8_static"), "fp8", "auto-round:fp8"),
        (GPTQ, auto_round(4, group_size=128), "int4", "auto-round"),
        (INT8, auto_round(8, packing_format="auto_round:llm_compressor"), "int8", "auto-round"),
        (AWQ, AWQ_PACKED, "int4", "auto-round"),
        (AWQ_GEMV, GEMV, "int4", "awq"),
        (MXFP4, quark({"dtype": "fp4", **MX}), "mxfp4", "quark:fp4"),
        (MXFP8, quark({"dtype": "fp8_e4m3", **MX}), "mxfp8", "quark:fp8_e4m3"),
        (NVFP4, quark([PER_GROUP, {"dtype": "fp8_e4m3"}]), "nvfp4", "quark:fp4"),
        (INT8, quark({"dtype": "int8", "qscheme": "per_channel"}), "int8", "quark:int8"),
        (QUARK_INT4, quark({"dtype": "uint4", "qscheme": "per_group"}), "int4", "quark:uint4"),
        (FP8_BLOCK, quark(BLOCKS), "fp8", "quark:fp8_e4m3"),
        (FP_QUANT, {"quant_method": "fp_quant", "forward_dtype": "nvfp4"}, "nvfp4", "fp_quant:nvfp4"),
        (TORCHAO_NVFP4, TORCHAO, "nvfp4", "torchao:NVFP4WeightOnlyConfig"),
        (MXFP8_INV, {"quant_method": "mxfp8", "weight_block_size": [1, 32]}, "mxfp8", "mxfp8"),
    ],
)
def test_a_dialect_is_read_as_its_exporter_means_it(
    layout: Layout, quantization: Any, precision: str, weight_format: str
) -> None:
    found = read(layout, quantization)
    assert (found.precision, found.parameters) == (precision, PARAMETERS)
    assert found.weight_format.startswith(weight_format)
    assert found.layers == {"bf16": 2, precision: 1}


GPTQ8: Layout = {
    **GPTQ,
    f"{Q}.qweight": ("I32", (32, 128)),
    f"{Q}.qzeros": ("I32", (1, 32)),
}


def gptq(bits: int, **dynamic: Any) -> dict[str, Any]:
    """A quantization_config as GPTQModel writes it, its ``dynamic`` by name of a pattern."""
    patterns = {"attention": r"+:.*self_attn.*", "mlp": r".*up_proj", "none": r"-:.*vision.*"}
    return {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": 128,
        "dynamic": {patterns[name]: change for name, change in dynamic.items()},
    }


@pytest.mark.parametrize(
    "quantization",
    [
        gptq(4, attention={"bits": 8}),
        gptq(8, mlp={"bits": 4}, none={}),
        auto_round(4, group_size=128, extra_config={Q: {"bits": 8}}),
        auto_round(4, group_size=128, extra_config={r".*attn\..*": {"bits": 8}}),
        auto_round(4, group_size=128, extra_config={"self_attn.*q": {"bits": 8}, "lm_head": {"bits": 16}}),
    ],
)
def test_layers_of_other_bits_make_a_mixed_model_with_the_right_parameters(quantization: Any) -> None:
    found = read(both(GPTQ8, GPTQ), quantization)
    assert (found.precision, found.parameters) == ("mixed", PARAMETERS + 128 * 128)
    assert found.layers == {"bf16": 2, "int4": 1, "int8": 1}


def test_an_override_that_fits_no_layer_changes_nothing() -> None:
    dynamic = {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 128,
        "dynamic": {r"+:.*vision.*": {"bits": 8}},
    }
    assert read(GPTQ, dynamic).precision == "int4"


def test_bits_are_measured_not_believed() -> None:
    assert f"'{Q}.qweight' is I32 with F16 scales" in refusal(GPTQ8, gptq(4))
    groups = ct("pack-quantized", "int", 4)
    groups["config_groups"]["group_0"]["weights"]["group_size"] = 64
    wide = {**INT4_CT, f"{Q}.weight_scale": ("BF16", (128, 2))}
    assert read(wide, groups).layers == {"bf16": 2, "int4": 1}
    assert f"'{Q}.weight_packed' is I32" in refusal(
        {**INT8_CT, f"{Q}.weight_scale": ("BF16", (128, 2))}, groups
    )


def test_the_shape_that_a_packed_weight_had_counts_its_parameters(tmp_path: Path) -> None:
    """A row of 100 numbers of 4 bits takes 13 words, which could hold 104; zeros in the shape's place say nothing."""
    quantization = ct("pack-quantized", "int", 4, strategy="channel")
    files = checkpoint_files({**INT4_CT, f"{Q}.weight_packed": ("I32", (128, 13))}, quantization=quantization)
    file = write_checkpoint(tmp_path, files) / "model.safetensors"
    begin = read_spans(file, "m")[f"{Q}.weight_shape"][1].begin
    for shape, columns in (((0, 0), 104), ((128, 100), 100)):
        with file.open("r+b") as stored:
            stored.seek(begin)
            stored.write(struct.pack("<qq", *shape))
        found = classify(
            {"quantization_config": quantization}, None, read_weights(tmp_path, "m").tensors, "m"
        )
        assert found.parameters == PARAMETERS - 128 * 128 + 128 * columns


def test_what_two_groups_store_alike_is_told_by_the_names_of_layers() -> None:
    quantization = ct("int-quantized", "int", 8)
    group = quantization["config_groups"]["group_0"]
    four = {**group, "weights": {**group["weights"], "num_bits": 4}, "targets": ["re:.*mlp.*"]}
    quantization["config_groups"] = {"a": {**group, "targets": ["re:.*self_attn.*"]}, "b": four}
    found = read(both(INT8, INT8), quantization)
    assert found.layers == {"bf16": 2, "int4": 1, "int8": 1}
    assert found.schemes == {"bf16": 2, "int4-in-bytes": 1, "int8": 1}


def test_a_class_of_layers_is_what_no_name_fits() -> None:
    """One group of scales may be a part of one, so that shapes alone do not tell the bits."""
    groups = ct("pack-quantized", "int", 8)
    first = groups["config_groups"]["group_0"]
    first["targets"] = ["re:.*self_attn.*"]
    second = {
        **first,
        "targets": ["Linear"],
        "weights": {**first["weights"], "num_bits": 4, "group_size": 128},
    }
    groups["config_groups"]["group_1"] = second
    shapeless = {
        name: tensor for name, tensor in both(INT8_CT, INT4_CT).items() if not name.endswith("_shape")
    }
    assert read(shapeless, groups).layers == {"bf16": 2, "int4": 1, "int8": 1}


@pytest.mark.parametrize(
    ("quantization", "kv_cache_dtype"),
    [
        (own("FP8", "NVFP4", kv_cache_quant_algo="FP8"), "nvfp4"),
        (own("FP8", kv_cache_quant_algo="FP8"), "fp8"),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "FP8"}, "kv_cache_scheme": KV8}, "fp8"),
        (own("FP8", {**KV8, "dynamic": True}), "auto"),
        (own("FP8", {**KV8, "type": "int"}), "auto"),
    ],
)
def test_a_kv_cache_is_declared_in_the_order_that_vllm_reads(quantization: Any, kv_cache_dtype: str) -> None:
    assert read(FP8, quantization).kv_cache_dtype == kv_cache_dtype


def test_bounds_of_inputs_and_scales_with_their_zeros_are_no_parameters() -> None:
    bound = {**FP8, f"{Q}.input_scale_ub": ("F32", (1,))}
    assert read(bound, {"quant_method": "fbgemm_fp8"}).parameters == PARAMETERS
    tiled: Layout = {
        f"{Q}._weight_qdata": ("I32", (16, 1, 32, 4)),
        f"{Q}._weight_scale_and_zero": ("BF16", (1, 128, 2)),
        **{name: tensor for name, tensor in PLAIN.items() if Q not in name},
    }
    int4 = {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}}
    assert (read(tiled, int4).precision, read(tiled, int4).parameters) == ("int4", PARAMETERS)


def test_groups_without_weights_are_attentions_or_the_caches() -> None:
    quantization = ct("float-quantized", "float", 8, strategy="channel")
    quantization["config_groups"] |= {
        "attention": {"targets": ["LlamaAttention"], "weights": None, "input_activations": {"num_bits": 8}},
        "cache": {"targets": ["re:.*k_proj"], "output_activations": {"num_bits": 8, "type": "float"}},
    }
    assert read({**FP8, f"{Q}.weight_scale": ("BF16", (128, 1))}, quantization).precision == "fp8"


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        (f"{UP}.weight", "U32", (128, 16)),
        (f"{UP}.compressed", "BF16", (128, 64)),
        (f"{UP}.bitmask", "U8", (128, 16)),
        (f"{UP}.W_q", "U8", (64, 128)),
        (f"{UP}.codes", "I16", (128, 16)),
        (f"{UP}.Qidxs", "I64", (128, 2)),
        (f"{UP}.dense_weights", "I64", (4096,)),
        (f"{Q}.weight_residual", "BF16", (128, 8)),
        (f"{Q}.weight_new", "F8_E4M3", (128, 128)),
        (f"{UP}.rotation", "F64", (128, 128)),
    ],
)
def test_a_tensor_that_nothing_explains_is_refused_by_its_name(
    name: str, dtype: str, shape: tuple[int, ...]
) -> None:
    extra: Layout = {name: (dtype, shape)}
    if name == f"{UP}.compressed":
        extra = {**extra, f"{UP}.bitmask": ("U8", (128, 16))}
        name = f"{UP}.bitmask"
    assert f"'{name}'" in refusal({**FP8, **extra}, own("FP8"))
    if dtype in {"U32", "U8", "I16", "I64", "F64"}:
        assert f"'{name}'" in refusal({**PLAIN, **extra}, None)


def test_tables_that_models_need_are_no_weights() -> None:
    tables: Layout = {
        "model.layers.0.ffn.gate.tid2eid": ("I64", (64, 2)),
        "vision.embeddings.position_ids": ("I64", (1, 64)),
        "model.layers.0.self_attn.masked_bias": ("BOOL", (4, 4)),
        "norm.num_batches_tracked": ("I64", ()),
    }
    assert read({**PLAIN, **tables}, None).parameters == PARAMETERS


def test_biases_of_an_affine_kv_cache_are_no_parameters() -> None:
    affine: Layout = {f"{Q}.k_bias": ("BF16", (1, 2, 1, 64)), f"{Q}.k_scale": ("F32", ())}
    found = read({**NVFP4, **affine}, own("NVFP4", "NVFP4_AFFINE"))
    assert (found.kv_cache_dtype, found.parameters) == ("nvfp4", PARAMETERS)
    assert "kv:affine" in found.traits
    plain: Layout = {"attn.k_bias": ("BF16", (128,))}
    assert read({**PLAIN, **plain}, None).parameters == PARAMETERS + 128


@pytest.mark.parametrize(
    ("quantization", "says"),
    [
        ({"quant_method": "hqq"}, "quantization method 'hqq', whose precision is unknown"),
        ({"group_size": 64, "bits": 4}, "quantization method '', whose precision is unknown"),
        (
            {"quant_method": "torchao", "quant_type": "int2wo"},
            "torchao's int2wo is not a known weight format",
        ),
        (quark({"dtype": "fp6_e3m2", **MX}), "Quark's fp6_e3m2 per_group is not a known weight format"),
        (
            {"quant_method": "fp_quant", "forward_dtype": "mxfp6"},
            "fp_quant mxfp6 is not a known weight format",
        ),
        (
            {"quant_method": "auto-round", "bits": 3, "data_type": "int"},
            "auto-round with int of 3 bits is not a",
        ),
        ({"quant_method": "fp8", "moe_quant_algo": "NEW"}, "moe_quant_algo NEW is not a known weight format"),
    ],
)
def test_an_unknown_dialect_is_named(quantization: Any, says: str) -> None:
    assert says in refusal(FP8, quantization)


def test_a_sidecar_that_names_fewer_layers_is_no_difference() -> None:
    """NVIDIA's DeepSeek V4: config.json is FP8's, and hf_quant_config.json lists the NVFP4 experts alone."""
    experts = {UP: {"quant_algo": "NVFP4", "group_size": 16}}
    quantization = {"quant_method": "fp8", "weight_block_size": [128, 128], "quantized_layers": experts}
    layout = both(FP8_BLOCK, NVFP4)
    found = read(layout, quantization, hf("MIXED_PRECISION", quantized_layers=experts), expert_dtype="fp4")
    assert found[:2] == ("mixed", "fp8:block+modelopt:nvfp4")
    assert found.remarks == ()


def test_a_declaration_that_vllm_overlooks_is_remarked() -> None:
    """vLLM knows ModelOpt's form without a method by its producer (model_arch_config_convertor.py)."""
    nested = {"quantization": {"quant_algo": "FP8"}}
    assert "vLLM overlooks it" in read(FP8, nested).remarks[0]
    assert read(FP8, nested | {"producer": {"name": "modelopt"}}).remarks == ()
