"""Code and pickles of a checkpoint: no argument, however it is spelled, opens the gate that `allow` opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.parameters import ValidateParameters
from flows.planning.request import declare
from quantgate.model.config.models import Allowed, CheckpointConfig
from quantgate.model.errors import ConfigError
from quantgate.model.home import Home
from quantgate.model.records import Checkpoint
from tasks.checkpoint.contents import contents_of
from tasks.checkpoint.resolve import resolve
from tasks.engine.argument_files import with_code
from tasks.engine.arguments import serving_arguments
from tasks.engine.environment import load_engine
from tasks.engine.permission import check_permitted
from tasks.engine.server import serve
from tasks.progress import Reporter
from tasks.quality.task_yaml import read_source
from tests.support.hub_server import HubServer
from tests.support.tiny_checkpoints import checkpoint_files, write_checkpoint

CODE, PICKLES, NONE = Allowed(remote_code=True), Allowed(pickle=True), Allowed()
SPELLINGS: list[dict[str, Any]] = [
    {"trust-remote-code": True},
    {"trust_remote_code": True},
    {"--trust-remote-code": True},
    {"Trust-Remote-Code": True},
    {"trust-remote-code": "true"},
    {"trust-remote-code": "false"},
    {"trust-remote-code": 1},
    {"trust-remote": True},
    {"hf-overrides": {"trust_remote_code": True}},
    {"hf-overrides": {"auto_map": {"AutoConfig": "other/repository--new.New"}}},
    {"hf-overrides": '{"trust\\u005fremote_code": true}'},
    {"hf-overrides": {"text_config": {"auto-map": {}}}},
    {"hf_overrides": json.dumps({"text_config": {"auto_map": {}}})},
    {"hf-overrides.auto_map.AutoModel": "new.New"},
    {"model-loader-extra-config": {"inner": [{"trust-remote-code": True}]}},
    {"speculative-config": {"method": "ngram", "trust_remote_code": True}},
]


@pytest.mark.parametrize("arguments", SPELLINGS, ids=str)
def test_no_argument_permits_code(arguments: dict[str, Any]) -> None:
    checkpoint = CheckpointConfig(source="acme/tiny", engine_arguments=arguments)
    with pytest.raises(ConfigError) as refused:
        check_permitted(arguments, NONE)
    assert "set `allow: {remote_code: true}` and a revision in configs/models" in str(refused.value)
    with pytest.raises(ConfigError, match="code"):
        with_code(checkpoint)
    chosen = ValidateParameters(model="quantgate-demo", engine_arguments=arguments)
    with pytest.raises(ConfigError, match="code"):
        declare(chosen, Home.current())


@pytest.mark.parametrize(
    "arguments",
    [
        {"dtype": ["auto", "--trust-remote-code"]},
        {"dtype": "--trust-remote-code"},
        {"dtype": "-O3"},
        {"dtype=auto --trust-remote-code": True},
        {"api-k": "x"},
        {"serv": "x"},
    ],
    ids=str,
)
def test_no_argument_passes_for_another(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        serving_arguments(load_engine(None, "cpu")[1], arguments)


def test_what_permits_nothing_is_taken() -> None:
    harmless = {
        "trust-remote-code": False,
        "seed": -1,
        "chat-template": "{{ 'auto_map' }}",
        "tokenizer": "folder",
    }
    check_permitted(harmless, NONE)
    assert serving_arguments(load_engine(None, "cpu")[1], {"seed": -1})["seed"] == -1
    check_permitted({"trust-remote-code": True}, CODE)


@pytest.mark.parametrize(
    "arguments",
    [
        {"tokenizer": "org/other"},
        {"tokeniz": "org/other"},
        {"hf-config-path": "x"},
        {"hf-config": "x"},
        {"speculative-config": {"model": "draft"}},
        {"spec": {"model": "draft"}},
    ],
)
def test_permission_for_one_checkpoint_is_none_for_another(
    arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_permitted({"speculative-config": {"model": "draft"}}, CODE)
    write_checkpoint(tmp_path / "draft", {"new.py": b""})
    with pytest.raises(ConfigError, match="names another checkpoint"):
        check_permitted(arguments, CODE)
    check_permitted(arguments, NONE)


@pytest.mark.parametrize("load_format", ["pt", "npcache", "PT", ["pt"]])
@pytest.mark.parametrize("name", ["load-format", "load_form"])
def test_no_load_format_opens_pickles(name: str, load_format: Any) -> None:
    with pytest.raises(ConfigError, match="which opens pickles"):
        check_permitted({name: load_format}, CODE)
    check_permitted({name: load_format}, PICKLES)
    check_permitted({"load-format": "safetensors"}, NONE)


def test_the_engine_does_not_start_with_code_that_is_not_permitted(tmp_path: Path) -> None:
    from tasks.engine.environment import EngineEnvironment

    checkpoint = resolve(str(write_checkpoint(tmp_path / "plain", checkpoint_files())))
    environment = EngineEnvironment(
        name="x", config=load_engine(None, "cpu")[1], python=Path("/no/such/python"), version="0"
    )
    started = serve(
        checkpoint,
        environment,
        {"trust-remote-code": True},
        log=tmp_path / "log",
        report=Reporter(lambda _: None),
    )
    with pytest.raises(ConfigError, match="would run a checkpoint's own code"), started:
        pass
    assert not (tmp_path / "log").exists()


AUTO_MAP = {"AutoConfig": "new.New"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "config.json",
            {**json.loads(checkpoint_files()["config.json"]), "auto_map": AUTO_MAP, "model_type": "new"},
        ),
        ("preprocessor_config.json", {"auto_map": AUTO_MAP, "image_processor_type": "NewImageProcessor"}),
        ("processor_config.json", {"auto_map": AUTO_MAP, "processor_class": "NewProcessor"}),
        ("video_preprocessor_config.json", {"auto_map": AUTO_MAP}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_folder_needs_the_permission_that_a_hubs_commit_needs(
    hub: HubServer, tmp_path: Path, name: str, content: dict[str, Any]
) -> None:
    files = checkpoint_files() | {name: json.dumps(content).encode(), "new.py": b"raise SystemExit"}
    sha = hub.add("acme/tiny", files)
    source = f"acme/tiny@{sha}"
    with pytest.raises(ConfigError, match="needs code of its own"):
        resolve(source, cache=tmp_path / "cache")
    folder = str(write_checkpoint(tmp_path / "local", files))
    with pytest.raises(ConfigError, match="needs code of its own") as refused:
        resolve(folder)
    assert "put it on a hub and allow its commit there: a folder has none" in str(refused.value)
    with pytest.raises(ConfigError, match="'allow' needs a commit"):
        resolve(folder, allow=CODE)
    assert resolve(source, cache=tmp_path / "cache", allow=CODE).remote_code


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_permission_for_one_commit_is_none_for_code_of_another_repository(
    hub: HubServer, tmp_path: Path, name: str
) -> None:
    known = json.loads(checkpoint_files().get(name, b"{}"))
    content = known | {"auto_map": {"AutoTokenizer": ["acme/other--new.New", None]}}
    sha = hub.add("acme/tiny", checkpoint_files() | {name: json.dumps(content).encode()})
    with pytest.raises(ConfigError, match="names code of another repository"):
        resolve(f"acme/tiny@{sha}", cache=tmp_path / "cache", allow=CODE)


def test_a_processor_that_the_library_has_needs_none(tmp_path: Path) -> None:
    known = {"auto_map": AUTO_MAP, "processor_class": "CLIPProcessor"}
    files = checkpoint_files() | {"processor_config.json": json.dumps(known).encode()}
    assert not resolve(str(write_checkpoint(tmp_path / "known", files))).remote_code


def test_permitted_code_is_part_of_a_checkpoints_content(hub: HubServer, tmp_path: Path) -> None:
    def settings_of(code: bytes, allow: Allowed) -> str | None:
        sha = hub.add("acme/tiny", checkpoint_files() | {"new.py": code})
        checkpoint: Checkpoint = resolve(f"acme/tiny@{sha}", cache=tmp_path / "cache", allow=allow)
        return contents_of(checkpoint, tmp_path / "contents").settings_sha256

    plain = settings_of(b"1", NONE)
    assert plain == settings_of(b"2", NONE)
    assert len({plain, settings_of(b"1", CODE), settings_of(b"2", CODE)}) == 3
    folder = str(write_checkpoint(tmp_path / "folder", checkpoint_files()))
    assert contents_of(resolve(folder), tmp_path / "contents").settings_sha256 == plain


@pytest.mark.parametrize("key", ["trust_remote_code", "trust-remote-code"])
def test_a_task_of_ones_own_asks_for_no_code_of_others(tmp_path: Path, key: str) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(json.dumps({"task": "mine", "dataset_kwargs": {key: True}}))
    with pytest.raises(ConfigError, match="'trust_remote_code' would run code of others"):
        read_source(path)
    path.write_text(json.dumps({"task": "mine", "dataset_kwargs": {key: False}}))
    assert read_source(path).name == "mine"
    with pytest.raises(ConfigError, match="would run code of others"):
        read_source(path, {"dataset_kwargs": {key: "yes"}})
