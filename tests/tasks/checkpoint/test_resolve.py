from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.model.enums import Weights
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from tasks.checkpoint.resolve import model_name, resolve
from tests.support.tiny_checkpoints import (
    PARAMETERS,
    PLAIN,
    REST,
    Layout,
    Q,
    checkpoint_files,
    safetensors,
    write_checkpoint,
)
from tests.tasks.checkpoint.formats.test_precision import CASES

FP8 = {f"{Q}.weight": ("F8_E4M3", (128, 128)), f"{Q}.weight_scale": ("F32", ()), **REST}
MODELOPT_FP8 = {
    "quant_method": "modelopt",
    "quant_algo": "FP8",
    "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
}
FP8_FILES = checkpoint_files(
    FP8,
    quantization=MODELOPT_FP8,
    hf_quant={"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}},
)


def refusal(source: Path | str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(str(source), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_described_by_its_files_not_its_name(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "Tiny-1B-NVFP4", FP8_FILES)
    found = resolve(str(folder))
    assert found.precision == "fp8"
    assert found.weight_format == "modelopt:FP8"
    assert found.kv_cache_dtype == "fp8"
    assert found.parameters == PARAMETERS
    assert found.size_bytes == (folder / "model.safetensors").stat().st_size
    assert (found.name, found.model, found.path) == ("Tiny-1B-NVFP4", "Tiny-1B", str(folder))
    assert (found.vocab_size, found.max_position_embeddings) == (64, 256)
    assert found.architecture == "LlamaForCausalLM"
    assert found.weights is Weights.REAL
    assert found.revision.startswith("sha256:")


@pytest.mark.parametrize(("layout", "quantization", "hf_quant", "expected"), CASES)
def test_every_format_is_told_from_the_files(
    tmp_path: Path, layout: Layout, quantization: Any, hf_quant: Any, expected: tuple[str, str, str, int]
) -> None:
    found = resolve(
        str(
            write_checkpoint(tmp_path, checkpoint_files(layout, quantization=quantization, hf_quant=hf_quant))
        )
    )
    assert (found.precision, found.weight_format, found.kv_cache_dtype, found.parameters) == expected


def test_a_mixed_checkpoint_says_which_layers_have_which_precision(tmp_path: Path) -> None:
    quantized = {
        f"model.layers.{i}.{layer}": {"quant_algo": algorithm}
        for i in range(3)
        for layer, algorithm in (("self_attn.q_proj", "FP8"), ("mlp.up_proj", "NVFP4"))
    }
    layout: dict[str, tuple[str, tuple[int, ...]]] = dict(REST)
    for name, of in quantized.items():
        fp8 = of["quant_algo"] == "FP8"
        layout[f"{name}.weight"] = ("F8_E4M3", (128, 128)) if fp8 else ("U8", (128, 64))
        layout[f"{name}.weight_scale"] = ("F32", ()) if fp8 else ("F8_E4M3", (128, 8))
    layout["model.layers.0.mlp.down_proj.weight"] = ("BF16", (128, 128))
    hf_quant = {"quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": quantized}}
    found = resolve(str(write_checkpoint(tmp_path, checkpoint_files(layout, hf_quant=hf_quant))))
    assert found.precision == "mixed"
    assert found.layers == {"bf16": 3, "fp8": 3, "nvfp4": 3}


def test_the_revision_follows_the_content_not_the_place(tmp_path: Path) -> None:
    first = resolve(str(write_checkpoint(tmp_path / "a", FP8_FILES)))
    second = resolve(str(write_checkpoint(tmp_path / "b" / "c", FP8_FILES | {"README.md": b"not served"})))
    third = resolve(str(write_checkpoint(tmp_path / "d", FP8_FILES | {"tokenizer.json": b'{"a": 1}'})))
    assert first.revision == second.revision
    assert first.revision != third.revision


def test_a_folder_is_looked_for_here_and_in_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "here" / "tiny", FP8_FILES)
    monkeypatch.chdir(tmp_path)
    assert resolve("here/tiny").path == str(tmp_path / "here" / "tiny")
    monkeypatch.chdir("/")
    monkeypatch.setattr("tasks.checkpoint.resolve.ROOT", tmp_path)
    assert resolve("here/tiny").path == str(tmp_path / "here" / "tiny")


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "Llama-3.1-8B-Instruct"),
        ("nvidia/DeepSeek-R1-NVFP4", "DeepSeek-R1"),
        ("nvidia/DeepSeek-R1-FP4", "DeepSeek-R1"),
        ("meta-llama/Llama-3.1-8B-Instruct", "Llama-3.1-8B-Instruct"),
        ("RedHatAI/Qwen3-8B-FP8-dynamic", "Qwen3-8B"),
        ("RedHatAI/Qwen3-8B-quantized.w4a16", "Qwen3-8B"),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "Qwen2.5-7B-Instruct"),
        ("x/Mistral-7B-AWQ", "Mistral-7B"),
        ("/models/tiny/bf16", "tiny"),
        ("/models/tiny/NVFP4/", "tiny"),
        ("fp8", "fp8"),
    ],
)
def test_the_models_name_is_without_what_the_name_says_of_precision(name: str, model: str) -> None:
    assert model_name(name) == model


def test_a_declared_precision_must_be_what_the_files_hold(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, FP8_FILES)
    assert resolve(str(folder), declared="FP8").precision == "fp8"
    assert refusal(folder, declared="nvfp4") == (
        f"{folder}: declared as nvfp4, but the files hold fp8 (modelopt:FP8). "
        "Declare fp8, or give another checkpoint."
    )
    assert "'fp9' is not a precision. Known: bf16, fp16" in refusal(folder, declared="fp9")


