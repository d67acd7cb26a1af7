"""Formats that 54 published configurations declare: config.json and hf_quant_config.json as they are on the hub."""

from __future__ import annotations

import json
import tarfile
from typing import Any

import pytest

from quantgate.model.home import ROOT
from tasks.checkpoint.formats.precision import stated_format

ARCHIVE = ROOT / "tests" / "fixtures" / "model_configs" / "model-configs.tar.xz"


def configurations() -> dict[str, dict[str, Any]]:
    """Their files by model and name."""
    models: dict[str, dict[str, Any]] = {}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                folder, _, name = member.name.removeprefix("./").partition("/")
                models.setdefault(folder, {})[name] = json.load(file)
    return models


MODELS = configurations()

BLOCKS = ("fp8", "fp8:block", "auto")
NVFP4 = ("nvfp4", "modelopt:NVFP4", "fp8")
EXPERTS = ("mixed", "fp8:block+modelopt:nvfp4", "auto")
MIXED = "modelopt:MIXED_PRECISION"
QUANTIZED = {
    "Qwen--Qwen3-30B-A3B-FP8": BLOCKS,
    "Qwen--Qwen3-32B-FP8": BLOCKS,
    "XiaomiMiMo--MiMo-V2-Flash": BLOCKS,
    "deepseek-ai--DeepSeek-R1": BLOCKS,
    "deepseek-ai--DeepSeek-V3": BLOCKS,
    "deepseek-ai--DeepSeek-V3.2": BLOCKS,
    "deepseek-ai--DeepSeek-V4-Pro": ("mixed", "fp8:block", "auto"),
    "moonshotai--Kimi-K2-Instruct": BLOCKS,
    "moonshotai--Kimi-K3": ("mxfp4", "compressed-tensors:mxfp4-pack-quantized/w4a16-group", "auto"),
    "nvidia--DeepSeek-V3.1-NVFP4": NVFP4,
    "nvidia--DeepSeek-V4-Flash-NVFP4": EXPERTS,
    "nvidia--DeepSeek-V4-Pro-NVFP4": EXPERTS,
    "nvidia--GLM-5-NVFP4": NVFP4,
    "nvidia--GLM-5.1-NVFP4": NVFP4,
    "nvidia--GLM-5.2-NVFP4": NVFP4,
    "nvidia--Kimi-K2.5-NVFP4": NVFP4,
    "nvidia--Llama-3.1-70B-Instruct-FP8": ("fp8", "modelopt:FP8", "fp8"),
    "nvidia--MiniMax-M2.5-NVFP4": NVFP4,
    "nvidia--MiniMax-M2.7-NVFP4": NVFP4,
    "nvidia--MiniMax-M3-NVFP4": ("mixed", MIXED, "auto"),
    "nvidia--NVIDIA-Nemotron-3-Super-120B-A12B-NVFP4": NVFP4,
    "nvidia--NVIDIA-Nemotron-3-Ultra-550B-A55B-FP8": ("fp8", "modelopt:FP8", "fp8"),
    "nvidia--NVIDIA-Nemotron-3-Ultra-550B-A55B-NVFP4": NVFP4,
    "nvidia--Qwen3-235B-A22B-NVFP4": NVFP4,
    "nvidia--Qwen3.5-122B-A10B-NVFP4": NVFP4,
    "nvidia--Qwen3.5-397B-A17B-NVFP4": NVFP4,
    "nvidia--Qwen3.6-27B-NVFP4": ("mixed", MIXED, "fp8"),
    "nvidia--Qwen3.6-35B-A3B-NVFP4": ("mixed", MIXED, "auto"),
    "openai--gpt-oss-120b": ("mxfp4", "mxfp4", "auto"),
    "openai--gpt-oss-20b": ("mxfp4", "mxfp4", "auto"),
    "sgl-project--DeepSeek-V4-Flash-FP8": BLOCKS,
    "sgl-project--DeepSeek-V4-Pro-FP8": BLOCKS,
}
"""Precision, weight format and KV cache; every other one is unquantized."""
DIFFERING = {"nvidia--Qwen3.6-35B-A3B-NVFP4"}
"""Its hf_quant_config.json declares an FP8 KV cache, and its config.json none, which counts."""


def test_there_are_54_of_them() -> None:
    assert len(MODELS) == 54
    assert set(QUANTIZED) <= set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_a_published_configuration_is_read_as_vllm_reads_it(name: str) -> None:
    files = MODELS[name]
    stated = stated_format(files["config.json"], files.get("hf_quant_config.json"), name)
    read = (stated.precision, stated.weight_format, stated.declared.kv_cache_dtype)
    assert read == QUANTIZED.get(name, ("bf16", "unquantized", "auto"))
    assert bool(stated.declared.remarks) == (name in DIFFERING)
