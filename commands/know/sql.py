"""``quantgate sql``."""

from __future__ import annotations

import shutil
import sys

import click

from commands.options import format_option
from commands.outcome import terminal_width
from commands.output import say, say_rows
from commands.verb import Verb
from quantgate.model.home import Home


@click.command("sql", cls=Verb)
@click.argument("statement")
@format_option(default="table", show_default=True)
def command(statement: str, form: str) -> int:
    """Run a SQL STATEMENT on the warehouse, read-only.

    The warehouse can be read during a load.

    A table is never cut; one of more than 10,000 rows has a header before each 10,000. --format record has a line for
    each column, which suits wide rows.

    Example: quantgate sql "SELECT precision, verdict, usd_per_mtok_output FROM validated_table"
    """
    from warehouse.query import pages
    from warehouse.report.render import Format, written

    width = terminal_width() if sys.stdout.isatty() else None
    widest = 0
    for piece in written(pages(Home.current().warehouse, statement), Format(form), width=width):
        say_rows(piece, form)
        if width and form == Format.TABLE:
            widest = max(widest, *map(len, piece.splitlines()), 0)
    if widest > shutil.get_terminal_size().columns:
        say(f"{widest} columns wide: --format record has a line for each column", err=True)
    return 0
