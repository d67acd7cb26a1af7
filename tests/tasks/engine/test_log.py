"""The engine's log and metrics as records."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.model.enums import KernelMode
from quantgate.model.home import ROOT
from tasks.engine import log
from tests.support.demo_bundles import manifests

SEALED = manifests()
LOG = """
(Worker pid=6760) INFO 11-24 07:01:57 [__init__.py:797] Selected EmulationFp8LinearKernel for QKVParallelLinear
(Worker pid=6760) INFO 11-24 07:01:57 [__init__.py:797] Selected CutlassFP8ScaledMMLinearKernel for RowParallelLinear
(EngineCore pid=7039) INFO 11-24 07:02:34 [__init__.py:1240] Using MarlinNvFp4LinearKernel for NVFP4 GEMM
(APIServer pid=1) INFO [x.py:1] non-default args: {'attention_backend': <AttentionBackendEnum.CPU_ATTN: 'x'>, 'a': 1}
"""


def test_kernels_by_layer_type() -> None:
    assert log.kernels_in(LOG) == {
        "QKVParallelLinear": "EmulationFp8LinearKernel",
        "RowParallelLinear": "CutlassFP8ScaledMMLinearKernel",
        "NVFP4 GEMM": "MarlinNvFp4LinearKernel",
    }


@pytest.mark.parametrize(
    ("line", "backend"),
    [
        (LOG, "CPU_ATTN"),
        (
            "INFO [cuda.py:1] Using FLASH_ATTN attention backend out of potential backends: ['FLASH_ATTN']",
            "FLASH_ATTN",
        ),
        ("INFO [cuda.py:1] Using AttentionBackendEnum.FLASHINFER backend.", "FLASHINFER"),
        ("INFO [cpu.py:175] Using CPU_MLA backend.", "CPU_MLA"),
        (
            "INFO Using FLASH_ATTN attention backend\nINFO Using MAMBA2_ATTN attention backend",
            "FLASH_ATTN, MAMBA2_ATTN",
        ),
        ("INFO [cuda.py:221] Using Flash Attention backend on V1 engine.", "Flash Attention"),
        ("INFO [xpu.py:239] Using Flash Attention backend.", "Flash Attention"),
        ("INFO [xpu.py:189] Using Flash Attention MLA backend on XPU.", "Flash Attention MLA"),
        ("INFO [xpu.py:158] Using XPU MLA Sparse backend.", "XPU MLA Sparse"),
        ("INFO [xpu.py:192] Using Triton backend.", "Triton"),
        ("INFO [xpu.py:153] Using TurboQuant attention backend.", "TurboQuant"),
        (
            "INFO Using Flash Attention backend for ViT model.\nINFO Using ROCM_ATTN backend out of potential",
            "ROCM_ATTN",
        ),
        ("INFO [mxfp4.py:1] Using Triton backend", None),
        ("INFO Using TRITON backend for w_mxfp4_a_mxfp4\nINFO Using FLASH_ATTN MLA prefill backend.", None),
        ("INFO Using default backend AttentionBackendEnum.TORCH_SDPA for vit attention", None),
        ("nothing of the kind", None),
    ],
)
def test_attention_backend(line: str, backend: str | None) -> None:
    assert log.attention_backend_in(line) == backend


def mode(*kernels: str) -> KernelMode | None:
    return log.kernel_mode_of({str(number): name for number, name in enumerate(kernels)}, log.kernel_rules())


def excerpts(name: str) -> list[tuple[str, str, str | None]]:
    """Return each excerpt of a file: its lines, the right mode, and the right attention backend where one is asked."""
    text = (ROOT / "tests" / "fixtures" / "engine_logs" / name).read_text(encoding="utf-8")
    blocks = []
    for block in re.split(r"\n\s*\n", text):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines:
            answer = lines[-1].removeprefix("> ").split()
            backend = answer[1].removeprefix("attention=") if "attention=" in lines[-1] else None
            blocks.append(("\n".join(lines[:-1]), answer[0], backend))
    return blocks


@pytest.mark.parametrize(
    ("text", "kernel_mode", "attention"),
    [block for name in ("vllm_0.33.0_0.25.1.txt", "moe.txt", "recorded.txt") for block in excerpts(name)],
)
def test_excerpts_give_the_right_kernel_mode(text: str, kernel_mode: str, attention: str | None) -> None:
    kernels = log.kernels_in(text)
    expected = None if kernel_mode == "unknown" else KernelMode(kernel_mode)
    assert log.kernel_mode_of(kernels, log.kernel_rules()) is expected, kernels
    if attention is not None:
        assert log.attention_backend_in(text) == attention


def test_kernel_mode_is_the_worst_of_the_layers() -> None:
    assert mode() is None
    assert mode("SomeNewKernel") is None
    assert mode("SomeNewKernel", "MarlinNvFp4LinearKernel") is None
    assert mode("SomeNewKernel", "EmulationNvFp4LinearKernel") is KernelMode.EMULATED
    assert mode("CutlassFP8ScaledMMLinearKernel", "FlashInferCutlassNvFp4LinearKernel") is KernelMode.NATIVE
    assert mode("CutlassFP8ScaledMMLinearKernel", "MarlinNvFp4LinearKernel") is KernelMode.WEIGHT_ONLY
    assert mode("MarlinNvFp4LinearKernel", "EmulationNvFp4LinearKernel") is KernelMode.EMULATED
    assert mode("CPUFp8PerTensorScaledMMLinearKernel") is KernelMode.WEIGHT_ONLY
    assert mode("FlashInferCuteDslNvFp4W4A16LinearKernel") is KernelMode.WEIGHT_ONLY


@pytest.mark.parametrize(
    ("weight_format", "experts", "lines", "mode"),
    [
        ("unquantized", 0, "", KernelMode.NATIVE),
        ("unquantized", 8, "Using TRITON Unquantized MoE backend", KernelMode.NATIVE),
        ("modelopt:NVFP4", 0, "", None),
        ("modelopt:NVFP4", 0, "Using SomethingNewKernel for NVFP4 GEMM", None),
        ("modelopt:NVFP4", 0, "Using CutlassNvFp4LinearKernel for NVFP4 GEMM", KernelMode.NATIVE),
        ("modelopt:NVFP4", 8, "Using CutlassNvFp4LinearKernel for NVFP4 GEMM", None),
        ("modelopt:NVFP4", 8, "Using TRITON Unquantized MoE backend", None),
        (
            "modelopt:NVFP4",
            8,
            "Using CutlassNvFp4LinearKernel for NVFP4 GEMM\nUsing TRITON Unquantized MoE backend",
            KernelMode.NATIVE,
        ),
    ],
)
def test_silence_is_no_label(
    tmp_path: Path, weight_format: str, experts: int, lines: str, mode: KernelMode | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"num_experts": experts}}))
    served = SEALED[0].checkpoint.model_copy(update={"path": str(tmp_path), "weight_format": weight_format})
    assert log.served_mode(served, log.kernels_in(lines), log.kernel_rules()) is mode


def test_all_kernels_of_a_kind_of_layer_are_kept_and_rounded_activations_are_named() -> None:
    text = (
        "Using MarlinMxfp8LinearKernel for MXFP8 GEMM\n"
        "using flashinfercutedslmxfp8linearkernel FOR MXFP8 GEMM\n"
        "Using HummingMxFp4LinearKernel for MXFP4 GEMM\n"
        "Using HUMMING W4A8 MoE backend.\n"
        "Using MarlinExperts\n"
    )
    assert log.kernels_in(text) == {
        "MXFP8 GEMM": "MarlinMxfp8LinearKernel, flashinfercutedslmxfp8linearkernel",
        "MXFP4 GEMM": "HummingMxFp4LinearKernel (fp8 activations)",
        "W4A8 MoE": "HUMMING (fp8 activations)",
        "experts": "MarlinExperts",
    }
    assert log.names_experts(log.kernels_in(text))
    assert not log.names_experts(log.kernels_in(LOG))


def test_a_warning_counts_where_no_line_names_a_kernel() -> None:
    marlin = "Your GPU does not have native support for FP4 computation but FP4 quantization is being used."
    assert log.kernels_in(marlin) == {"FP4 layers": "Marlin"}
    simulated = "The current platform does not support native MXFP4/MXFP6 computation. Simulated weight dequantization"
    assert log.kernel_mode_of(log.kernels_in(simulated), log.kernel_rules()) is KernelMode.EMULATED


def test_the_kv_cache_is_what_the_engine_reports_then_what_its_log_says() -> None:
    line = (
        "INFO [cache.py:355] Using fp8_e4m3 data type to store kv cache. It reduces the GPU memory footprint"
    )
    reported = 'vllm:cache_config_info{cache_dtype="nvfp4",block_size="16"} 1.0\n'
    assert log.kv_cache_dtype_in(line, reported) == "nvfp4"
    assert log.kv_cache_dtype_in(line, reported.replace("nvfp4", "auto")) == "fp8_e4m3"
    latent = "Using fp8 data type to store kv cache. It\nUsing DeepSeek's fp8_ds_mla KV cache format."
    assert log.kv_cache_dtype_in(latent) == "fp8_ds_mla"
    assert (
        log.kv_cache_dtype_in("Using fp8_ds_mla KV cache format for FLASHMLA_SPARSE backend.") == "fp8_ds_mla"
    )
    assert log.kv_cache_dtype_in("") is None


METRICS = """
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="128",engine="0",kv_cache_size_tokens="2097152",num_gpu_blocks="16384"} 1.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 2.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 3.0
"""


def test_metrics() -> None:
    assert log.kv_cache_tokens_in(METRICS) == 2097152
    assert log.kv_cache_tokens_in(METRICS.replace("2097152", "None")) == 128 * 16384
    assert log.kv_cache_tokens_in("") is None
    assert log.metric_sum(METRICS, "vllm:request_success_total") == 5.0
    assert log.metric_sum(METRICS, "vllm:no_such") is None


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(alphabet="ab,={} ", max_size=8), min_size=1
    )
)
def test_labels_survive_any_value(labels: dict[str, str]) -> None:
    line = "m{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "} 1.5\n"
    assert log.metric_values(line, "m") == [(labels, 1.5)]
