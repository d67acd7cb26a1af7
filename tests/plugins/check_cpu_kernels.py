"""Runs in the engine's environment: the plugin's arithmetic against plain definitions."""

from __future__ import annotations

import torch
from quantgate_cpu_kernels import register
from quantgate_cpu_kernels.fp8 import FP8_MAX, EmulationFp8LinearKernel, scaled_fp8_quant
from vllm.model_executor.kernels import linear
from vllm.platforms import PlatformEnum

torch.manual_seed(0)
X = torch.randn(5, 64, dtype=torch.bfloat16)


def same(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert torch.equal(got.float(), expected.float()), (got, expected)


def e4m3(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)


# Static, per tensor; what lies beyond the range saturates instead of becoming NaN.
scale = torch.tensor([0.002])
quantized, given = scaled_fp8_quant(X, scale)
same(quantized, e4m3(X.float() / 0.002))
assert given is scale
assert not torch.isnan(quantized.float()).any()

# Dynamic, per tensor and per token; a row of zeros stays zero.
quantized, found = scaled_fp8_quant(X)
assert torch.allclose(found, X.float().abs().max().reshape(1) / FP8_MAX)
rows = torch.cat([X, torch.zeros(1, 64, dtype=X.dtype)])
quantized, found = scaled_fp8_quant(rows, use_per_token_if_dynamic=True)
assert found.shape == (6, 1)
same(quantized[:5], e4m3(X.float() / (X.float().abs().amax(1, keepdim=True) / FP8_MAX)))
same(quantized[5], torch.zeros(64))

# Padding, per-row, per-column and block scales.
assert scaled_fp8_quant(X, scale, num_token_padding=17)[0].shape == (17, 64)
per_row, per_column = torch.rand(5) + 0.5, torch.rand(64) + 0.5
same(scaled_fp8_quant(X, per_row, group_shape=(1, -1))[0], e4m3(X.float() / per_row[:, None]))
same(scaled_fp8_quant(X, per_column, group_shape=(-1, 1))[0], e4m3(X.float() / per_column))
blocks = torch.rand(5, 4) + 0.5
same(scaled_fp8_quant(X, blocks)[0], e4m3(X.float() / blocks.repeat_interleave(16, 1)))

# The linear kernel: quantized operands, a float32 sum, scales afterwards.
weight = torch.randn(64, 32)
weight_scale = weight.abs().amax(0) / FP8_MAX
packed = e4m3(weight / weight_scale)
inputs, input_scale = scaled_fp8_quant(X, use_per_token_if_dynamic=True)
bias = torch.randn(32)
got = EmulationFp8LinearKernel.apply_scaled_mm(
    None,
    A=inputs,
    B=packed,
    out_dtype=torch.float32,
    As=input_scale,
    Bs=weight_scale,
    bias=bias,
    output_shape=[5, 32],
)
expected = (inputs.float() * input_scale) @ (packed.float() * weight_scale) + bias
assert torch.allclose(got, expected, rtol=1e-5, atol=1e-5)
assert (got - (X.float() @ weight + bias)).abs().mean() < 0.3

# Registered once however often it runs, before the torch fallbacks and after vLLM's own kernels.
register()
register()
names = [kernel.__name__ for kernel in linear._POSSIBLE_FP8_KERNELS[PlatformEnum.CPU]]
assert names.count("EmulationFp8LinearKernel") == 1
assert names.index("CPUFp8PerTensorScaledMMLinearKernel") < names.index("EmulationFp8LinearKernel")
assert names.index("EmulationFp8LinearKernel") < names.index("PerTensorTorchFP8ScaledMMLinearKernel")
assert [k.__name__ for k in linear._POSSIBLE_NVFP4_KERNELS[PlatformEnum.CPU]] == [
    "EmulationNvFp4LinearKernel"
]
print("ALL HOLD")
