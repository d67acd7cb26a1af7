"""``quantgate status``: list runs with verdict and age, unfinished and failed runs, and where the logs are."""

from __future__ import annotations

from typing import Any

import click

from commands.verb import Verb
from quantgate.bundles.staging import RESULT, Staging, unfinished
from quantgate.model.home import Home

RUNS = """
    SELECT strftime(r.measured_at, '%Y-%m-%d %H:%M') AS measured, r.checkpoint, r.precision, r.gpu,
           coalesce(v.verdict, '–') AS verdict, r.validity, coalesce(v.age, '') AS age, r.run_id
    FROM runs r LEFT JOIN (
        SELECT run_id, any_value(verdict) AS verdict,
               CASE WHEN bool_or(stale) THEN 'stale' ELSE 'fresh' END AS age
        FROM validated_table WHERE use = 'all' GROUP BY run_id
    ) v USING (run_id) ORDER BY r.measured_at
"""


def _line(home: Home, staging: Staging, state: dict[str, Any]) -> str:
    """Say of a run in progress what it has finished, and why it stopped."""
    failure = staging.failure()
    tasks = len(list(staging.quality_dir.glob(f"*/{RESULT}")))
    levels = len(list(staging.load_dir.glob("c*.json")))
    outcome = (
        f"failed: {failure['message']}"
        if failure.get("message")
        else "unfinished: the same command goes on from here"
    )
    return (
        f"{state['checkpoint']} ({state['precision']}), begun {staging.started_at:%Y-%m-%d %H:%M}: "
        f"{tasks} tasks and {levels} load levels are kept; {outcome}; "
        f"log {failure.get('log') or home.logs / staging.run_id}"
    )


@click.command("status", cls=Verb, short_help="List measured, unfinished and failed runs.")
def command() -> int:
    """List the runs in the warehouse with verdict and age, and unfinished or failed runs with their logs."""
    from warehouse.query import query
    from warehouse.report.render import render

    home = Home.current()
    if home.warehouse.exists():
        runs = query(home.warehouse, RUNS)
        click.echo(f"runs in {home.warehouse} (logs: {home.logs}/RUN_ID)")
        click.echo(render(runs, "table"))
    else:
        click.echo(f"no runs yet in {home.path}")
    lines = [_line(home, staging, state) for staging, state in unfinished(home)]
    click.echo("\n".join(lines) or "nothing is unfinished")
    return 0
