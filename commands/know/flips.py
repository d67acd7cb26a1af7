"""``quantgate flips``: show what got worse and what got better, document by document."""

from __future__ import annotations

import click

from commands.options import format_option
from commands.output import say, say_rows
from commands.verb import Verb
from quantgate.model.home import Home
from quantgate.model.words import counted

SHOWN = 20


@click.command("flips", cls=Verb, short_help="Show the documents whose score changed, with both answers.")
@click.option(
    "--run", "run_id", metavar="RUN_ID", help="Only flips of this run. Default: of repeated runs, the latest."
)
@click.option("--candidate", "checkpoint", metavar="NAME", help="Only flips of this candidate (checkpoint).")
@click.option("--task", metavar="TASK", help="Only flips of this task.")
@click.option("--direction", type=click.Choice(["worse", "better"]), help="Only flips in this direction.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help=f"Maximum number of rows. Default: {SHOWN} for a table, all for CSV and JSON.",
)
@format_option(default="table", show_default=True)
def command(*, limit: int | None, form: str, **wanted: str | None) -> int:
    """Show the documents that a candidate scores differently than its baseline: prompt, target and both answers.

    The table shortens long texts around the point where the two answers part; CSV and JSON have the full texts.

    Example: quantgate flips --task gsm8k --direction worse
    """
    from warehouse.report.flips import find_flips, flip_text
    from warehouse.report.render import render

    limit = limit or (SHOWN if form == "table" else None)
    rows, total = find_flips(Home.current().warehouse, **wanted, limit=limit)
    if form != "table":
        say_rows(render(rows, form), form)
        return 0
    for row in rows.to_pylist():
        say(flip_text(row) + "\n")
    more = "; --limit shows more" if rows.num_rows < total else ""
    say(f"{rows.num_rows} of {counted(total, 'flip')}{more}" if total else "no flips")
    return 0
