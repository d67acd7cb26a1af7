"""FP8 (E4M3) on the CPU: quantization in plain torch, and a linear kernel that multiplies in float32."""

from __future__ import annotations

import torch
from vllm import _custom_ops as ops
from vllm.model_executor.kernels import linear
from vllm.model_executor.kernels.linear import FP8ScaledMMLinearKernel, PlatformEnum

FP8_MAX = torch.finfo(torch.float8_e4m3fn).max
# vLLM's floor for a dynamic scale, so that a row of zeros does not divide by zero.
MIN_SCALE = 1.0 / (FP8_MAX * 512.0)


def scaled_fp8_quant(
    input: torch.Tensor,  # noqa: A002 - the signature is vLLM's
    scale: torch.Tensor | None = None,
    num_token_padding: int | None = None,
    scale_ub: torch.Tensor | None = None,
    use_per_token_if_dynamic: bool = False,
    output: torch.Tensor | None = None,
    group_shape: tuple[int, int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize to FP8 E4M3 in plain torch; stands in for ``vllm._custom_ops.scaled_fp8_quant`` on a CPU.

    Args:
        input: [tokens, width], any floating dtype.
        scale: static scale: per tensor (one value), per row or column (1-D, told apart by ``group_shape``),
            or per block (2-D); dynamic where None.
        num_token_padding: least number of rows of the result.
        scale_ub: upper bound of the absolute maximum, for dynamic per-token scales.
        use_per_token_if_dynamic: one dynamic scale per row instead of one for all.
        output: where to write the result.
        group_shape: (rows, columns) that share a static scale; -1 is all of them.

    Returns:
        The quantized tensor [max(tokens, padding), width] and its float32 scale.
    """
    values = input.to(torch.float32)
    if scale is None:
        if use_per_token_if_dynamic:
            peak = values.abs().amax(dim=-1, keepdim=True)
            if scale_ub is not None:
                peak = peak.clamp(max=scale_ub.to(torch.float32))
        else:
            peak = values.abs().amax().reshape(1)
        scale = (peak / FP8_MAX).clamp(min=MIN_SCALE)
    factors = scale.to(torch.float32)
    if factors.dim() == 1 and factors.numel() > 1:
        per_row = group_shape is not None and group_shape[0] == 1
        factors = factors.reshape(-1, 1) if per_row else factors.reshape(1, -1)
    elif factors.dim() == 2 and factors.numel() > 1:
        rows, columns = (full // part for full, part in zip(values.shape, factors.shape, strict=True))
        factors = factors.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
    quantized = (values / factors).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
    if output is None:
        rows = max(num_token_padding or 0, input.shape[0])
        output = torch.zeros((rows, input.shape[1]), dtype=torch.float8_e4m3fn, device=input.device)
    output[: input.shape[0]].copy_(quantized)
    return output, scale


class EmulationFp8LinearKernel(FP8ScaledMMLinearKernel):
    """FP8 W8A8 with per-tensor or per-channel weights, static or dynamic inputs.

    Weights stay in FP8 in memory. E4M3 values are exact in float32, so the sum is that of a native kernel
    with a float32 accumulator; scales are applied afterwards.
    """

    @classmethod
    def is_supported(cls, compute_capability: int | None = None) -> tuple[bool, str | None]:
        """Any CPU."""
        return True, None

    @classmethod
    def can_implement(cls, c) -> tuple[bool, str | None]:
        """All but block scales, which have a kernel type of their own."""
        if c.weight_quant_key.scale.group_shape.is_per_group():
            return False, "has no block scales."
        return True, None

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Nothing to prepare."""

    def apply_weights(
        self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Quantize ``x`` [..., K], multiply with the layer's [K, N] weight, return [..., N]."""
        weight, weight_scale, input_scale, scale_ub = self._get_layer_params(layer)
        rows = x.reshape(-1, x.shape[-1])
        per_token = self.config.activation_quant_key.scale.group_shape.is_per_token()
        quantized, row_scale = scaled_fp8_quant(
            rows, input_scale, scale_ub=scale_ub, use_per_token_if_dynamic=per_token
        )
        return self.apply_scaled_mm(
            A=quantized,
            B=weight,
            out_dtype=self.config.out_dtype or x.dtype,
            As=row_scale,
            Bs=weight_scale,
            bias=bias,
            output_shape=[*x.shape[:-1], weight.shape[1]],
        )

    def apply_scaled_mm(self, *, A, B, out_dtype, As, Bs, bias, output_shape) -> torch.Tensor:
        """``(A @ B) * As * Bs + bias`` with A [M, K], B [K, N] in FP8 and float32 scales."""
        product = A.to(torch.float32) @ B.to(torch.float32)
        scales = Bs.to(torch.float32)
        product *= As.to(torch.float32)
        product *= scales.reshape(1, -1) if scales.numel() > 1 else scales.reshape(())
        if bias is not None:
            product += bias.to(torch.float32)
        return product.to(out_dtype).view(*output_shape)


def register() -> None:
    """Put the kernel before the torch fallbacks (which fail on a CPU) and after vLLM's own CPU kernels."""
    kernels = linear._POSSIBLE_FP8_KERNELS[PlatformEnum.CPU]
    if EmulationFp8LinearKernel not in kernels:
        fallback = next((i for i, k in enumerate(kernels) if "Torch" in k.__name__), len(kernels))
        kernels.insert(fallback, EmulationFp8LinearKernel)
    # Weights of fused layers are requantized at load with this function, which has no CPU kernel.
    ops.scaled_fp8_quant = scaled_fp8_quant
