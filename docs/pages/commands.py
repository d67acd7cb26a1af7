"""docs/commands.md: every command with its options, generated from the command line itself.

``python -m docs.pages.commands`` writes it; ``commands.md.tmpl`` beside this module holds the introduction.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from commands.main import cli
from quantgate.model.home import ROOT

PAGE = ROOT / "docs" / "commands.md"
TEMPLATE = Path(__file__).with_name("commands.md.tmpl")


def commands_page() -> str:
    """Return the page as markdown: a section for each command, in the order of the command line."""
    listed = list(walk(cli))
    sections = "\n".join(line for command, path in listed for line in _section(command, path))
    rows = "\n".join(_row(command, path) for command, path in listed if not isinstance(command, click.Group))
    page = TEMPLATE.read_text(encoding="utf-8").replace("{summary}", rows)
    return page.replace("{commands}\n", sections)


def walk(command: click.Command, path: str = "quantgate") -> Iterator[tuple[click.Command, str]]:
    """Yield a command and all below it, each with the words that call it."""
    yield command, path
    if isinstance(command, click.Group):
        for name, member in command.commands.items():
            if not member.hidden:
                yield from walk(member, f"{path} {name}")


def _row(command: click.Command, path: str) -> str:
    """Return a row of the list at the top, which links to the command's section."""
    return f"| [`{path}`](#{path.replace(' ', '-')}) | {_cell(command.get_short_help_str(limit=150))} |"


def _section(command: click.Command, path: str) -> Iterator[str]:
    context = click.Context(command, info_name=path)
    yield f"## {path}\n"
    yield f"```text\n{path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    yield inspect.cleandoc(command.help or "").replace("\b\n", "") + "\n"
    options = [
        record for option in command.params if (record := option.get_help_record(context)) and record[1]
    ]
    if options:
        yield "| option | what it does |\n|---|---|"
        yield from (f"| `{_cell(name)}` | {_cell(text)} |" for name, text in options)
        yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(commands_page(), encoding="utf-8")
