"""``quantgate sql``."""

from __future__ import annotations

import click

from commands.options import format_option
from commands.verb import Verb
from quantgate.model.home import Home


@click.command("sql", cls=Verb)
@click.argument("statement")
@format_option(default="table", show_default=True)
def command(statement: str, form: str) -> int:
    """Run a SQL STATEMENT on the warehouse, read-only.

    The warehouse can be read during a load.

    Example: quantgate sql "SELECT precision, verdict, usd_per_mtok_output FROM validated_table"
    """
    from warehouse.query import query
    from warehouse.report.render import render

    click.echo(render(query(Home.current().warehouse, statement), form))
    return 0
