from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from quantgate.model.errors import ConfigError
from tasks.checkpoint.safetensors import Tensor, read_header
from tests.support.tiny_checkpoints import PLAIN, safetensors

WHOLE = safetensors(PLAIN, {"format": "pt"})
HEADER_BYTES = int.from_bytes(WHOLE[:8], "little")


def refusal(call: Any, *args: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_a_header_reads_as_the_library_wrote_it(file: Path) -> None:
    save_file({"a.weight": np.zeros((3, 5), np.float32), "b": np.zeros((), np.int64)}, file)
    assert read_header(file, "m") == {"a.weight": Tensor("F32", (3, 5)), "b": Tensor("I64", ())}
    assert read_header(file, "m")["a.weight"].elements == 15


def test_a_truncated_file_says_what_it_has_and_needs(file: Path) -> None:
    file.write_bytes(WHOLE[:-100])
    assert refusal(read_header, file, "tiny/fp8") == (
        f"tiny/fp8: model.safetensors is truncated: {len(WHOLE) - 100:,} bytes, {len(WHOLE):,} expected. "
        "Copy or download it again."
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "ends within its header (0 bytes)"),
        (WHOLE[:5], "ends within its header (5 bytes)"),
        (WHOLE[: 8 + HEADER_BYTES // 2], "ends within its header"),
        (b"<!DOCTYPE html><html>not found</html>", "ends within its header"),
        (WHOLE + b"\0", "is longer than its header says"),
        (WHOLE.replace(b'"BF16"', b'"BF17"', 1), "damaged header (unknown dtype 'BF17')"),
        (WHOLE.replace(b"[128, 128]", b"[128, 127]", 1), "doesn't have the bytes of its shape"),
        (WHOLE.replace(b"[128, 128]", b"[-28, 128]", 1), "no proper shape or offsets"),
        ((2).to_bytes(8, "little") + b"[]", "damaged header (not a tensor table)"),
        ((2).to_bytes(8, "little") + b"\xff\xfe", "damaged header (not a tensor table)"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(file: Path, content: bytes, says: str) -> None:
    file.write_bytes(content)
    message = refusal(read_header, file, "m")
    assert says in message
    assert message.endswith("Copy or download it again.")


@pytest.mark.parametrize("second", [[8, 12], [2, 6], [0, 4]])
def test_offsets_that_leave_a_gap_or_overlap_are_refused(file: Path, second: list[int]) -> None:
    table = {
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": second},
    }
    raw = json.dumps(table).encode()
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(max(second)))
    assert "gap or overlap before tensor 'b'" in refusal(read_header, file, "m")
    assert not accepted_by_library(file)


@pytest.mark.parametrize(
    "shape", [[1 << 62] * 100_000, [1] * 65, [1 << 64, 0]], ids=["product", "many", "large"]
)
def test_a_shape_beyond_a_bound_is_refused_before_it_is_multiplied(file: Path, shape: list[int]) -> None:
    raw = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(4))
    assert "tensor 'a' has no proper shape or offsets" in refusal(read_header, file, "m")


def accepted(file: Path) -> bool:
    """Whether the header reads; anything but success or a ConfigError fails the test."""
    try:
        tensors = read_header(file, "m")
    except ConfigError:
        return False
    assert all(tensor.elements >= 0 for tensor in tensors.values())
    return True


def accepted_by_library(file: Path) -> bool:
    try:
        with safe_open(file, framework="numpy") as opened:
            return bool(opened.keys()) or True
    except SafetensorError:
        return False


@settings(max_examples=100, deadline=None)
@given(length=st.integers(0, len(WHOLE) - 1))
def test_no_truncation_passes(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    file = tmp_path_factory.getbasetemp() / "model.safetensors"
    file.write_bytes(WHOLE[:length])
    assert not accepted(file)


@settings(max_examples=200, deadline=None)
@given(
    flips=st.lists(
        st.tuples(st.integers(0, 8 + HEADER_BYTES - 1), st.integers(0, 255)), min_size=1, max_size=4
    )
)
def test_a_header_with_flipped_bytes_is_read_no_more_freely_than_the_library_reads_it(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    content = bytearray(WHOLE)
    for place, value in flips:
        content[place] = value
    file = tmp_path_factory.getbasetemp() / "model.safetensors"
    file.write_bytes(content)
    assert accepted(file) <= accepted_by_library(file)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "F8_E4M3"]) | JSON,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-1, 64), min_size=2, max_size=2) | JSON,
    }
)


@settings(max_examples=200, deadline=None)
@given(header=st.dictionaries(st.text(max_size=6), ENTRY | JSON, max_size=3) | JSON, data=st.integers(0, 64))
def test_any_json_for_a_header_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, header: Any, data: int
) -> None:
    raw = json.dumps(header).encode()
    file = tmp_path_factory.getbasetemp() / "model.safetensors"
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(data))
    assert accepted(file) <= accepted_by_library(file)


def test_a_header_nested_too_deep_is_refused(file: Path) -> None:
    raw = b"[" * 200_000
    file.write_bytes(len(raw).to_bytes(8, "little") + raw)
    assert "damaged header" in refusal(read_header, file, "m")
