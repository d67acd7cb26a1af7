"""NVFP4 on the CPU: vLLM's own emulation, which it lists for other platforms only."""

from __future__ import annotations


def register() -> None:
    """Offer vLLM's emulation where the CPU has no NVFP4 kernel."""
    from vllm.model_executor.kernels import linear
    from vllm.platforms import PlatformEnum

    kernel = linear.EmulationNvFp4LinearKernel
    if kernel not in linear._POSSIBLE_NVFP4_KERNELS.get(PlatformEnum.CPU, []):
        linear.register_linear_kernel(kernel, PlatformEnum.CPU, "nvfp4")
