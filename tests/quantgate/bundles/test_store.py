"""What stands in the place of a bundle's file and is none is a damaged bundle, and nothing waits for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from quantgate.bundles.store import BundleStore
from quantgate.model.errors import RunError
from quantgate.model.home import ROOT

STORED = sorted((ROOT / "tests" / "fixtures" / "bundles").iterdir())[0]


@pytest.mark.parametrize("name", ["manifest.json", "samples.parquet"])
@pytest.mark.parametrize(
    "prepare",
    [
        os.mkfifo,
        Path.mkdir,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path.name),
    ],
    ids=["pipe", "folder", "device", "loop"],
)
def test_what_is_no_file_is_damaged(tmp_path: Path, name: str, prepare: Callable[[Path], object]) -> None:
    shutil.copytree(STORED, tmp_path / STORED.name)
    (tmp_path / STORED.name / name).unlink()
    prepare(tmp_path / STORED.name / name)
    with pytest.raises(RunError, match=rf"bundle {STORED.name}: {name} can't be read \("):
        BundleStore(str(tmp_path)).read(STORED.name)


def test_declared_documents_that_are_no_map_are_none(tmp_path: Path) -> None:
    store = BundleStore(str(tmp_path))
    (tmp_path / ".declared").mkdir()
    (tmp_path / ".declared" / "1-a.documents").write_text("[1]")
    declared = type("Declared", (), {"name": "1-a.json"})
    assert store.declared_documents(declared) == {}
