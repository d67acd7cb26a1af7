"""``quantgate flips``: what broke, and what got better, document by document."""

from __future__ import annotations

import click

from commands.options import format_option
from quantgate.model.home import Home

SHOWN = 20


@click.command("flips")
@click.option("--run", "run_id", metavar="RUN_ID", help="Of one candidate's run only.")
@click.option("--candidate", metavar="NAME", help="Of one candidate (checkpoint) only.")
@click.option("--task", metavar="TASK", help="Of one task only.")
@click.option("--direction", type=click.Choice(["worse", "better"]), help="Only one of the two.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help=f"So many at most; {SHOWN} as a table and all of them otherwise if left out.",
)
@format_option(default="table", show_default=True)
def command(
    run_id: str | None,
    candidate: str | None,
    task: str | None,
    direction: str | None,
    limit: int | None,
    form: str,
) -> int:
    """Show the documents whose score a candidate changed: prompt, target, both answers.

    Long texts are cut around the place where the two answers part; --format csv and json hold them whole.

    Example: quantgate flips --task gsm8k --direction worse
    """
    from warehouse.report.flips import find_flips, flip_text
    from warehouse.report.render import render

    rows, total = find_flips(
        Home.current().warehouse,
        run_id=run_id,
        checkpoint=candidate,
        task=task,
        direction=direction,
        limit=limit or (SHOWN if form == "table" else None),
    )
    if form != "table":
        click.echo(render(rows, form))
        return 0
    for row in rows.to_pylist():
        click.echo(flip_text(row) + "\n")
    more = "; --limit shows more" if rows.num_rows < total else ""
    click.echo(f"{rows.num_rows} of {total} flips{more}" if total else "no flips")
    return 0
