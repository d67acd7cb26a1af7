"""Files that serving arguments name: found, checked, and known to the fingerprint by what they hold."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from quantgate.model.config.engines import EngineConfig
from quantgate.model.enums import EngineKind
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from tasks.checkpoint.pins import Pins
from tasks.checkpoint.resolve import commit_of
from tasks.engine import argument_files
from tests.support.hub_server import HubServer
from tests.support.tiny_checkpoints import checkpoint_files, write_checkpoint

CONFIG = EngineConfig(
    description="x",
    kind=EngineKind.UV,
    distribution="vllm",
    arguments={"enforce_eager": True, "max-model-len": 512},
)
NGRAM = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}


def adapter(folder: Path, *, rank: int = 4, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank}))
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


def refusal(arguments: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        argument_files.check_arguments(arguments)
    assert caught.value.exit_status == 2
    return str(caught.value)


def test_arguments_without_files_are_recorded_as_they_were() -> None:
    arguments = {
        "max-num-seqs": 8,
        "speculative_config": NGRAM,
        "generation-config": "auto",
        "tokenizer": "none",
    }
    named = argument_files.resolve_arguments(CONFIG, arguments)
    assert named.recorded == {
        "enforce-eager": True,
        "max-model-len": 512,
        "max-num-seqs": 8,
        "speculative-config": NGRAM,
        "generation-config": "auto",
        "tokenizer": "none",
    }
    assert named.arguments == named.recorded
    assert (named.adapter, named.chat_template) == (None, None)


def test_what_is_taken_away_stays_away() -> None:
    named = argument_files.resolve_arguments(CONFIG, {"enforce-eager": None})
    assert named.arguments == {"enforce-eager": None, "max-model-len": 512}
    assert named.recorded == {"max-model-len": 512}


@pytest.mark.parametrize("form", ["map", "vllm", "list", "text"])
def test_an_adapter_is_known_by_its_content(tmp_path: Path, form: str) -> None:
    place = str(adapter(tmp_path / "one"))
    given: Any = {
        "map": {"mine": place},
        "vllm": {"name": "mine", "path": place},
        "list": [{"mine": place}],
        "text": f"mine={place}",
    }[form]
    named = argument_files.resolve_arguments(CONFIG, {"lora-modules": given})
    assert named.adapter == "mine"
    assert named.arguments["lora-modules"] == {"name": "mine", "path": place}
    assert named.arguments["enable-lora"] is True
    assert place not in json.dumps(named.recorded)
    (tmp_path / "one" / "optimizer.pt").write_bytes(b"a trainer's")
    shutil.move(place, tmp_path / "moved")
    moved = argument_files.resolve_arguments(CONFIG, {"lora-modules": {"mine": str(tmp_path / "moved")}})
    assert moved.recorded == named.recorded
    modules = {"lora-modules": {"mine": str(tmp_path / "moved")}}
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        kept = (tmp_path / "moved" / file).read_bytes()
        (tmp_path / "moved" / file).write_bytes(kept + b" ")
        assert argument_files.resolve_arguments(CONFIG, modules).recorded != moved.recorded
        (tmp_path / "moved" / file).write_bytes(kept)


def test_what_is_wrong_with_an_adapter(tmp_path: Path) -> None:
    good, where = str(adapter(tmp_path / "good")), "engine arguments: lora-modules"
    (tmp_path / "empty").mkdir()
    pickled = adapter(tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    high = adapter(tmp_path / "high", rank=24)
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"lora-modules": {"a": str(tmp_path / "none")}},
            f"{where}: {tmp_path}/none: no such folder. Give the folder that holds its adapter_config.json.",
        ),
        (
            {"lora-modules": {"a": good, "b": good}},
            f"{where}: names 2 adapters. A run measures one adapter: start one for each.",
        ),
        (
            {"lora-modules": {"a": str(tmp_path / "empty")}},
            f"{where}: {tmp_path}/empty: has no adapter_config.json. Give the folder that PEFT saved.",
        ),
        (
            {"lora-modules": {"a": str(pickled)}},
            (
                f"{where}: {pickled}: has no adapter_model.safetensors. "
                "Save it as safetensors: weights in a pickle file can run code."
            ),
        ),
        (
            {"lora-modules": {"a": str(high)}},
            (
                f"{where}: {high}: its rank is 24, and the engine's max-lora-rank 16. "
                "Add --engine-arg max-lora-rank=32."
            ),
        ),
        (
            {"lora-modules": {"quantgate": good}},
            f"{where}: 'quantgate' is the model's own name. Call the adapter something else.",
        ),
        ({"lora-modules": good}, f"{where}: '{good[:60]}' names no adapter. Write {{my-adapter: FOLDER}}."),
        ({"lora-modules": 7}, f"{where}: '7' names no adapter. Write {{my-adapter: FOLDER}}."),
        (
            {"enable-lora": True},
            (
                f"{where}: 'enable-lora' without an adapter measures nothing of it. "
                "Name one: lora-modules={my-adapter: FOLDER}."
            ),
        ),
        (
            {"enable-lora": False, "lora-modules": {"a": good}},
            f"{where}: 'enable-lora' is false. Leave one of the two out.",
        ),
    ]
    for arguments, told in cases:
        assert refusal(arguments) == told
    argument_files.check_arguments({"lora-modules": {"a": str(high)}, "max-lora-rank": 32})


def test_a_draft_model_is_known_by_its_content(tmp_path: Path) -> None:
    draft = write_checkpoint(tmp_path / "draft", checkpoint_files())
    settings = {"model": str(draft), "num_speculative_tokens": 3}
    named = argument_files.resolve_arguments(CONFIG, {"speculative-config": settings})
    assert named.arguments["speculative-config"] == settings
    recorded = named.recorded["speculative-config"]
    assert recorded["model"].startswith("sha256:")
    assert recorded["num_speculative_tokens"] == 3
    moved = shutil.copytree(draft, tmp_path / "moved")
    again = argument_files.resolve_arguments(CONFIG, {"speculative-config": settings | {"model": str(moved)}})
    assert again.recorded == named.recorded
    files = checkpoint_files(vocab_size=65)
    (moved / "config.json").write_bytes(files["config.json"])
    changed = argument_files.resolve_arguments(
        CONFIG, {"speculative-config": settings | {"model": str(moved)}}
    )
    assert changed.recorded != named.recorded


def test_a_draft_model_of_the_hub_is_pinned_and_planned_as_it_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    pins = Pins(tmp_path / "pins.json")
    given = {"speculative-config": {"model": "acme/draft", "num_speculative_tokens": 3}}
    with HubServer() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        sha = hub.add("acme/draft", checkpoint_files())
        first = argument_files.resolve_arguments(CONFIG, given, pins)
        assert pins.pin_of("acme/draft") is not None
        hub.add("acme/draft", checkpoint_files(vocab_size=64, rope_theta=9.0))
        assert argument_files.resolve_arguments(CONFIG, given, pins) == first
        hub.requests.clear()
        planned = argument_files.recorded_arguments(CONFIG, given, partial(commit_of, pins=pins))
        assert hub.requests == []
    assert planned == first.recorded
    assert planned["speculative-config"]["model"] == f"acme/draft@{sha}"


def test_what_is_wrong_with_speculative_decoding() -> None:
    where = "engine arguments: speculative-config"
    assert refusal({"speculative-config": "ngram"}) == (
        f"{where}: 'ngram' is not a map. "
        "Write {method: ngram, num_speculative_tokens: 3} or {model: FOLDER, num_speculative_tokens: 3}."
    )
    assert refusal({"speculative-config": {"num_speculative_tokens": 3}}).startswith(
        f"{where}: has neither 'model' nor 'method'."
    )
    assert "demo/checkpoints/quantgate-demo-BF16" in refusal(
        {"speculative-config": {"model": "demo/checkpoints/quantgate-demo-BF1"}}
    )


def test_a_chat_template_by_file_or_in_itself(tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text("{{ messages }}")
    named = argument_files.resolve_arguments(CONFIG, {"chat-template": str(file)})
    assert named.chat_template == "{{ messages }}"
    assert named.arguments["chat-template"] == str(file)
    assert named.recorded["chat-template"].startswith("sha256:")
    file.write_text("{{ other }}")
    assert argument_files.resolve_arguments(CONFIG, {"chat-template": str(file)}).recorded != named.recorded
    inline = argument_files.resolve_arguments(CONFIG, {"chat-template": "{{ messages }}"})
    assert (inline.chat_template, inline.recorded["chat-template"]) == ("{{ messages }}", "{{ messages }}")
    assert refusal({"chat-template": "chat.jinjja"}) == (
        "engine arguments: chat-template: chat.jinjja: no such file. Correct the path."
    )


def test_paths_start_here_or_at_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    named = argument_files.resolve_arguments(CONFIG, {"lora-modules": {"a": "mine"}})
    assert named.arguments["lora-modules"]["path"] == str(tmp_path / "mine")
    folder = "demo/checkpoints/quantgate-demo-BF16"
    named = argument_files.resolve_arguments(CONFIG, {"tokenizer": folder})
    assert named.arguments["tokenizer"] == str(ROOT / folder)
    assert named.recorded["tokenizer"].startswith("sha256:")
