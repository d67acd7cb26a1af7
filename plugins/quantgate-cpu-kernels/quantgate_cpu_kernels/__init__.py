"""A vLLM plugin: FP8 and NVFP4 linear layers by emulation on CPUs that have no kernel for them.

The numbers are the format's own (weights and activations are rounded to it); the speed is not: a layer is
dequantized before an ordinary product. Kernels that vLLM has for the CPU at hand (AMX) keep precedence.
"""

from __future__ import annotations


def register() -> None:
    """Entry point of ``vllm.general_plugins``; runs in every process of the engine, and may run twice."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from quantgate_cpu_kernels import fp8, nvfp4

    fp8.register()
    nvfp4.register()
