"""The README's commands are real."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from commands.main import cli
from quantgate.model.config.models import load_models
from quantgate.model.home import ROOT
from tests.support.command import quantgate
from tests.support.demo_bundles import summary, warehouse

BLOCKS = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ").split("  #")[0].strip()
    for b in BLOCKS
    for line in b.splitlines()
    if line[:2] == "$ "
]
OURS = [command for command in COMMANDS if command.startswith("quantgate ")]


def test_there_are_commands() -> None:
    assert len(OURS) >= 8
    assert "make demo" in COMMANDS
    assert "make test" in COMMANDS


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_knows_the_target(command: str) -> None:
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("command", OURS)
def test_the_command_takes_these_arguments(command: str) -> None:
    verb, *arguments = shlex.split(command)[1:]
    cli.commands[verb].make_context(verb, arguments, resilient_parsing=False).close()


def test_the_models_are_those_of_the_configuration() -> None:
    """A name with a slash, or an option's, is a checkpoint's."""
    named = [shlex.split(command)[2] for command in OURS if command.split()[1] == "validate"]
    assert {name for name in named if not name.startswith("-")} <= load_models().keys()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warehouse(tmp_path_factory.mktemp("readme"))


@pytest.mark.parametrize("command", [c for c in OURS if c.split()[1] in {"sql", "status", "doctor"}])
def test_the_command_answers(command: str, home: Path, loaded: Path) -> None:
    shutil.copy(loaded, home / "warehouse.duckdb")
    done = quantgate(*shlex.split(command)[1:])
    assert done.status == 0, done.err
    assert len(done.out.splitlines()) >= 2
    if "--format" not in command and "SELECT" in command:
        assert max(map(len, done.out.splitlines())) <= 100, "it reads well in a terminal of 100 columns"


def test_the_demo_table_is_the_published_one() -> None:
    """What the README prints came out of the program: the fixture's bundles give it again."""
    table = re.search(r"<!-- demo table -->\n```text\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert table is not None
    assert table[1].strip() == summary().strip()
