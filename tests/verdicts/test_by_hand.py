"""docs/verdicts.md derives a verdict of the demo by hand: what stands there runs, and comes out as the judge says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quantgate.model.home import ROOT
from tests.support.command_in_process import run
from tests.support.demo_bundles import warehouse
from warehouse.query import query

PAGE = (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## By hand\n")[1].split("\n## ")[0]


def block(name: str, language: str) -> str:
    found = re.search(rf"<!-- by hand: {name} -->\n```{language}\n(.*?)```", SECTION, re.DOTALL)
    assert found is not None, name
    return found[1]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warehouse(tmp_path_factory.mktemp("by-hand"))


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    script = tmp_path_factory.mktemp("script") / "by_hand.py"
    script.write_text(block("script", "python"), encoding="utf-8")
    return subprocess.run([sys.executable, script], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def loaded(home: Path, database: Path) -> Path:
    return Path(shutil.copy(database, home / "warehouse.duckdb"))


@pytest.mark.usefixtures("loaded")
def test_the_query_gives_the_counts_that_are_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    command = re.match(r"\$ (quantgate sql \".*?\")\n(.*)", block("counts", "console"), re.DOTALL)
    assert command is not None
    done = run(monkeypatch, capfd, *shlex.split(command[1])[1:])
    assert done.status == 0, done.err
    assert done.out.strip() == command[2].strip()


@pytest.mark.usefixtures("loaded")
def test_the_other_commands_answer(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    commands = re.findall(r"^\$ (quantgate sql \"[^\n]*\")$", SECTION, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        done = run(monkeypatch, capfd, *shlex.split(command)[1:])
        assert done.status == 0, done.err
        assert len(done.out.splitlines()) >= 6


def test_the_script_prints_what_is_shown(printed: str) -> None:
    assert printed == block("output", "text")


def test_the_p_values_by_hand_are_the_judges(database: Path, printed: str) -> None:
    lines = re.findall(r"(\w+): loses less than 2 points: p ([\d.]+), more: p ([\d.]+)", printed)
    rows = query(
        database, "SELECT * FROM quality_delta WHERE use = 'all' AND precision = 'fp8' ORDER BY task"
    ).to_pylist()
    assert [f"qg_demo_{task}" for task, *_ in lines] == [row["task"] for row in rows]
    for (_, less, more), row in zip(lines, rows, strict=True):
        assert row["p_noninferior"] == pytest.approx(float(less), abs=0.0012)
        assert row["p_inferior"] == pytest.approx(float(more), abs=0.006)
        assert (row["p_noninferior"] <= 0.05) == (float(less) <= 0.05) == (row["outcome"] == "pass")


def test_the_verdicts_are_those_that_the_page_derives(database: Path) -> None:
    rows = query(database, "SELECT precision, use, verdict FROM verdicts").to_pylist()
    verdicts = {(row["precision"], row["use"]): row["verdict"] for row in rows}
    assert verdicts["fp8", "all"] == "INCONCLUSIVE"
    assert verdicts["fp8", "conversation"] == verdicts["fp8", "math"] == "VALIDATED"
    assert verdicts["nvfp4", "all"] == "REJECTED"


def test_what_the_pocket_calculator_says() -> None:
    none, one = 0.98**1000, 1000 * 0.02 * 0.98**999
    assert f"{none + one:.8f}" == "0.00000004"
    term, total = none, none
    for k in range(1, 10):
        term *= (1000 - k + 1) / k * 0.02 / 0.98
        total += term
    assert f"{total:.4f}" == "0.0047"
    assert "0.00000004" in SECTION
    assert "with 0.0047" in SECTION
