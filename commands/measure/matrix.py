"""``quantgate matrix``."""

from __future__ import annotations

import os

import click

from quantgate.model.errors import ConfigError
from quantgate.model.home import Home


@click.command("matrix")
@click.option("--model", "models", multiple=True, help="Of configs/models; may be repeated.")
@click.option("--precision", "precisions", multiple=True, help="Of the candidates; may be repeated.")
@click.option("--pool", "pools", multiple=True, help="Of configs/fleet.yaml; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Print what would run, on what, at what cost; needs no server.")
@click.option("--budget-usd", type=click.FloatRange(min=0, min_open=True), help="The most it may cost.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    help="Of a dry run; table if none is given.",
)
@click.option("--everything", is_flag=True, help="Dispatch also what is known to be measured.")
def command(
    models: tuple[str, ...],
    precisions: tuple[str, ...],
    pools: tuple[str, ...],
    dry_run: bool,
    budget_usd: float | None,
    everything: bool,
    form: str | None,
) -> int:
    """Measure every model and precision on every pool, what is measured and unchanged left out.

    What isn't chosen is as configs/fleet.yaml says. Runs here, and dispatches to the workers of the Prefect
    server that PREFECT_API_URL (or Prefect's profile) names; interrupted, the same command joins what still
    runs there.
    """
    if form and not dry_run:
        raise ConfigError(
            "--format is for --dry-run", where="matrix", hint="Add --dry-run, or leave --format out."
        )
    if not dry_run:
        # Our own lines say what happens, and a run that fails is one of them; the server has Prefect's record.
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
        from flows.fleet.server import api_url

        api_url()  # before anything is planned; a temporary server would have no workers
    from flows.planning.matrix_plan import MatrixParameters, plan

    parameters = MatrixParameters(
        models=list(models),
        precisions=list(precisions),
        pools=list(pools),
        budget_usd=budget_usd,
        everything=everything,
        dry_run=dry_run,
    )
    if dry_run:
        from flows.planning.table import rows_of, text_of
        from warehouse.report.render import render

        planned = plan(parameters, Home.current())
        click.echo(text_of(planned) if form in {None, "table"} else render(rows_of(planned), form))
        return 0
    from commands.runtime import expected_failures
    from flows.matrix import matrix

    with expected_failures():
        done = matrix(parameters)
    click.echo(f"{len(done.dispatched)} runs, {done.measured} checkpoints measured, {done.skipped} left out")
    return 0
