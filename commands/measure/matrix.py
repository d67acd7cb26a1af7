"""``quantgate matrix``."""

from __future__ import annotations

import os
from typing import Any

import click

from commands.options import format_option, options_of
from commands.outcome import terminal_width
from commands.output import say, say_rows
from commands.verb import Verb
from flows.parameters import MatrixParameters
from quantgate.model.errors import ConfigError
from quantgate.model.home import Home
from quantgate.model.words import counted


@click.command("matrix", cls=Verb)
@options_of(MatrixParameters)
@format_option(help="With --dry-run: how to print the plan.  [default: table]")
def command(*, form: str | None, **parameters: Any) -> int:
    """Measure every model and precision on every pool.

    Runs whose inputs have not changed are skipped. configs/fleet.yaml says what to measure where no option does. The
    command plans on this machine. It sends the runs to the Prefect server in PREFECT_API_URL (or in Prefect's profile).
    If it is interrupted, the same command joins the runs that are still in progress.
    """
    chosen = MatrixParameters(**parameters)
    if chosen.dry_run:
        from flows.planning.matrix_plan import plan
        from flows.planning.table import rows_of, text_of
        from warehouse.report.render import render

        planned = plan(chosen, Home.current())
        form = form or "table"
        shown = text_of(planned, terminal_width()) if form == "table" else render(rows_of(planned), form)
        say_rows(shown, form)
        return 0
    if form:
        raise ConfigError(
            "--format is for --dry-run", where="matrix", hint="Add --dry-run, or leave --format out."
        )
    # The command prints its own lines, and the server keeps Prefect's record.
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    from flows.fleet.server import api_url

    api_url()  # before anything is planned; Prefect's temporary server would have no workers
    from commands.runtime import expected_failures
    from flows.matrix import matrix

    with expected_failures():
        done = matrix(chosen)
    runs, measured = counted(len(done.dispatched), "run"), counted(done.measured, "checkpoint")
    say(f"{runs}, {measured} measured, {done.skipped} left out")
    return 0
