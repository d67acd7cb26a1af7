"""Run an exported FP8 or NVFP4 checkpoint in float32: with its stored weights, its activations rounded as it says.

ModelOpt's own simulation of NVFP4 needs a GPU. The formats are those of "OCP Microscaling Formats" (E2M1,
E4M3) and of NVIDIA's NVFP4: blocks of 16 with an E4M3 scale each, over one float32 scale a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

_E4M3_MAX = 448.0
_E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
# A value on a boundary goes to the neighbour with the even mantissa.
_BELOW = 1e-6
_E2M1_BOUNDARIES = torch.tensor([0.25, 0.75 - _BELOW, 1.25, 1.75 - _BELOW, 2.5, 3.5 - _BELOW, 5.0])
_BLOCK = 16

Tensors = dict[str, torch.Tensor]


def _e4m3(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(-_E4M3_MAX, _E4M3_MAX).to(torch.float8_e4m3fn).float()


def _fp8_weight(stored: Tensors) -> torch.Tensor:
    return stored["weight"].float() * stored["weight_scale"].float()


def _fp8_activation(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return _e4m3(x / scale) * scale


def _nvfp4_weight(stored: Tensors) -> torch.Tensor:
    packed = stored["weight"]  # (out, in / 2): the even column is the low half of a byte
    codes = torch.stack([packed & 0xF, packed >> 4], dim=-1).flatten(-2).long()
    values = _E2M1[codes & 0x7] * (1 - 2 * (codes >> 3))
    scales = stored["weight_scale"].float() * stored["weight_scale_2"].float()
    return values * scales.repeat_interleave(_BLOCK, dim=-1)


def _nvfp4_activation(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    blocks = x.unflatten(-1, (-1, _BLOCK))
    largest = blocks.abs().amax(dim=-1, keepdim=True)
    steps = _e4m3(largest / _E2M1[-1] / scale) * scale
    scaled = torch.where(steps > 0, blocks / steps, 0.0)
    rounded = _E2M1[torch.bucketize(scaled.abs(), _E2M1_BOUNDARIES)] * scaled.sign()
    return (rounded * steps).flatten(-2)


_FORMATS: dict[torch.dtype, tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]] = {
    torch.float8_e4m3fn: (_fp8_weight, _fp8_activation),
    torch.uint8: (_nvfp4_weight, _nvfp4_activation),
}
"""Functions that read a weight and round an activation, by the dtype a weight is stored in."""


def load_simulated(folder: Path, like: LlamaForCausalLM) -> LlamaForCausalLM:
    """Load the model of an exported checkpoint in float32, with quantization simulated.

    Args:
        folder: an FP8 or NVFP4 checkpoint.
        like: a model of the same architecture, whose weights are replaced.
    """
    stored = load_file(folder / "model.safetensors")
    for name, module in like.named_modules():
        own = {
            key.rpartition(".")[2]: value for key, value in stored.items() if key.rpartition(".")[0] == name
        }
        if "weight" not in own:
            continue
        weight = own["weight"].float()
        if "input_scale" in own:
            read, rounded = _FORMATS[own["weight"].dtype]
            weight, scale = read(own), own["input_scale"].float()
            module.register_forward_pre_hook(lambda _, inputs, f=rounded, s=scale: (f(inputs[0], s),))
        module.weight = torch.nn.Parameter(weight, requires_grad=False)
    return like
