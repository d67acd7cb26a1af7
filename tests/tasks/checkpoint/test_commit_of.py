"""The commit of a hub id, asked of a small hub on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from quantgate.model.errors import ConfigError
from tasks.checkpoint.hub import NotAskedError
from tasks.checkpoint.pins import Pins, read_pins
from tasks.checkpoint.resolve import commit_of, is_folder
from tasks.checkpoint.retry import Patience
from tests.support.hub_server import Fault, HubServer
from tests.support.tiny_checkpoints import checkpoint_files

ORG = "acme/tiny-FP8"
FILES = {"config.json": b"{}", "model.safetensors": b"x" * 1000}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def test_the_commit_is_learnt_and_nothing_is_downloaded(hub: HubServer) -> None:
    old = hub.add(ORG, FILES, branch="v1")
    new = hub.add(ORG, FILES | {"more": b""})
    assert commit_of(ORG) == new
    assert commit_of(f"{ORG}@v1") == old
    assert hub.downloaded() == set()


def test_what_the_hub_denies_is_missing(hub: HubServer) -> None:
    with pytest.raises(ConfigError, match=r"acme/none: .* a repository the hub shows \(HTTP 404\)") as none:
        commit_of("acme/none")
    assert not isinstance(none.value, NotAskedError)
    hub.add("acme/private", FILES, token="secret")
    with pytest.raises(ConfigError, match=r"HTTP 401.*set HF_TOKEN"):
        commit_of("acme/private")
    with pytest.raises(ConfigError, match="neither a folder here nor a hub id"):
        commit_of("no/such/folder")


def test_a_hub_that_can_t_be_asked_says_nothing_of_the_checkpoint(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NotAskedError, match="write the commit to 'revision'"):
        commit_of("acme/never-seen")
    assert hub.requests == []


SOON = Patience(tries=2, first_wait_s=0.01)


def test_a_hub_that_is_busy_is_waited_for_and_its_past_is_not_its_present(hub: HubServer) -> None:
    sha = hub.add(ORG, FILES)
    hub.faults = [Fault("/api/models/", status=429)]
    assert commit_of(ORG, patience=SOON) == sha, "from now on the cache remembers it"
    hub.faults = [Fault("/api/models/", times=9, status=503)]
    with pytest.raises(NotAskedError, match="HTTP 503, after 2 tries"):
        commit_of(ORG, patience=SOON)


def test_only_what_can_be_served_is_pinned(hub: HubServer, tmp_path: Path) -> None:
    pins = Pins(tmp_path / "home" / "pins.json")
    hub.add(ORG, checkpoint_files(hf_quant={"quantization": {"quant_algo": "FP8"}}))
    with pytest.raises(ConfigError, match="declared as nvfp4, but the files hold fp8"):
        commit_of(ORG, "nvfp4", pins=pins, keep=True)
    hub.add("acme/pickled", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    with pytest.raises(ConfigError, match="acme/pickled: "):
        commit_of("acme/pickled", pins=pins, keep=True)
    assert read_pins(pins.path) == {}
    sha = commit_of(ORG, "fp8", pins=pins)
    assert read_pins(pins.path) == {}, "only looked at"
    assert commit_of(ORG, "fp8", pins=pins, keep=True) == sha
    assert read_pins(pins.path)[ORG].commit == sha
    assert not any(name.endswith(".safetensors") for name in hub.downloaded())
    hub.add(ORG, checkpoint_files())
    assert commit_of(ORG, "fp8", pins=pins, keep=True) == sha, "the pin is kept"
    hub.faults = [Fault("", times=9, status=503)]
    assert commit_of(ORG, "fp8", pins=pins, keep=True) == sha


def test_a_saved_login_is_never_used(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = hub.add("acme/private", FILES, token="secret")
    (tmp_path / "token").write_text("secret")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="HTTP 401"):
        commit_of("acme/private")
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert commit_of("acme/private") == sha


def test_folders_from_here_and_from_the_root(tmp_path: Path) -> None:
    assert is_folder(str(tmp_path))
    assert is_folder("demo/checkpoints/quantgate-demo-BF16")
    assert not is_folder("org/name")
