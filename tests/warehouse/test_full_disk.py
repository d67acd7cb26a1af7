"""A disk that takes nothing more: one line, and the old state as it was."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from quantgate.model.errors import RunError
from quantgate.model.home import ROOT
from warehouse.load import load_bundles
from warehouse.report.publish import publish
from warehouse.swap import replacing

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
LINE = (
    "it can't be written (No space left on device), and is as it was. Free some space there, then try again."
)

_LIMITED = """
import resource, sys
from pathlib import Path
from quantgate.model.errors import RunError
from warehouse.load import load_bundles
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    load_bundles(Path(sys.argv[1]), sys.argv[2])
except RunError as error:
    print(error)
"""


def refuse(*_arguments: Any, **_options: Any) -> Any:
    raise FULL


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_load_that_may_not_write_a_larger_file(place: Any, begun: None, three: Any, share: float) -> None:
    """DuckDB's own error, of a limit that the kernel sets: while the file is copied, and while it grows."""
    place.write(three[0])
    before = contents(place.path)
    limit = str(int(place.warehouse.stat().st_size * share) // 4096 * 4096)
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(place.warehouse), str(place.bundles), limit],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{place.warehouse}: {LINE}\n".replace("No space left on device", "File too large")
    assert contents(place.path).keys() - before.keys() == {".warehouse.duckdb.lock"}
    assert place.warehouse.read_bytes() == before["warehouse.duckdb"]
    assert load_bundles(place.warehouse, place.bundles).loaded == ("run-bf16",)


def test_a_publication(loaded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(loaded.warehouse, tmp_path)
    before = contents(tmp_path)
    for place, name in ((pq, "write_table"), (Path, "write_text"), (os, "fsync")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, refuse)
            with pytest.raises(RunError) as caught:
                publish(loaded.warehouse, tmp_path)
        assert str(caught.value).endswith(f": {LINE}")
        assert contents(tmp_path) == before


def write_nothing(path: Path) -> None:
    raise FileNotFoundError(errno.ENOENT, "no such file", str(path))


def test_another_error_stays_what_it_is(tmp_path: Path) -> None:
    attempt: Callable[[Path], None] = write_nothing
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a") as temporary:
        attempt(temporary)
