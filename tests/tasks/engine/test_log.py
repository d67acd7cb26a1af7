"""The engine's log and metrics as records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.model.enums import KernelMode
from tasks.engine import log

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
        ("nothing of the kind", None),
    ],
)
def test_attention_backend(line: str, backend: str | None) -> None:
    assert log.attention_backend_in(line) == backend


def mode(*kernels: str) -> KernelMode:
    return log.kernel_mode_of(dict(enumerate(kernels)), log.kernel_rules())  # type: ignore[arg-type]


def test_kernel_mode_is_the_worst_of_the_layers() -> None:
    assert mode() is KernelMode.NATIVE
    assert mode("CutlassFP8ScaledMMLinearKernel", "FlashInferCutlassNvFp4LinearKernel") is KernelMode.NATIVE
    assert mode("CutlassFP8ScaledMMLinearKernel", "MarlinNvFp4LinearKernel") is KernelMode.WEIGHT_ONLY
    assert mode("MarlinNvFp4LinearKernel", "EmulationNvFp4LinearKernel") is KernelMode.EMULATED
    assert mode("CPUFp8PerTensorScaledMMLinearKernel") is KernelMode.WEIGHT_ONLY
    assert mode("FlashInferCuteDslNvFp4W4A16LinearKernel") is KernelMode.WEIGHT_ONLY


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
