"""Pulls that go wrong half-way: the hub's own client and our fetching, against a hub with faults."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from tasks.checkpoint.resolve import resolve
from tasks.checkpoint.retry import Patience
from tests.support.hub_server import Fault, HubServer
from tests.support.tiny_checkpoints import REST, checkpoint_files, safetensors

ORG = "acme/tiny-7B"
LARGE = safetensors({"model.layers.0.mlp.up_proj.weight": ("BF16", (2048, 1024)), **REST})
FILES = checkpoint_files() | {"model.safetensors": LARGE}
QUICK = Patience(tries=3, first_wait_s=0.01, longest_wait_s=5, total_wait_s=20)
STORAGE = "/storage/"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def weights(cache: Path, patience: Patience = QUICK) -> bytes:
    return (Path(resolve(ORG, cache=cache, patience=patience).path) / "model.safetensors").read_bytes()


def refusal(cache: Path, patience: Patience = QUICK) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(ORG, cache=cache, patience=patience)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_dropped_connection_goes_on_where_it_broke(hub: HubServer, cache: Path, lines: list[str]) -> None:
    hub.add(ORG, FILES)
    hub.faults = [Fault(STORAGE, drop_after_bytes=3_000_000), Fault(STORAGE, drop_after_bytes=500_000)]
    assert weights(cache) == LARGE
    first, second, third = hub.content_of(LARGE)
    assert (first.range, first.sent_bytes) == (None, 3_000_000)
    assert second.range == f"bytes={first.sent_bytes}-"
    assert third.range == "bytes=3500000-"
    assert sum(one.sent_bytes for one in (first, second, third)) == len(LARGE)
    waits = [line for line in lines if "waiting" in line]
    assert len(waits) == 2
    assert all(line.startswith(f"{ORG}: the connection failed (") for line in waits)
    assert all(line.endswith("; waiting 0.01 s, then try 2 of 3") for line in waits)


def test_a_killed_pull_goes_on_where_it_was(hub: HubServer, cache: Path) -> None:
    hub.add(ORG, FILES)
    hub.faults = [Fault(STORAGE, stall_after_bytes=3_200_000)]
    command = [sys.executable, "-c", f"from tasks.checkpoint.resolve import resolve; resolve({ORG!r})"]
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, cwd=ROOT)
    partial = cache / f"models--{ORG.replace('/', '--')}" / "blobs"
    try:
        hub.wait_for_bytes(3_200_000)
        _until_written(partial, 2_000_000)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    have = next(partial.glob("*.incomplete")).stat().st_size
    assert weights(cache) == LARGE
    assert [one.range for one in hub.content_of(LARGE)] == [None, f"bytes={have}-"]
    assert hub.content_of(LARGE)[1].sent_bytes == len(LARGE) - have
    assert list(partial.glob("*.incomplete")) == []


def test_a_connection_that_falls_silent_is_opened_again(
    hub: HubServer, cache: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ORG, FILES)
    hub.faults = [Fault(STORAGE, stall_after_bytes=3_000_000)]
    monkeypatch.setattr("tasks.checkpoint.download.READ_TIMEOUT_S", 0.5)
    assert weights(cache) == LARGE
    assert f"{ORG}: the connection failed (timed out); waiting 0.01 s, then try 2 of 3" in lines


def _until_written(folder: Path, count: int) -> None:
    pause = threading.Event()
    for _ in range(1000):
        sizes = [path.stat().st_size for path in folder.glob("*.incomplete")] if folder.is_dir() else []
        if sizes and max(sizes) >= count:
            return
        pause.wait(0.01)
    raise AssertionError("nothing was written")


def test_a_host_that_ignores_ranges_begins_the_file_again(hub: HubServer, cache: Path) -> None:
    hub.add(ORG, FILES)
    hub.faults = [Fault(STORAGE, drop_after_bytes=3_000_000), Fault(STORAGE, ignores_ranges=True)]
    assert weights(cache) == LARGE


def test_a_file_that_arrives_damaged_is_thrown_away(hub: HubServer, cache: Path) -> None:
    hub.add(ORG, FILES)
    hub.faults = [Fault(STORAGE, damages=True)]
    assert refusal(cache) == (
        f"{ORG}: model.safetensors arrived damaged: its SHA-256 is not the one that the hub lists. "
        "Run the same command again; if it stays so, a proxy changes what passes."
    )
    assert weights(cache) == LARGE


@pytest.mark.parametrize(
    ("path", "status", "headers", "wait"),
    [
        (r"/storage/", 503, {}, "0.01 s"),
        (r"/storage/", 429, {"Retry-After": "0"}, "0 s"),
        (r"/storage/", 429, {"ratelimit": '"resolvers";r=0;t=0'}, "0 s"),
        (r"/resolve/.*/model.safetensors", 500, {}, "0.01 s"),
        (r"/api/models/acme/tiny-7B$", 502, {}, "0.01 s"),
        (r"/api/models/.*/revision/", 429, {}, "0.01 s"),
    ],
)
def test_a_busy_hub_is_waited_for_with_a_line(
    hub: HubServer, cache: Path, lines: list[str], path: str, status: int, headers: dict[str, str], wait: str
) -> None:
    hub.add(ORG, FILES)
    hub.faults = [Fault(path, times=2, status=status, headers=headers)]
    assert weights(cache) == LARGE
    told = [line for line in lines if "waiting" in line]
    assert told, lines
    assert told[0] == f"{ORG}: the hub answers HTTP {status}; waiting {wait}, then try 2 of 3"


@pytest.mark.parametrize("path", [r"/resolve/.*/config.json", r"/api/models/.*/tree/"])
def test_what_the_client_waits_for_by_itself_is_told(
    hub: HubServer, cache: Path, lines: list[str], capfd: pytest.CaptureFixture[str], path: str
) -> None:
    hub.add(ORG, FILES)
    hub.faults = [Fault(path, times=1 if "tree" in path else 2, status=504)]
    assert weights(cache) == LARGE
    assert f"{ORG}: the hub is busy. Retrying in 1s [Retry 1/5]." in lines
    assert capfd.readouterr().err == ""


def test_a_hub_that_stays_broken_is_one_line(hub: HubServer, cache: Path) -> None:
    hub.add(ORG, FILES)
    hub.faults = [Fault(STORAGE, times=99, status=503)]
    assert refusal(cache) == (
        f"{ORG}: the hub refused (HTTP 503, after 3 tries). Try again later. What has arrived is kept."
    )
    assert hub.faults[0].times == 96


def test_a_wait_beyond_patience_is_not_waited(hub: HubServer, cache: Path, lines: list[str]) -> None:
    hub.add(ORG, FILES)
    hub.faults = [Fault(STORAGE, status=429, headers={"Retry-After": "3600"})]
    assert refusal(cache) == (
        f"{ORG}: the hub refused (HTTP 429; it asks to wait 3,600 s). "
        "Try again later. What has arrived is kept."
    )
    assert not any("waiting" in line for line in lines)


def test_all_waits_together_have_a_bound(hub: HubServer, cache: Path) -> None:
    hub.add(ORG, FILES)
    hub.faults = [Fault(STORAGE, times=99, drop_after_bytes=100_000)]
    message = refusal(cache, Patience(tries=3, first_wait_s=0.01, total_wait_s=0.055))
    assert message.startswith(f"{ORG}: not a folder here, and pulling it from the hub failed (")
    assert message.endswith(" What has arrived is kept.")
    assert hub.faults[0].times == 93
    hub.faults.clear()
    assert weights(cache) == LARGE
    assert hub.content_of(LARGE)[-1].range == "bytes=600000-"


@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (
            401,
            {"X-Error-Message": "Invalid credentials in Authorization header"},
            "the hub refused (HTTP 401)",
        ),
        (403, {}, "the hub refused (HTTP 403). Renew HF_TOKEN or unset it."),
        (403, {"X-Error-Code": "GatedRepo"}, "the hub grants no access to this gated repository (HTTP 403)"),
        (404, {}, "the hub refused (HTTP 404)"),
    ],
)
@pytest.mark.parametrize("path", [r"/api/models/", r"/resolve/.*/model.safetensors"])
def test_a_refusal_is_not_tried_again(
    hub: HubServer, cache: Path, path: str, status: int, headers: dict[str, str], says: str
) -> None:
    hub.add(ORG, FILES)
    hub.faults = [Fault(path, times=9, status=status, headers=headers)]
    assert refusal(cache).startswith(f"{ORG}: {says}")
    assert hub.faults[0].times == 8


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_no_room_is_told_before_anything_is_fetched(
    hub: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ORG, FILES)
    places: list[Any] = []

    def full(place: Any) -> Usage:
        places.append(place)
        return Usage(10**10, 10**10, 1_002_000_000)

    monkeypatch.setattr(shutil, "disk_usage", full)
    assert refusal(cache) == (
        f"{ORG}: pulling it takes 0.00 GB (and 1 GB to spare), but 1.00 GB are free in {cache}. "
        "Free some space there, or set HF_HOME to a folder on a larger disk."
    )
    assert places == [cache]
    assert hub.downloaded() == set()


def test_what_is_here_already_needs_no_room(
    hub: HubServer, cache: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ORG, FILES)
    hub.faults = [Fault(STORAGE, drop_after_bytes=3_000_000), Fault(STORAGE, status=403)]
    refusal(cache)
    small = len(LARGE) - 3_000_000 + 10_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 1_000_000_000 + small))
    assert weights(cache) == LARGE
    assert any("(0.00 GB, 0.00 of it here)" in line for line in lines)


def test_a_disk_that_fills_up_on_the_way_is_one_line(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(ORG, FILES)
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here")
    try:
        monkeypatch.setattr("tasks.checkpoint.download.RESERVE_BYTES", -(10**9))
        assert refusal(small) == (
            f"{ORG}: the disk of the hub's cache is full (No space left on device). Free some space or set HF_HOME "
            "to a larger disk; the same command goes on from there."
        )
        shutil.rmtree(small / f"models--{ORG.replace('/', '--')}" / "blobs")
        monkeypatch.setattr("tasks.checkpoint.download.RESERVE_BYTES", 0)
        message = refusal(small)
        assert "pulling it takes" in message
        assert "GB are free in" in message
    finally:
        subprocess.run(["umount", small], check=True)


def test_many_files_come_several_at_once_and_each_only_once(hub: HubServer, cache: Path) -> None:
    layers = {f"model.layers.{i}.mlp.up_proj.weight": ("BF16", (64, 64 + i)) for i in range(8)}
    shards = {
        f"model-{i + 1:05d}-of-00008.safetensors": safetensors({name: shape, **(REST if i == 0 else {})})
        for i, (name, shape) in enumerate(layers.items())
    }
    rest = {name: content for name, content in checkpoint_files().items() if name != "model.safetensors"}
    hub.add(ORG, rest | shards)
    found = resolve(ORG, cache=cache, patience=QUICK)
    assert found.size_bytes == sum(map(len, shards.values()))
    assert all(len(hub.content_of(content)) == 1 for content in shards.values())


def test_two_pulls_at_once_fetch_each_byte_once(hub: HubServer, cache: Path) -> None:
    hub.add(ORG, FILES)
    hub.faults = [Fault(STORAGE, drop_after_bytes=1_000_000)]
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(weights(cache))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [LARGE, LARGE]
    assert sum(one.sent_bytes for one in hub.content_of(LARGE)) == len(LARGE)


def test_the_cache_is_the_clients_own(hub: HubServer, cache: Path) -> None:
    from huggingface_hub import snapshot_download

    sha = hub.add(ORG, FILES)
    weights(cache)
    hub.requests.clear()
    folder = snapshot_download(ORG, revision=sha, cache_dir=cache, endpoint=hub.endpoint)
    assert hub.downloaded() == set()
    assert (Path(folder) / "model.safetensors").read_bytes() == LARGE


def test_bytes_of_an_older_attempt_that_are_too_many_are_thrown_away(hub: HubServer, cache: Path) -> None:
    import hashlib

    hub.add(ORG, FILES)
    digest = hashlib.sha256(LARGE).hexdigest()
    blobs = cache / f"models--{ORG.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{digest}.quantgate.incomplete").write_bytes(random.Random(1).randbytes(len(LARGE) + 1))
    assert weights(cache) == LARGE
