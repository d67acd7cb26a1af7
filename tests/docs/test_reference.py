"""docs/commands.md and docs/configuration.md are what the code makes of them."""

from __future__ import annotations

import re
from pathlib import PurePath

import pytest

from docs.pages import commands, configuration
from quantgate.model.home import ROOT

NO_RECORD = ("suites/tasks/*.yaml",)
"""lm-eval's own format."""


def test_the_command_reference_is_generated() -> None:
    page = commands.PAGE.read_text(encoding="utf-8")
    assert page == commands.commands_page(), "run `python -m docs.pages.commands`"


def test_every_verb_has_a_section_with_its_options() -> None:
    page = commands.PAGE.read_text(encoding="utf-8")
    for command, path in commands.walk(commands.cli):
        section = page.split(f"## {path}\n")[1].split("\n## ")[0]
        for option in command.params:
            assert all(
                f"`{name}" in section or f"/ {name}" in section for name in option.opts if "--" in name
            )


def test_the_list_of_commands_cuts_no_sentence() -> None:
    for command, path in list(commands.walk(commands.cli))[1:]:
        assert not command.get_short_help_str(limit=64).endswith("..."), path  # 80 columns leave so much


def test_the_configuration_reference_is_generated() -> None:
    page = configuration.PAGE.read_text(encoding="utf-8")
    assert page == configuration.configuration_page(), "run `python -m docs.pages.configuration`"


@pytest.mark.parametrize("pattern", configuration.FILES)
def test_the_page_lists_the_file(pattern: str) -> None:
    page = configuration.PAGE.read_text(encoding="utf-8")
    assert f"| [`configs/{pattern}`](#" in page
    assert list((ROOT / "configs").glob(pattern))


def test_every_yaml_of_configs_has_a_record() -> None:
    configs = ROOT / "configs"
    files = [path.relative_to(configs) for path in configs.rglob("*.yaml")]
    patterns = [*configuration.FILES, *NO_RECORD]
    assert [str(file) for file in files if not any(PurePath(file).match(each) for each in patterns)] == []


def test_every_environment_variable_of_the_code_is_listed() -> None:
    page = configuration.PAGE.read_text(encoding="utf-8")
    rooms = ("commands", "flows", "tasks", "warehouse", "quantgate")
    code = "".join(path.read_text() for room in rooms for path in (ROOT / room).rglob("*.py"))
    listed = set(re.findall(r"`(QUANTGATE_[A-Z_]+)`", page))
    assert listed == set(re.findall(r"QUANTGATE_[A-Z_]+", code))
