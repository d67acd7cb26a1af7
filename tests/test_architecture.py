"""Who may import whom, and how large a folder, a module and a function may be.

The rooms from the top: commands (say), flows (when), tasks (how) beside warehouse (know), and below them the judge
(decide), the bundles (the contract on disk) and the model (the vocabulary). Every arrow points down.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantgate.model.home import ROOT

GROUND = {"quantgate.judge", "quantgate.judge.stats", "quantgate.bundles", "quantgate.model"}
ALLOWED = {
    "commands": {"flows", "tasks", "warehouse"} | GROUND,
    "flows": {"tasks", "warehouse"} | GROUND,
    "tasks": GROUND,
    "warehouse": GROUND,
    "quantgate.judge.stats": set(),
    "quantgate.judge": {"quantgate.judge.stats", "quantgate.bundles", "quantgate.model"},
    "quantgate.bundles": {"quantgate.model"},
    "quantgate.model": set(),
    "docs.pages": {"commands", "warehouse"} | GROUND,
    "benchmarks": {"warehouse"} | GROUND,
}
STEPS = [
    "tasks.resume",
    "tasks.quality",
    "tasks.throughput",
    "tasks.fidelity",
    "tasks.engine",
    "tasks.checkpoint",
]
"""Steps of a run; each may import those after it, tasks.device, tasks.progress, and no other."""
PREFECT = {"flows", "commands"}
WAREHOUSE_FILE = {"warehouse", "benchmarks", "commands", "quantgate.judge", "docs.pages"}
"""Rooms that may import duckdb; the judge counts pairs in memory."""
NO_FSSPEC = {"quantgate.model", "quantgate.judge", "quantgate.judge.stats", "tasks", "warehouse", "flows"}
FOLDERS = ("commands", "flows", "tasks", "warehouse", "quantgate", "benchmarks", "docs/pages")
MODULES = sorted(
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.parent.name != "quantgate"
)
MOST_MODULES, MOST_LINES, MOST_FUNCTION_LINES = 12, 600, 60


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(name: str, rooms: object = tuple(ALLOWED)) -> str | None:
    """The innermost room that a module lies in."""
    within = [room for room in rooms if name == room or name.startswith(room + ".")]  # type: ignore[attr-defined]
    return max(within, key=len, default=None)


def imported_by(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_keep_to_the_arrows(path: Path) -> None:
    own, names = room_of(dotted(path)), imported_by(path)
    assert own is not None
    assert {room for name in names if (room := room_of(name))} <= ALLOWED[own] | {own}
    assert own in PREFECT or "prefect" not in packages(names)
    assert own in WAREHOUSE_FILE or "duckdb" not in packages(names)
    assert own not in NO_FSSPEC or "fsspec" not in packages(names)
    assert path.name == "bench_driver.py" or "vllm" not in packages(names)


@pytest.mark.parametrize("path", [p for p in MODULES if p.is_relative_to(ROOT / "tasks")], ids=dotted)
def test_steps_of_a_run_build_on_those_below(path: Path) -> None:
    own = room_of(dotted(path), STEPS)
    steps = {step for name in imported_by(path) if (step := room_of(name, STEPS))}
    if own is None:  # device, progress: below all; tasks/run.py: above all
        assert path.name == "run.py" or not steps
    else:
        beside = {"tasks.quality", "tasks.throughput", "tasks.fidelity"} - {own}
        allowed = set(STEPS[STEPS.index(own) :]) - (
            beside if own in {"tasks.quality", "tasks.throughput"} else set()
        )
        assert steps <= allowed
        assert not any(name.startswith("tasks.run") for name in imported_by(path))


def _lines_of_functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_and_functions_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES
    assert {name: lines for name, lines in _lines_of_functions(path) if lines > MOST_FUNCTION_LINES} == {}
    assert not path.stem.endswith("_test"), "pytest would collect it"


def test_folders_stay_small() -> None:
    modules = Counter(path.parent for path in MODULES if path.name != "__init__.py")
    assert {str(folder): count for folder, count in modules.items() if count > MOST_MODULES} == {}


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


PARSED_ELSEWHERE = {
    "tasks/throughput/bench_driver.py",  # runs in the engine's environment, on what Quantgate wrote for it
    "warehouse/prices/offer_file.py",  # a list, element by element, of a file that was read within bounds
}
PARSERS = re.compile(r"\bjson\.loads?\(|JSONDecoder\(|yaml\.(safe_|full_|unsafe_)?load|\bpickle\.loads?\(")
"""Not pydantic's `validate_json`: its depth has a bound, and whatever is wrong is a ValidationError."""


@pytest.mark.parametrize("room", ["commands", "flows", "tasks", "warehouse", "quantgate"])
def test_there_is_one_way_to_parse(room: str) -> None:
    """`quantgate.model.bounded`, whose bounds hold for every file."""
    parsers = {
        str(path.relative_to(ROOT))
        for path in MODULES
        if path.is_relative_to(ROOT / room) and PARSERS.search(path.read_text())
    }
    assert parsers - PARSED_ELSEWHERE <= {"quantgate/model/bounded.py"}
