"""The commit of a hub id, asked of a small hub on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from flows.revisions import NotAskedError, commit_of, is_folder
from quantgate.model.errors import ConfigError
from tests.hub_server import HubServer

ORG = "acme/tiny-FP8"
FILES = {"config.json": b"{}", "model.safetensors": b"x" * 1000}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def test_the_commit_is_learnt_and_nothing_is_downloaded(hub: HubServer) -> None:
    old = hub.add(ORG, FILES, branch="v1")
    new = hub.add(ORG, FILES | {"more": b""})
    assert commit_of(ORG) == new
    assert commit_of(f"{ORG}@v1") == old
    assert hub.downloaded() == set()


def test_what_the_hub_denies_is_missing(hub: HubServer) -> None:
    with pytest.raises(
        ConfigError, match=r"acme/none: the hub shows no such repository .*\(HTTP 404\)"
    ) as none:
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


def test_folders_from_here_and_from_the_root(tmp_path: Path) -> None:
    assert is_folder(str(tmp_path))
    assert is_folder("demo/checkpoints/quantgate-demo-BF16")
    assert not is_folder("org/name")
