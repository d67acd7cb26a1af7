"""The commit that a hub id without a revision stands for, against the hub's own client."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from quantgate.model.errors import ConfigError
from tasks.checkpoint.pins import Pins, read_pins
from tasks.checkpoint.resolve import resolve
from tests.support.hub_server import Fault, HubServer
from tests.support.tiny_checkpoints import checkpoint_files

ORG = "acme/tiny-7B"
FILES = checkpoint_files()
NEWER = FILES | {"generation_config.json": b'{"temperature": 0.5}'}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "pins.json"


def revision(file: Path, source: str = ORG, *, update: bool = False) -> str:
    cache = file.parent.parent / "cache"
    return resolve(source, cache=cache, pins=Pins(file, update=update)).revision


def test_the_first_pull_pins_and_says_so(hub: HubServer, file: Path, lines: list[str]) -> None:
    sha = hub.add(ORG, FILES)
    before = datetime.now(UTC)
    assert revision(file) == sha
    assert lines[0] == f"{ORG}: pinned at {sha[:12]}, the commit that main names now"
    pin = read_pins(file)[ORG]
    assert (pin.commit, pin.branch) == (sha, "main")
    assert before <= pin.pinned_at <= datetime.now(UTC)
    lines.clear()
    assert revision(file) == sha
    assert lines == []


def test_a_branch_that_moved_is_told_and_the_pin_kept_until_it_is_updated(
    hub: HubServer, file: Path, lines: list[str]
) -> None:
    old = hub.add(ORG, FILES)
    assert revision(file) == old
    new = hub.add(ORG, NEWER)
    lines.clear()
    assert revision(file) == old
    day = f"{read_pins(file)[ORG].pinned_at:%Y-%m-%d}"
    assert lines == [
        (
            f"{ORG}: main has moved to {new[:12]} since; the pin {old[:12]} of {day} is kept; "
            "`quantgate doctor --models` lists it, `--update-pins` pins the new one"
        )
    ]
    lines.clear()
    assert revision(file, update=True) == new
    assert lines[0] == f"{ORG}: pinned at {new[:12]}, the commit that main names now, in place of {old[:12]}"
    assert read_pins(file)[ORG].commit == new
    assert revision(file) == new


@pytest.mark.parametrize("given", ["main", "v1", "SHA"])
def test_a_given_revision_wins_and_pins_nothing(hub: HubServer, file: Path, given: str) -> None:
    old = hub.add(ORG, FILES)
    assert revision(file) == old
    pinned = file.read_text()
    new = hub.add(ORG, NEWER)
    hub.add(ORG, NEWER, branch="v1")
    assert revision(file, f"{ORG}@{new if given == 'SHA' else given}") == new
    assert file.read_text() == pinned


def test_a_branch_given_by_hand_is_resolved_each_time(hub: HubServer, file: Path) -> None:
    old = hub.add(ORG, FILES)
    assert revision(file, f"{ORG}@main") == old
    new = hub.add(ORG, NEWER)
    assert revision(file, f"{ORG}@main") == new
    assert not file.exists()


@pytest.mark.parametrize("way", ["offline", "down"])
def test_a_pin_in_the_cache_needs_no_hub(
    hub: HubServer, file: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    sha = hub.add(ORG, FILES)
    assert revision(file) == sha
    lines.clear()
    hub.requests.clear()
    if way == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    else:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert revision(file) == sha
    assert (lines, hub.requests) == ([], [])


@pytest.mark.parametrize("way", ["offline", "down"])
def test_what_the_cache_remembers_of_a_branch_is_used_and_not_pinned(
    hub: HubServer, file: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    sha = hub.add(ORG, FILES)
    assert revision(file, f"{ORG}@main") == sha
    lines.clear()
    if way == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    else:
        hub.faults = [Fault("/api/", times=99, status=503)]
    assert revision(file) == sha
    assert not file.exists()
    told = f"{ORG}: the hub can't be reached; going on with {sha[:12]}, which main named last"
    assert lines == ([] if way == "offline" else [told])
    file.parent.mkdir(exist_ok=True)
    pinned = {"commit": sha, "branch": "main", "pinned_at": "2025-01-02T03:04:05Z"}
    file.write_text(json.dumps({ORG: pinned}))
    assert revision(file, update=True) == sha
    assert read_pins(file)[ORG].pinned_at.year == 2025


def test_what_cannot_be_served_is_not_pinned(hub: HubServer, file: Path) -> None:
    code = checkpoint_files(auto_map={"AutoConfig": "configuration_new.NewConfig"}, model_type="new")
    for files, says in (
        ({"config.json": b"{}", "pytorch_model.bin": b""}, "pickle weights only"),
        (code, "needs code"),
    ):
        hub.add(ORG, files)
        with pytest.raises(ConfigError, match=says):
            revision(file)
    assert read_pins(file) == {}
    sha = hub.add(ORG, FILES)
    assert revision(file) == sha


def test_a_pinned_commit_that_is_gone_is_one_line(hub: HubServer, file: Path) -> None:
    sha = hub.add(ORG, FILES)
    gone = "1" * 40
    pin = {"commit": gone, "branch": "main", "pinned_at": "2025-01-02T03:04:05Z"}
    file.parent.mkdir()
    file.write_text(json.dumps({ORG: pin}))
    with pytest.raises(ConfigError, match=f"the repository has no revision '{gone}'.*--update-pins"):
        revision(file)
    assert revision(file, update=True) == sha


def test_an_update_that_the_hub_cannot_answer_is_an_error(
    hub: HubServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = hub.add(ORG, FILES)
    assert revision(file) == sha
    hub.repositories.clear()
    with pytest.raises(ConfigError, match="nor a repository the hub shows"):
        revision(file, update=True)
    assert read_pins(file)[ORG].commit == sha


@pytest.mark.parametrize("content", ["{", "[]", '{"a/b": {"commit": "main"}}', '{"a/b": 3}'])
def test_a_damaged_file_is_one_line(file: Path, content: str) -> None:
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(ConfigError, match="holds no pins that can be read"):
        read_pins(file)


def test_pins_of_processes_at_once_are_all_kept(file: Path) -> None:
    names = [f"acme/m{i}" for i in range(12)]
    threads = [
        threading.Thread(target=Pins(file).settle, args=(name, f"{i:040x}", lambda _: None))
        for i, name in enumerate(names)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: pin.commit for name, pin in read_pins(file).items()} == {
        name: f"{i:040x}" for i, name in enumerate(names)
    }
    assert Pins(file).settle("acme/m0", "f" * 40, lambda _: None) == f"{0:040x}"
