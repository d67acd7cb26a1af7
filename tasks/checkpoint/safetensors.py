"""A safetensors file's header: its tensors by dtype and shape; the file must be whole."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from quantgate.model.bounded import INTEGER_MAX, RefusedError, parse_json
from quantgate.model.errors import ConfigError

DTYPE_BITS = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    **dict.fromkeys(
        ("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"),
        8,
    ),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""Bits of one element by the dtype's name in a safetensors header."""

HEADER_BYTES_MAX = 100_000_000
"""The format's own limit of a header, huggingface/safetensors, README, "Format"."""

DIMENSIONS_MAX = 64
"""Most numbers in a shape; the product of a million of them would take hours."""

DOWNLOAD_HINT = "Copy or download it again."


class Tensor(NamedTuple):
    """A tensor as a safetensors header describes it."""

    dtype: str
    shape: tuple[int, ...]
    values: tuple[int, ...] = ()
    """Numbers that it holds; read of a packed weight's shape alone."""

    @property
    def elements(self) -> int:
        """Return the number of stored elements; several weights may be packed into one."""
        return math.prod(self.shape)


class Span(NamedTuple):
    """Where a tensor's bytes lie in its file: from ``begin`` to before ``end``."""

    begin: int
    end: int


def read_header(path: Path, where: str) -> dict[str, Tensor]:
    """Read the tensors in a safetensors file's header, and the shapes that packed weights had.

    Errors are those of `read_spans`.
    """
    spans = read_spans(path, where)
    tensors = {name: tensor for name, (tensor, _) in spans.items()}
    with path.open("rb") as file:
        for name, (tensor, span) in spans.items():
            if name.endswith(".weight_shape") and tensor.dtype in {"I32", "I64"} and tensor.elements <= 4:
                file.seek(span.begin)
                size_bytes = DTYPE_BITS[tensor.dtype] // 8
                values = (int.from_bytes(file.read(size_bytes), "little") for _ in range(tensor.elements))
                tensors[name] = tensor._replace(values=tuple(values))
    return tensors


def read_spans(path: Path, where: str) -> dict[str, tuple[Tensor, Span]]:
    """Read the tensors in a safetensors file's header and where each lies, and compare the file's size with them.

    The format: 8 bytes little-endian header size, a JSON header of dtype, shape and data offsets by tensor,
    then the data without gaps (huggingface/safetensors, README, "Format").

    Raises:
        ConfigError: the file is truncated, longer than its header says, or its header is damaged.
    """
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if size_bytes < 8 or header_bytes > min(size_bytes - 8, HEADER_BYTES_MAX):
                what = (
                    f"{path.name} ends within its header ({size_bytes:,} bytes): truncated, or no safetensors"
                )
                raise ConfigError(what, where=where, hint=DOWNLOAD_HINT)
            raw = file.read(header_bytes)
    except OSError as error:
        what = f"{path.name} can't be read ({error.strerror})"
        raise ConfigError(what, where=where, hint=DOWNLOAD_HINT) from None
    try:
        tensors, offsets = _parse_header(raw)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        what = f"{path.name} has a damaged header ({_reason(error)})"
        raise ConfigError(what, where=where, hint=DOWNLOAD_HINT) from None
    begin = 8 + header_bytes
    expected_bytes = begin + max((span.end for span in offsets.values()), default=0)
    if size_bytes != expected_bytes:
        state = "is truncated" if size_bytes < expected_bytes else "is longer than its header says"
        what = f"{path.name} {state}: {size_bytes:,} bytes, {expected_bytes:,} expected"
        raise ConfigError(what, where=where, hint=DOWNLOAD_HINT)
    return {
        name: (tensor, Span(begin + offsets[name].begin, begin + offsets[name].end))
        for name, tensor in tensors.items()
    }


def _reason(error: Exception) -> str:
    """Return a few words on a parser's error."""
    is_ours = isinstance(error, ValueError) and not isinstance(error, (RefusedError, UnicodeError))
    return str(error)[:120] if is_ours else "not a tensor table"


def _parse_header(raw: bytes) -> tuple[dict[str, Tensor], dict[str, Span]]:
    """Return the tensors and their spans from the beginning of the data, which must have no gap or overlap."""
    table = parse_json(raw, _unique)
    metadata = table.pop("__metadata__", None)
    if metadata is not None and not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata that isn't text")
    tensors: dict[str, Tensor] = {}
    spans: dict[str, Span] = {}
    for name, entry in table.items():
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if dtype not in DTYPE_BITS:
            raise ValueError(f"unknown dtype {dtype!r}")
        if (
            not isinstance(shape, list)
            or len(shape) > DIMENSIONS_MAX
            or not all(type(n) is int and 0 <= n <= INTEGER_MAX for n in (*shape, begin, end))
        ):
            raise ValueError(f"tensor '{name}' has no proper shape or offsets")
        tensors[name] = Tensor(dtype, tuple(shape))
        spans[name] = Span(begin, end)
        if (end - begin) * 8 != tensors[name].elements * DTYPE_BITS[dtype]:
            raise ValueError(f"tensor '{name}' doesn't have the bytes of its shape")
    reached = 0
    for (begin, end), name in sorted((span, name) for name, span in spans.items()):
        if begin != reached:
            raise ValueError(f"gap or overlap before tensor '{name}'")
        reached = end
    return tensors, spans


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; refuse a name that is listed twice."""
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name is listed twice")
    return table
