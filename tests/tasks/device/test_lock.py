"""One measurement a device at a time, whoever starts it."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.records import Hardware
from tasks.device.lock import lock_files, locked_devices
from tasks.progress import Reporter

CPU = Hardware(gpu="cpu", device_name="a CPU", sm_arch="x86_64-avx2")
GPUS = Hardware(gpu="h100", device_name="H100", sm_arch="sm_90", gpu_count=2, uuids=("GPU-b", "GPU-a"))
HOLDER = """
import sys, time
from tests.tasks.device.test_lock import CPU, Reporter, locked_devices
with locked_devices(CPU, Reporter(lambda _: None)):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_waits_and_says_for_whom() -> None:
    lines: list[str] = []
    entered = threading.Event()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"

    def second() -> None:
        with locked_devices(CPU, Reporter(lines.append)):
            entered.set()

    waiting = threading.Thread(target=second)
    waiting.start()
    assert not entered.wait(1.0)
    assert lines == [f"waiting for a CPU, locked by process {holder.pid} …"]
    holder.kill()  # a killed holder's lock is free at once
    assert entered.wait(5)
    waiting.join()
    holder.wait()


def test_several_devices_are_locked_in_one_order() -> None:
    other_way = GPUS.model_copy(update={"uuids": ("GPU-a", "GPU-b")})
    assert lock_files(GPUS) == lock_files(other_way)
    assert len(set(lock_files(GPUS)) | set(lock_files(CPU))) == 3


def test_it_can_be_held_again_afterwards() -> None:
    for _ in range(2):
        with locked_devices(GPUS, Reporter(lambda _: None)):
            assert all(Path(file).read_text().startswith("process ") for file in lock_files(GPUS))


def _text(folder: Path) -> Path:
    (folder / "precious").write_text("kept")
    return folder / "precious"


@pytest.mark.parametrize(
    "prepare",
    [
        lambda lock, text: lock.symlink_to(text),
        lambda lock, text: lock.symlink_to(text.with_name("new")),
        lambda lock, text: lock.symlink_to(lock.name),
        lambda lock, text: lock.hardlink_to(text),
        lambda lock, text: os.mkfifo(lock),
        lambda lock, text: lock.mkdir(),
        lambda lock, text: lock.write_text("#!/bin/sh\n"),
    ],
    ids=["link", "link to nowhere", "loop", "second name", "pipe", "folder", "another file"],
)
def test_what_others_prepared_under_a_locks_name_is_refused_and_kept(
    tmp_path: Path, prepare: Callable[[Path, Path], object]
) -> None:
    text = _text(tmp_path)
    text.chmod(0o600)
    (lock,) = lock_files(CPU)
    prepare(lock, text)
    before = lock.lstat()
    with (
        pytest.raises(ConfigError, match=re.escape(str(lock))),
        locked_devices(CPU, Reporter(lambda _: None)),
    ):
        pass
    assert (text.read_text(), text.stat().st_mode & 0o777) == ("kept", 0o600)
    assert not text.with_name("new").exists()
    assert (lock.lstat().st_mode, lock.lstat().st_size) == (before.st_mode, before.st_size)


def test_a_link_in_place_of_the_shared_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QUANTGATE_LOCKS")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (tmp_path / "quantgate-locks").symlink_to(private)
    with pytest.raises(ConfigError, match="QUANTGATE_LOCKS"):
        lock_files(CPU)
    assert private.stat().st_mode & 0o7777 == 0o700


def test_the_shared_folder_is_made_for_every_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUANTGATE_LOCKS")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with locked_devices(CPU, Reporter(lambda _: None)):
        (lock,) = lock_files(CPU)
    assert lock.parent.stat().st_mode & 0o7777 == 0o1777
    assert lock.stat().st_mode & 0o777 == 0o666


def test_a_folder_that_the_user_names_keeps_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o750)
    monkeypatch.setenv("QUANTGATE_LOCKS", str(tmp_path))
    with locked_devices(CPU, Reporter(lambda _: None)):
        pass
    assert tmp_path.stat().st_mode & 0o7777 == 0o750


def test_the_lock_of_another_user_can_be_taken_in_a_sticky_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fs.protected_regular the kernel refuses O_CREAT for another user's file; this kernel may have it off."""
    with locked_devices(CPU, Reporter(lambda _: None)):
        pass
    opened = os.open

    def protected(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if (
            str(path).endswith(".lock")
            and flags & os.O_CREAT
            and not flags & os.O_EXCL
            and Path(path).exists()
        ):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *more, **named)

    def of_another(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "open", protected)
    monkeypatch.setattr(os, "fchmod", of_another)
    with locked_devices(CPU, Reporter(lambda _: None)):
        (lock,) = lock_files(CPU)
        assert lock.read_text() == f"process {os.getpid()}"


def test_a_folder_that_cannot_be_made_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_LOCKS", "/proc/no/such")
    with pytest.raises(ConfigError, match="is no lock that can be used"):
        lock_files(CPU)
    monkeypatch.setenv("QUANTGATE_LOCKS", "/proc")
    with pytest.raises(ConfigError, match="is no lock that can be used"), locked_devices(CPU, Reporter()):
        pass


def test_a_full_disk_keeps_no_lock_from_being_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_LOCKS", str(tmp_path))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with locked_devices(CPU, Reporter(lambda _: None)):
        (path,) = lock_files(CPU)
        assert path.read_bytes() == b""


def test_a_longer_file_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_LOCKS", str(tmp_path))
    (path,) = lock_files(CPU)
    path.write_text("process " + "1" * 200)
    with pytest.raises(ConfigError, match="it holds something else"), locked_devices(CPU, Reporter()):
        pass
    assert len(path.read_text()) == 208
