from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from quantgate.model.errors import ConfigError
from tasks.checkpoint.files import check_listing, content_hash, is_served, read_json, read_weights
from tests.support.tiny_checkpoints import PLAIN, checkpoint_files, safetensors, write_checkpoint

WHOLE = safetensors(PLAIN, {"format": "pt"})


def refusal(call: Any, *args: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def sharded(folder: Path) -> dict[str, str]:
    """PLAIN in two files with an index; returns the weight map."""
    names = sorted(PLAIN)
    shards = {"model-00001-of-00002.safetensors": names[:2], "model-00002-of-00002.safetensors": names[2:]}
    weight_map = {name: shard for shard, members in shards.items() for name in members}
    for shard, members in shards.items():
        (folder / shard).write_bytes(safetensors({name: PLAIN[name] for name in members}))
    write_index(folder, weight_map)
    return weight_map


def write_index(folder: Path, weight_map: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_the_weights_are_what_the_index_names(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "another.safetensors").write_bytes(safetensors({"other": ("F32", (2, 2))}))
    weights = read_weights(tmp_path, "m")
    assert [path.name for path in weights.files] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert set(weights.tensors) == set(PLAIN)


def test_an_index_that_names_a_missing_file_is_refused(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert refusal(read_weights, tmp_path, "m") == (
        "m: 1 of 2 weight files missing: model-00002-of-00002.safetensors. Copy or download the missing ones."
    )


def test_an_index_that_names_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    weight_map = sharded(tmp_path)
    write_index(tmp_path, weight_map | {"model.layers.1.mlp.weight": "model-00001-of-00002.safetensors"})
    message = refusal(read_weights, tmp_path, "m")
    assert (
        "names tensor 'model.layers.1.mlp.weight', which model-00001-of-00002.safetensors doesn't" in message
    )


@pytest.mark.parametrize(
    "weight_map", [None, {}, [], {"a": 3}, {"a": "../../secret.safetensors"}, {"a": "a.bin"}]
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, weight_map: Any) -> None:
    write_index(tmp_path, weight_map)
    assert "model.safetensors.index.json" in refusal(read_weights, tmp_path, "m")


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(WHOLE)
    assert "is in a.safetensors and in b.safetensors" in refusal(read_weights, tmp_path, "m")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["model.safetensors", "tokenizer.json"], "m: no config.json."),
        (["config.json", "tokenizer.json"], "m: no weights (*.safetensors)."),
        (["config.json", "tokenizer.json", "original/consolidated.safetensors"], "m: no weights"),
        (
            ["config.json", "tokenizer.json", "pytorch_model.bin"],
            (
                "m: pickle weights only (pytorch_model.bin), which can run code when they are loaded. "
                "Convert them to safetensors: save_pretrained(…, safe_serialization=True); or set `allow: "
            ),
        ),
        (["config.json", "tokenizer.json", "weights.pth"], "m: pickle weights only (weights.pth)"),
        (["config.json", "model.safetensors"], "m: no tokenizer (tokenizer.json, tokenizer.model or a voc"),
        (["config.json", "model.safetensors", "vocab.json"], "m: no tokenizer"),
        (["config.json", "model.safetensors", "original/tokenizer.model"], "m: no tokenizer"),
    ],
)
def test_a_listing_that_cannot_be_served_is_refused(names: list[str], says: str) -> None:
    assert refusal(check_listing, names, "m").startswith(says)


@pytest.mark.parametrize(
    "tokenizer",
    [["tokenizer.json"], ["tokenizer.model"], ["vocab.json", "merges.txt"], ["vocab.txt"], ["qwen.tiktoken"]],
)
def test_any_usual_tokenizer_will_do(tokenizer: list[str]) -> None:
    check_listing(["config.json", "model.safetensors", "pytorch_model.bin", *tokenizer], "m")


def test_what_is_served() -> None:
    served = ["config.json", "model-00001-of-00002.safetensors", "chat_template.jinja", "merges.txt"]
    others = ["pytorch_model.bin", "README.md", "original/params.json", "consolidated.safetensors", "code.py"]
    assert [name for name in served + others if is_served(name)] == served


def test_the_hash_is_of_names_and_bytes_that_are_served(tmp_path: Path) -> None:
    first = write_checkpoint(tmp_path / "first", checkpoint_files())
    second = tmp_path / "elsewhere"
    shutil.copytree(first, second)
    (second / "README.md").write_text("not served")
    (second / "consolidated.safetensors").write_bytes(b"not served")

    def hashed(folder: Path) -> str:
        return content_hash(folder, [folder / "model.safetensors"])

    assert hashed(first) == hashed(second)
    assert hashed(first).startswith("sha256:")
    assert len(hashed(first)) == 7 + 64
    before = hashed(second)
    (second / "tokenizer_config.json").write_text('{"a": 1}')
    assert hashed(second) != before
    weights = bytearray((first / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    before = hashed(first)
    (first / "model.safetensors").write_bytes(weights)
    assert hashed(first) != before


def test_hashing_tells_how_far_it_is(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, checkpoint_files())
    seen: list[tuple[int, int]] = []
    content_hash(folder, [folder / "model.safetensors"], lambda done, total: seen.append((done, total)))
    total = sum(path.stat().st_size for path in folder.iterdir())
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "m: a.json is not valid JSON (line 1). Copy or download it again."),
        (b"\xff", "m: a.json is not valid JSON (not UTF-8: "),
        (b"[" * 200_000, "m: a.json is not valid JSON (nested more than 64 deep)"),
        (b"[1]", "m: a.json doesn't hold a JSON object."),
    ],
)
def test_bad_json_is_refused_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert refusal(read_json, tmp_path / "a.json", "m").startswith(says)
