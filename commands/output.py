"""Print for people and for programs: the one way out, without secrets, on which no text acts."""

from __future__ import annotations

import sys

import click

from quantgate.model.secrets import redact
from quantgate.model.text import inert_lines

EXACT = ("csv", "json")
"""Formats for programs; into a file or a pipe they go as they are."""


def say(text: str = "", *, err: bool = False) -> None:
    """Print lines for people, on standard error if `err`."""
    click.echo(inert_lines(redact(text)), err=err)


def say_rows(text: str, form: str) -> None:
    """Print rows in a format; what is for programs is exact, unless a terminal shows it."""
    if form in EXACT and not sys.stdout.isatty():
        click.echo(text, color=True)  # without it click leaves escapes out
    else:
        say(text)
