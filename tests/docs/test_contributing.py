"""CONTRIBUTING.md names files and folders that exist."""

from __future__ import annotations

import re

import pytest

from quantgate.model.home import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROOMS = (
    "commands",
    "flows",
    "tasks",
    "warehouse",
    "quantgate",
    "configs",
    "docs",
    "tests",
    "benchmarks",
    "plugins",
    "demo",
)
PATHS = re.findall(rf"`((?:{'|'.join(ROOMS)})/[\w./-]*)`( \(to come\))?", PAGE)


def test_there_are_paths() -> None:
    assert len(PATHS) >= 50


@pytest.mark.parametrize("path", sorted({path for path, to_come in PATHS if not to_come}))
def test_the_path_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_described(room: str) -> None:
    assert f"| `{room}/" in PAGE
