"""Quantized linear layers as exporters lay them out, and what their configurations declare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support.tiny_checkpoints import REST, Layout, Q

# One quantized linear layer of 128 x 128, as ModelOpt 0.47, compressed-tensors 0.17, AutoAWQ, GPTQ, DeepSeek
# and gpt-oss lay it out.
FP8: Layout = {f"{Q}.weight": ("F8_E4M3", (128, 128)), f"{Q}.weight_scale": ("F32", ()), **REST}
FP8_INPUTS: Layout = {**FP8, f"{Q}.input_scale": ("F32", ()), f"{Q}.k_scale": ("F32", ())}
FP8_CHANNEL: Layout = {**FP8, f"{Q}.weight_scale": ("BF16", (128, 1))}
FP8_BLOCK: Layout = {f"{Q}.weight": ("F8_E4M3", (128, 128)), f"{Q}.weight_scale_inv": ("F32", (1, 1)), **REST}
MXFP8: Layout = {**FP8, f"{Q}.weight_scale": ("U8", (128, 4))}
NVFP4: Layout = {
    f"{Q}.weight": ("U8", (128, 64)),
    f"{Q}.weight_scale": ("F8_E4M3", (128, 8)),
    f"{Q}.weight_scale_2": ("F32", ()),
    f"{Q}.input_scale": ("F32", ()),
    **REST,
}
NVFP4_CT: Layout = {
    f"{Q}.weight_packed": ("U8", (128, 64)),
    f"{Q}.weight_scale": ("F8_E4M3", (128, 8)),
    f"{Q}.weight_global_scale": ("F32", (1,)),
    f"{Q}.input_global_scale": ("F32", (1,)),
    **REST,
}
MXFP4: Layout = {f"{Q}.weight": ("U8", (128, 64)), f"{Q}.weight_scale": ("U8", (128, 4)), **REST}
MXFP4_CT: Layout = {f"{Q}.weight_packed": ("U8", (128, 64)), f"{Q}.weight_scale": ("U8", (128, 4)), **REST}
INT8: Layout = {f"{Q}.weight": ("I8", (128, 128)), f"{Q}.weight_scale": ("F32", (128,)), **REST}
INT4_MODELOPT: Layout = {
    f"{Q}.weight": ("U8", (64, 128)),
    f"{Q}.weight_scale": ("F32", (128, 1)),
    f"{Q}.pre_quant_scale": ("BF16", (128,)),
    **REST,
}
INT4_CT: Layout = {
    f"{Q}.weight_packed": ("I32", (128, 16)),
    f"{Q}.weight_shape": ("I64", (2,)),
    f"{Q}.weight_scale": ("BF16", (128, 1)),
    **REST,
}
INT8_CT: Layout = {**INT4_CT, f"{Q}.weight_packed": ("I32", (128, 32))}
AWQ: Layout = {
    f"{Q}.qweight": ("I32", (128, 16)),
    f"{Q}.qzeros": ("I32", (1, 16)),
    f"{Q}.scales": ("F16", (1, 128)),
    **REST,
}
GPTQ: Layout = {
    f"{Q}.qweight": ("I32", (16, 128)),
    f"{Q}.qzeros": ("I32", (1, 16)),
    f"{Q}.scales": ("F16", (1, 128)),
    f"{Q}.g_idx": ("I32", (128,)),
    **REST,
}
GPTQ8: Layout = {**GPTQ, f"{Q}.qweight": ("I32", (32, 128))}
GPT_OSS: Layout = {
    "model.layers.0.mlp.experts.gate_up_proj_blocks": ("U8", (2, 64, 4, 16)),
    "model.layers.0.mlp.experts.gate_up_proj_scales": ("U8", (2, 64, 4)),
    "model.layers.0.mlp.experts.gate_up_proj_bias": ("BF16", (2, 64)),
    **REST,
}
LLAMA4_FP8: Layout = {
    "model.layers.0.experts.gate_up_proj": ("F8_E4M3", (2, 128, 64)),
    "model.layers.0.experts.gate_up_proj_weight_scale": ("F32", ()),
    **REST,
}
UP = "model.layers.0.mlp.up_proj"
MIXED: Layout = {
    **FP8_INPUTS,
    f"{UP}.weight": ("U8", (128, 64)),
    f"{UP}.weight_scale": ("F8_E4M3", (128, 8)),
    f"{UP}.weight_scale_2": ("F32", ()),
}
V4: Layout = {
    f"{Q}.weight": ("F8_E4M3", (128, 128)),
    f"{Q}.scale": ("F8_E8M0", (1, 1)),
    "layers.0.ffn.experts.0.w1.weight": ("I8", (128, 64)),
    "layers.0.ffn.experts.0.w1.scale": ("F8_E8M0", (128, 4)),
    **REST,
}


def hf(algorithm: str | None, kv: str | None = None, **more: Any) -> dict[str, Any]:
    """hf_quant_config.json as ModelOpt writes it."""
    inner = {"quant_algo": algorithm, "kv_cache_quant_algo": kv, "exclude_modules": ["lm_head"], **more}
    return {"producer": {"name": "modelopt", "version": "0.47.0"}, "quantization": inner}


def own(algorithm: str, kv: Any = None, **more: Any) -> dict[str, Any]:
    """The same as ModelOpt converts it for config.json."""
    config = {"ignore": ["lm_head"], "quant_algo": algorithm, "quant_method": "modelopt", **more}
    return config if kv is None else {**config, "kv_cache_scheme": kv}


def ct(
    layout: str, kind: str, bits: int, inputs: Mapping[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """A quantization_config as compressed-tensors writes it."""
    weights = {"num_bits": bits, "type": kind, "strategy": more.pop("strategy", "group"), "dynamic": False}
    group = {"format": layout, "input_activations": inputs, "targets": ["Linear"], "weights": weights}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "config_groups": {"group_0": group},
        "kv_cache_scheme": None,
        **more,
    }


KV8 = {"dynamic": False, "num_bits": 8, "type": "float"}
TOKEN8 = {"dynamic": True, "num_bits": 8, "type": "float", "strategy": "token"}
LAYERS = {Q: {"quant_algo": "FP8"}, UP: {"quant_algo": "NVFP4", "group_size": 16}}

# What other exporters write.
MXFP8_INV: Layout = {
    f"{Q}.weight": ("F8_E4M3", (128, 128)),
    f"{Q}.weight_scale_inv": ("U8", (128, 4)),
    **REST,
}
FP_QUANT: Layout = {
    f"{Q}.qweight": ("U8", (128, 64)),
    f"{Q}.scales": ("U8", (128, 8)),
    f"{Q}.weight_global_scale": ("F32", (1,)),
    f"{Q}.act_global_scale": ("F32", (1,)),
    f"{Q}.forward_hadamard_matrix": ("BF16", (32, 32)),
    **REST,
}
QUARK_INT4: Layout = {
    f"{Q}.weight": ("I32", (128, 16)),
    f"{Q}.weight_scale": ("BF16", (1, 128)),
    f"{Q}.weight_zero_point": ("I32", (1, 16)),
    **REST,
}
TORCHAO_NVFP4: Layout = {
    f"{Q}._weight_qdata": ("U8", (128, 64)),
    f"{Q}._weight_scale": ("F8_E4M3", (64, 128)),
    f"{Q}._weight_per_tensor_scale": ("F32", ()),
    **REST,
}
SPINQUANT: Layout = {**INT4_CT, f"{Q}.R4_input.weight": ("F64", (512, 512))}
AWQ_GEMV: Layout = {
    f"{Q}.qweight": ("I32", (128, 16)),
    f"{Q}.qzeros": ("I32", (128, 1)),
    f"{Q}.scales": ("F16", (128, 8)),
    **REST,
}


def quark(weight: Any, inputs: Any = None, **more: Any) -> dict[str, Any]:
    """A quantization_config as Quark writes it."""
    everywhere = {"weight": weight, "input_tensors": inputs, "output_tensors": None, "bias": None}
    return {
        "quant_method": "quark",
        "global_quant_config": everywhere,
        "layer_quant_config": {},
        "layer_type_quant_config": {},
        "exclude": ["lm_head"],
        "export": {"kv_cache_group": [], "pack_method": "reorder"},
        **more,
    }
