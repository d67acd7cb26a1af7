"""Real exports of eight quantizers and layouts of published checkpoints, each with its right reading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from tasks.checkpoint.files import check_listing
from tasks.checkpoint.resolve import resolve
from tests.support.tiny_checkpoints import REST, checkpoint_files, write_checkpoint

FIXTURES = ROOT / "tests" / "fixtures" / "checkpoints"
EXPECTED: dict[str, dict[str, Any]] = json.loads((FIXTURES / "exports" / "expected.json").read_text())
CASES: dict[str, dict[str, Any]] = {
    case["name"]: case for case in json.loads((FIXTURES / "checkpoints.json").read_text())
}


def unpacked(name: str, folder: Path) -> Path:
    """An export as a whole folder, zeros for its weights."""
    export = FIXTURES / "exports" / name
    files = {file.name: file.read_bytes() for file in export.glob("*.json")}
    files["tokenizer.json"] = b'{"version": "1.0"}'
    header = (export / "model.safetensors.header").read_bytes()
    table = json.loads(header[8:])
    end = max(entry["data_offsets"][1] for key, entry in table.items() if key != "__metadata__")
    return write_checkpoint(folder / name, files | {"model.safetensors": header + bytes(end)})


@pytest.mark.parametrize("name", EXPECTED)
def test_an_export_is_read_as_its_exporter_means_it(name: str, tmp_path: Path) -> None:
    found, expected = resolve(str(unpacked(name, tmp_path))), EXPECTED[name]
    fields = ("precision", "kv_cache_dtype", "layers", "size_bytes")
    assert {field: getattr(found, field) for field in fields} == {field: expected[field] for field in fields}
    assert [found.parameters] == expected["parameters"]


def case_folder(name: str, folder: Path) -> Path:
    """A case of checkpoints.json as a folder: its tensors, with an embedding and a head."""
    case = CASES[name]
    rest = {key: (case.get("all_dtype", dtype), shape) for key, (dtype, shape) in REST.items()}
    layout = {key: (dtype, tuple(shape)) for key, (dtype, shape) in case["tensors"].items()}
    files = checkpoint_files(
        {**layout, **rest},
        quantization=case["quantization"],
        hf_quant=case.get("hf_quant"),
    )
    config = json.loads(files["config.json"]) | case.get("config", {})
    files["config.json"] = json.dumps(config).encode()
    if "tokenizer" in case:
        del files["tokenizer.json"]
        files |= {key: text.encode() for key, text in case["tokenizer"].items()}
    return write_checkpoint(folder / name, files)


RIGHT: dict[str, dict[str, Any]] = {
    "modelopt-kv-only-in-sidecar": {"precision": "mixed", "kv_cache_dtype": "auto"}
    | {"layers": {"bf16": 2, "fp8": 1, "nvfp4": 1}},
    "fp8-method-with-nvfp4-experts": {"precision": "mixed", "layers": {"bf16": 2, "fp8": 1, "nvfp4": 1}},
    "autoround-fp8-block": {"precision": "fp8"},
    "autoround-nvfp4": {"precision": "nvfp4"},
    "autoround-int4-and-int8": {"precision": "mixed", "parameters": 49_280},
    "ct-int4-and-int8": {"precision": "mixed", "parameters": 49_280}
    | {"layers": {"bf16": 2, "int4": 1, "int8": 1}},
    "ct-attention-group-without-weights": {"precision": "fp8", "kv_cache_dtype": "fp8"},
    "modelopt-nested-no-method": {"precision": "fp8", "kv_cache_dtype": "fp8"},
    "fp32-checkpoint": {"precision": "fp32", "layers": {"fp32": 3}},
}
REFUSED = {
    "ct-sparse-24": "config.json: sparsity_config 'sparse-24-bitmask' is not a known weight format",
    "mlx-4-bit": "config.json declares unquantized, but 'model.layers.0.mlp.up_proj.weight' is U32 with BF16 scales",
    "tiktoken-model": "its tokenizer needs code of its own (auto_map in tokenizer_config.json)",
}


def test_no_case_is_left_out() -> None:
    assert set(CASES) == {*RIGHT, *REFUSED}


@pytest.mark.parametrize("name", RIGHT)
def test_a_layout_is_read_as_it_is_served(name: str, tmp_path: Path) -> None:
    found = resolve(str(case_folder(name, tmp_path)))
    assert {field: getattr(found, field) for field in RIGHT[name]} == RIGHT[name]


@pytest.mark.parametrize("name", REFUSED)
def test_a_layout_that_nothing_serves_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    folder = case_folder(name, tmp_path)
    with pytest.raises(ConfigError) as caught:
        resolve(str(folder))
    assert str(caught.value).startswith(f"{folder}: {REFUSED[name]}")
    assert "\n" not in str(caught.value)


def test_tiktoken_model_is_a_tokenizer() -> None:
    """Kimi's; its code is asked for when the folder is read."""
    check_listing(["config.json", "model.safetensors", "tiktoken.model"], "m")
    with pytest.raises(ConfigError, match="no tokenizer"):
        check_listing(["config.json", "model.safetensors"], "m")
