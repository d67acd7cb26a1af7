"""docs/commands.md: every command with its options, generated from the command line itself.

``python -m docs.pages.commands`` writes it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import NamedTuple

import click

from commands.main import cli
from docs.pages.page import fill
from quantgate.model.home import ROOT

PAGE = ROOT / "docs" / "commands.md"


class Described(NamedTuple):
    """One command as the page shows it."""

    path: str
    is_group: bool
    summary: str
    usage: str
    help: str
    options: list[tuple[str, str]]


def commands_page() -> str:
    """Return the page as markdown: a section for each command, in the order of the command line."""
    return fill("commands", commands=[_described(command, path) for command, path in walk(cli)])


def walk(command: click.Command, path: str = "quantgate") -> Iterator[tuple[click.Command, str]]:
    """Yield a command and all below it, each with the words that call it."""
    yield command, path
    if isinstance(command, click.Group):
        for name, member in command.commands.items():
            if not member.hidden:
                yield from walk(member, f"{path} {name}")


def _described(command: click.Command, path: str) -> Described:
    context = click.Context(command, info_name=path)
    records = (option.get_help_record(context) for option in command.params)
    return Described(
        path=path,
        is_group=isinstance(command, click.Group),
        summary=command.get_short_help_str(limit=150),
        usage=f"{path} {' '.join(command.collect_usage_pieces(context))}",
        help=inspect.cleandoc(command.help or "").replace("\b\n", ""),
        options=[(name, " ".join(text.split())) for name, text in filter(None, records) if text],
    )


if __name__ == "__main__":
    PAGE.write_text(commands_page(), encoding="utf-8")
