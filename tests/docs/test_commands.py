"""The console commands of every page are real: they are run, or resolved to what they would run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from commands.main import cli
from quantgate.model.config.models import load_models
from quantgate.model.home import ROOT
from tests.support.command import quantgate
from tests.support.command_in_process import run
from tests.support.demo_bundles import warehouse
from tests.support.documentation import PAGES, commands_of, named, text_of, words_of

COMMANDS = sorted({command for page in PAGES for command in commands_of(page)})
WORDS = {command: words_of(command) for command in COMMANDS}
OURS = [command for command in COMMANDS if WORDS[command][0] == "quantgate"]
SYSTEM = {"cd", "docker", "export", "git", "install"}
"""Programs that aren't ours."""
README = set(commands_of(ROOT / "README.md"))
ANSWERED = [c for c in OURS if WORDS[c][1] == "sql"]


def test_there_are_commands() -> None:
    assert {"make demo", "make test"} <= README
    assert len(README & set(OURS)) >= 6
    assert len(OURS) >= 30


@pytest.mark.parametrize("command", [c for c in COMMANDS if WORDS[c][0] == "make"], ids=named)
def test_make_knows_the_target(command: str) -> None:
    subprocess.run([*WORDS[command], "--dry-run"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("command", OURS, ids=named)
def test_the_command_takes_these_arguments(command: str) -> None:
    found: click.Command = cli
    arguments = WORDS[command][1:]
    while isinstance(found, click.Group):
        found = found.commands[arguments.pop(0)]
    found.make_context(found.name, arguments, resilient_parsing=False).close()


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in OURS], ids=named)
def test_the_program_exists(command: str) -> None:
    program = WORDS[command][0]
    beside = Path(sys.executable).parent / program
    assert program in SYSTEM | {"make"} or beside.exists() or (ROOT / program).is_file()


def test_inline_commands_name_verbs() -> None:
    for page in PAGES:
        for verb in re.findall(r"`quantgate ([a-z]+)", text_of(page)):
            assert verb in cli.commands, f"{page.name}: quantgate {verb}"


def test_the_models_are_those_of_the_configuration() -> None:
    """A name with a slash, or an option's, is a checkpoint's."""
    given = {WORDS[command][2] for command in OURS if WORDS[command][1] == "validate"}
    assert {name for name in given if not name.startswith("-")} <= load_models().keys()


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warehouse(tmp_path_factory.mktemp("documentation"))


@pytest.mark.parametrize("command", ANSWERED, ids=named)
def test_the_query_answers(
    command: str,
    home: Path,
    loaded: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(loaded, home / "warehouse.duckdb")
    done = run(monkeypatch, capfd, *WORDS[command][1:])
    assert done.status == 0, done.err
    assert len(done.out.splitlines()) >= 2
    if "--format" not in command and "SELECT" in command:
        assert max(map(len, done.out.splitlines())) <= 100, "it reads well in a terminal of 100 columns"


@pytest.mark.parametrize("command", [c for c in OURS if WORDS[c][1] in {"status", "doctor"}], ids=named)
def test_the_report_is_printed(command: str, home: Path, loaded: Path) -> None:
    shutil.copy(loaded, home / "warehouse.duckdb")
    done = quantgate(*WORDS[command][1:])
    assert done.status == 0, done.err
    assert len(done.out.splitlines()) >= 2
