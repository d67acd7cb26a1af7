"""Pickle weights and code of a checkpoint's own: only where allowed, at a commit that somebody has read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from quantgate.model.config.models import Allowed
from quantgate.model.errors import ConfigError
from quantgate.model.records import Checkpoint
from quantgate.model.secrets import redact
from tasks.checkpoint.resolve import resolve
from tests.support.hub_server import Fault, HubServer
from tests.support.tiny_checkpoints import checkpoint_files, write_checkpoint

ORG = "acme/tiny-7B"
MARKER = "unpickled"
TOKEN = "hf_planted" + "0123456789abcdef"


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path(MARKER),))


PICKLED = {name: content for name, content in checkpoint_files().items() if name != "model.safetensors"} | {
    "pytorch_model.bin": pickle.dumps(Bomb()).ljust(66_000, b"\0"),
    "training_args.bin": pickle.dumps(Bomb()),
}
CODE = checkpoint_files(auto_map={"AutoConfig": "configuration_new.NewConfig"}, model_type="new") | {
    "configuration_new.py": b"raise SystemExit",
    "modeling_new.py": b"raise SystemExit",
}


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def found(sha: str | None, **allowed: bool) -> Checkpoint:
    source = f"{ORG}@{sha}" if sha else ORG
    return resolve(source, cache=Path("cache"), allow=Allowed(**allowed))


def refusal(sha: str | None, **allowed: bool) -> str:
    with pytest.raises(ConfigError) as caught:
        found(sha, **allowed)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pickle_weights_are_served_where_allowed_and_never_opened(hub: HubServer) -> None:
    sha = hub.add(ORG, PICKLED)
    for allowed in ({}, {"remote_code": True}):
        assert "pickle weights only (pytorch_model.bin)" in refusal(sha, **allowed)
    assert hub.downloaded() == set()
    one = found(sha, pickle=True)
    assert (one.precision, one.weight_format) == ("bf16", "unquantized (pickle, unread)")
    assert (one.size_bytes, one.parameters, one.layers) == (66_000, 33_000, {})
    assert not one.remote_code
    assert (Path(one.path) / "pytorch_model.bin").read_bytes() == PICKLED["pytorch_model.bin"]
    assert not Path(MARKER).exists()


def test_pickle_weights_need_a_dtype_in_the_configuration(hub: HubServer) -> None:
    without = PICKLED | {"config.json": checkpoint_files(dtype=None)["config.json"]}
    sha = hub.add(ORG, without)
    assert "config.json names no known 'dtype'. Add \"dtype\"" in refusal(sha, pickle=True)
    declared = checkpoint_files(quantization={"quant_method": "gptq", "bits": 4})["config.json"]
    sha = hub.add(ORG, PICKLED | {"config.json": declared})
    one = found(sha, pickle=True)
    assert (one.precision, one.weight_format, one.parameters) == ("int4", "gptq (pickle, unread)", 132_000)


def test_code_of_its_own_comes_along_where_allowed(hub: HubServer) -> None:
    sha = hub.add(ORG, CODE)
    for allowed in ({}, {"pickle": True}):
        assert "needs code of its own (auto_map in config.json, model_type 'new')" in refusal(sha, **allowed)
    assert hub.downloaded() == {"config.json", "tokenizer_config.json"}
    one = found(sha, remote_code=True)
    assert one.remote_code
    assert one.precision == "bf16"
    assert {path.name for path in Path(one.path).iterdir()} == set(CODE)


def test_what_the_configuration_shows_is_told_before_the_weights_are_fetched(hub: HubServer) -> None:
    quantized = checkpoint_files(quantization={"quant_method": "modelopt", "quant_algo": "FP8"})
    cases = [
        (quantized, "nvfp4", "declared as nvfp4, but the files hold fp8 (modelopt:FP8)"),
        (checkpoint_files(), "fp8", "declared as fp8, but the files hold bf16 (unquantized)"),
        (checkpoint_files(quantization={"quant_method": "exl9"}), None, "the quantization method 'exl9'"),
        (checkpoint_files(architectures=None), None, "config.json names no 'architectures'"),
    ]
    for files, declared, says in cases:
        hub.add(ORG, files)
        with pytest.raises(ConfigError) as caught:
            resolve(f"{ORG}@main", cache=Path("cache"), declared=declared)
        assert says in str(caught.value)
    assert hub.downloaded() == {"config.json", "tokenizer_config.json"}


def test_what_a_refused_pull_left_is_no_snapshot(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = hub.add(ORG, CODE)
    refusal(sha)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not in the hub's cache while HF_HUB_OFFLINE is set" in refusal(sha)


@pytest.mark.parametrize("revision", [None, "main"])
def test_what_runs_code_needs_a_commit(hub: HubServer, revision: str | None, tmp_path: Path) -> None:
    hub.add(ORG, CODE)
    assert "'allow' needs a commit" in refusal(revision, remote_code=True)
    assert hub.requests == []
    with pytest.raises(ConfigError, match="'allow' needs a commit"):
        resolve(str(write_checkpoint(tmp_path / "local", CODE)), allow=Allowed(remote_code=True))


def test_a_token_reaches_the_hub_and_nothing_else(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sha = hub.add(ORG, checkpoint_files(), token=TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert found(None).revision == sha
    for status in (401, 403, 503):
        echo = {"X-Error-Message": "bad {token}", "X-Error-Code": "{token}", "X-HF-Warning": "auth; {token}"}
        hub.faults = [Fault("/api/", times=1, status=status, headers=echo, body=TOKEN.encode())]
        assert TOKEN not in (refusal("v1") if status != 503 else str(found("main")))
    assert TOKEN not in "".join(capfd.readouterr())
    for root in (home, Path("cache")):
        assert not [
            path for path in root.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()
        ]


def test_a_token_that_this_machine_has_saved_is_not_used(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ORG, checkpoint_files(), token=TOKEN)
    Path("saved").write_text(TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(Path("saved").resolve()))
    assert "nor a repository the hub shows (HTTP 401)" in refusal(None)


def test_whatever_looks_like_a_token_is_struck_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret-of-another-shape")
    assert redact(f"a secret-of-another-shape b {TOKEN}.") == "a *** b ***."
    assert redact("hf_hub") == "hf_hub"
