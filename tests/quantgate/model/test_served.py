from __future__ import annotations

import pytest

from quantgate.model.served import served_kv_cache_dtype, served_precision


@pytest.mark.parametrize(
    ("stored", "dtype", "served"),
    [
        ("fp32", None, "bf16"),
        ("fp32", "auto", "bf16"),
        ("fp32", "float32", "fp32"),
        ("bf16", None, "bf16"),
        ("bf16", "half", "fp16"),
        ("fp16", None, "fp16"),
        ("nvfp4", "float16", "nvfp4"),
        ("mixed", None, "mixed"),
    ],
)
def test_weights_are_served_in_16_bits_unless_an_argument_says_otherwise(
    stored: str, dtype: str | None, served: str
) -> None:
    assert served_precision(stored, {"dtype": dtype} if dtype else {}) == served


def test_an_argument_goes_before_the_kv_cache_that_the_files_declare() -> None:
    assert served_kv_cache_dtype("fp8", {}) == "fp8"
    assert served_kv_cache_dtype("fp8", {"kv-cache-dtype": "auto"}) == "fp8"
    assert served_kv_cache_dtype("fp8", {"kv-cache-dtype": "bfloat16"}) == "bfloat16"
    assert served_kv_cache_dtype("auto", {"kv-cache-dtype": "nvfp4"}) == "nvfp4"
