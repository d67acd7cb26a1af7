"""``quantgate status``: list runs with verdict and age, unfinished and failed runs, and where the logs are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

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


def _unfinished(home: Home) -> list[dict[str, Any]]:
    """Return the runs in staging: what each has finished, and why it stopped."""
    runs = []
    for state_file in sorted(home.staging.glob("*/state.json")):
        state = json.loads(state_file.read_text())
        folder = state_file.parent
        failure_file = folder / "failure.json"
        failure = json.loads(failure_file.read_text()) if failure_file.exists() else {}
        tasks = len(list(folder.glob("quality/*/result.json")))
        levels = len(list(folder.glob("load/c*.json")))
        log = Path(failure.get("log") or home.logs / state["run_id"])
        runs.append(
            {**state, "tasks": tasks, "levels": levels, "message": failure.get("message"), "log": log}
        )
    return runs


@click.command("status")
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
    unfinished = _unfinished(home)
    for run in unfinished:
        outcome = (
            f"failed: {run['message']}"
            if run["message"]
            else "unfinished: the same command goes on from here"
        )
        click.echo(
            f"{run['checkpoint']} ({run['precision']}), begun {str(run['started_at'])[:16]}: "
            f"{run['tasks']} tasks and {run['levels']} load levels are kept; {outcome}; log {run['log']}"
        )
    if not unfinished:
        click.echo("nothing is unfinished")
    return 0
