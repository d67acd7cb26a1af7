"""Who may import whom: data flows one way, and no room reaches into one above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from quantgate.model.config import ROOT

ROOMS = ("flows", "tasks", "warehouse", "quantgate.cli", "quantgate.model", "benchmarks")
ALLOWED = {
    "flows": {"flows", "tasks", "warehouse", "quantgate.model"},
    "tasks": {"tasks", "quantgate.model"},
    "warehouse": {"warehouse", "quantgate.model"},
    "quantgate.cli": {"quantgate.cli", "flows", "tasks", "warehouse", "quantgate.model"},
    "quantgate.model": {"quantgate.model"},
    "benchmarks": {"benchmarks", "warehouse", "quantgate.model"},
}
PREFECT = {"flows", "quantgate.cli"}
MODULES = sorted(path for room in ROOMS for path in (ROOT / room.replace(".", "/")).rglob("*.py"))


def room_of(dotted: str) -> str | None:
    return next((room for room in ROOMS if dotted == room or dotted.startswith(room + ".")), None)


def imported_by(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_keep_to_the_arrows(path: Path) -> None:
    own = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert own is not None
    names = imported_by(path)
    rooms = {room for name in names if (room := room_of(name))}
    assert rooms <= ALLOWED[own]
    if own not in PREFECT:
        assert not {name for name in names if name == "prefect" or name.startswith("prefect.")}
    assert (
        not {name for name in names if name == "vllm" or name.startswith("vllm.")}
        or path.name == "bench_driver.py"
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 400


def test_configs_hold_yaml_and_csv_only() -> None:
    texts = ROOT / "configs" / "fidelity"
    strangers = [
        p
        for p in (ROOT / "configs").rglob("*")
        if p.is_file()
        and p.suffix not in {".yaml", ".csv", ".md"}
        and not (p.parent == texts and p.suffix == ".txt")
    ]
    assert strangers == []