def test_configurations_and_tensors_that_differ_are_refused(tmp_path: Path) -> None:
    files = checkpoint_files(PLAIN, quantization=MODELOPT_FP8)
    assert "config.json declares modelopt:FP8, but no fp8 weights (F8_E4M3) are stored, only BF16" in refusal(
        write_checkpoint(tmp_path / "a", files)
    )


def test_configurations_that_differ_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = FP8_FILES | {"hf_quant_config.json": b'{"quantization": {"quant_algo": "NVFP4"}}'}
    assert resolve(str(write_checkpoint(tmp_path, files))).precision == "fp8"
    assert "but hf_quant_config.json says modelopt:NVFP4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"config.json": None}, "no config.json. Give the folder or repository that holds config.json"),
        ({"config.json": b"{"}, "config.json is not valid JSON (line 1). Copy or download it again."),
        ({"config.json": b"[]"}, "config.json doesn't hold a JSON object."),
        ({"hf_quant_config.json": b"FP8"}, "hf_quant_config.json is not valid JSON"),
        ({"tokenizer.json": None}, "no tokenizer (tokenizer.json, tokenizer.model or a vocabulary). Put the"),
        ({"model.safetensors": None}, "no weights (*.safetensors). Export the model as safetensors."),
        ({"model.safetensors": None, "pytorch_model.bin": b""}, "pickle weights only (pytorch_model.bin)"),
        ({"model.safetensors": safetensors(FP8)[:-1]}, "model.safetensors is truncated: "),
        ({"model.safetensors": b"{}"}, "model.safetensors ends within its header (2 bytes)"),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"a": "model-00001-of-00001.safetensors"}}'},
            "1 of 1 weight files missing: model-00001-of-00001.safetensors.",
        ),
    ],
)
def test_a_checkpoint_that_cannot_be_served_is_one_line(
    tmp_path: Path, change: dict[str, bytes | None], says: str
) -> None:
    files = {name: content for name, content in (FP8_FILES | change).items() if content is not None}
    folder = write_checkpoint(tmp_path, files)
    assert refusal(folder).startswith(f"{folder}: {says}")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"architectures": None}, "config.json names no 'architectures'"),
        (
            {"auto_map": {"AutoConfig": "configuration_new.NewConfig"}, "model_type": "new"},
            "needs code of its own (auto_map in config.json, model_type 'new'). Give a conversion to an architecture",
        ),
    ],
)
def test_a_configuration_that_cannot_be_served_is_one_line(
    tmp_path: Path, config: dict[str, Any], says: str
) -> None:
    folder = write_checkpoint(tmp_path, checkpoint_files(**config))
    assert refusal(folder).startswith(f"{folder}: {says}")


def test_code_that_is_not_needed_does_not_matter(tmp_path: Path) -> None:
    files = checkpoint_files(
        auto_map={"AutoConfig": "configuration_deepseek.DeepseekV3Config"}, model_type="deepseek_v3"
    )
    assert resolve(str(write_checkpoint(tmp_path, files))).precision == "bf16"


def test_a_tokenizer_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    files = checkpoint_files() | {
        "tokenizer_config.json": json.dumps(
            {"auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}}
        ).encode(),
        "x.tiktoken": b"",
    }
    assert resolve(str(write_checkpoint(tmp_path / "converted", files))).precision == "bf16"
    del files["tokenizer.json"]
    assert "its tokenizer needs code of its own" in refusal(write_checkpoint(tmp_path / "own", files))


def test_the_dimensions_of_a_text_model_inside_count(tmp_path: Path) -> None:
    files = checkpoint_files(vocab_size=None, text_config={"vocab_size": 99, "max_position_embeddings": 4096})
    found = resolve(str(write_checkpoint(tmp_path, files)))
    assert (found.vocab_size, found.max_position_embeddings) == (99, 256)


def test_a_vocabulary_that_config_json_leaves_out_has_the_embedding_s_rows(tmp_path: Path) -> None:
    """Gemma 3's config.json leaves it to its class."""
    found = resolve(str(write_checkpoint(tmp_path / "gemma", checkpoint_files(vocab_size=None))))
    assert found.vocab_size == 64
    without = {name: tensor for name, tensor in PLAIN.items() if "embed" not in name}
    folder = write_checkpoint(tmp_path / "none", checkpoint_files(without, vocab_size="many"))
    assert refusal(folder) == f"{folder}: config.json has no 'vocab_size'. Add it to config.json."


def test_a_source_that_is_nothing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints" / "nvfp4").mkdir(parents=True)
    (tmp_path / "file.safetensors").touch()
    assert refusal("./checkpoints/nvpf4") == (
        "./checkpoints/nvpf4: no such folder. Did you mean 'checkpoints/nvfp4'?"
    )
    assert refusal("tiny") == (
        "tiny: neither a folder nor a hub id. "
        "Give a folder that exists, or a hub id: org/name or org/name@revision."
    )
    assert refusal("") == "no checkpoint is named. Give a folder or a hub id (org/name)."
    assert refusal("file.safetensors") == "file.safetensors: is a file. Give the folder it lies in."
    assert refusal("checkpoints/nvfp4").startswith("checkpoints/nvfp4: no config.json.")


def test_the_nearest_folder_of_the_project_is_suggested(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (ROOT / "quantgate" / "model").is_dir()
    assert (
        refusal("./quantgate/modle") == "./quantgate/modle: no such folder. Did you mean 'quantgate/model'?"
    )


@settings(max_examples=200, deadline=None)
@given(source=st.text(max_size=30).filter(lambda text: text.count("/") != 1))
def test_any_other_text_is_refused(source: str) -> None:
    with pytest.raises(ConfigError):
        resolve(source)
