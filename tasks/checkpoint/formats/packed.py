"""Measure how many bits an integer has that is packed into 32-bit words: from the shapes of what lies beside it."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.checkpoint.safetensors import Tensor

WORD_BITS = 32


def may_have(bits: int, name: str, tensors: Mapping[str, Tensor], group_size: int) -> bool:
    """Return True unless the shapes beside a packed weight say that its integers have another number of bits.

    A weight of ``out`` rows and ``inner`` columns is stored by compressed-tensors as ``weight_packed``
    [out, inner·bits/32] (compressors/quantized_compressors/pack_quantized.py), by GPTQ as ``qweight``
    [inner·bits/32, out], by AWQ as ``qweight`` [inner, out·bits/32]; zero points are packed along ``out``.

    Args:
        bits: of one integer.
        name: of the packed weight.
        tensors: every tensor of the checkpoint.
        group_size: weights that share a scale, as declared; 0 where that isn't known.
    """
    if name.endswith("_packed"):
        return _may_have_rows(bits, tensors[name], name.removesuffix("_packed"), tensors, group_size)
    packed, parent = tensors[name].shape, name.rpartition(".")[0]
    zeros, scales = tensors.get(f"{parent}.qzeros"), tensors.get(f"{parent}.scales")
    if scales is None or len(scales.shape) < 2 or packed[-2] == scales.shape[-2]:
        return True  # AWQ's gemv stores rows of `out`, and pads its scales
    out, groups = scales.shape[-1], scales.shape[-2]
    order = tensors.get(f"{parent}.g_idx")
    if packed[-1] != out:
        return packed[-1] == _words(out, bits)
    if order is not None and order.elements > 1:
        return packed[-2] == _words(order.elements, bits)
    if group_size:
        return _fits_groups(packed[-2], groups, bits, group_size)
    return zeros is None or zeros.dtype != "I32" or zeros.shape[-1:] == (_words(out, bits),)


def _may_have_rows(
    bits: int, weight: Tensor, stem: str, tensors: Mapping[str, Tensor], group_size: int
) -> bool:
    """Return `may_have` of rows that compressed-tensors packed."""
    words = weight.shape[-1]
    sizes, zeros = tensors.get(f"{stem}_shape"), tensors.get(f"{stem}_zero_point")
    scales = tensors.get(f"{stem}_scale")
    if sizes is not None and len(sizes.values) > 1 and 0 not in sizes.values:
        return words == _words(sizes.values[-1], bits)
    if group_size and scales is not None and len(scales.shape) > 1:
        return _fits_groups(words, scales.shape[-1], bits, group_size)
    if zeros is None or zeros.dtype != "I32" or len(zeros.shape) < 2:
        return True
    return zeros.shape[-2] == _words(weight.shape[-2], bits)


def _words(numbers: int, bits: int) -> int:
    """Return the words that so many numbers take."""
    return -(-numbers * bits // WORD_BITS)


def _fits_groups(words: int, groups: int, bits: int, group_size: int) -> bool:
    """Return True if a row of words can hold that many groups of numbers; the last group may be smaller."""
    most = groups * group_size
    return _words(most - group_size + 1, bits) <= words <= _words(most, bits)
