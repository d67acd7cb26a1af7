"""``quantgate matrix``."""

from __future__ import annotations

import urllib.error
import urllib.request

import click

from quantgate.model.errors import ConfigError
from quantgate.model.home import Home


@click.command("matrix")
@click.option("--model", "models", multiple=True, help="Of configs/models; may be repeated.")
@click.option("--precision", "precisions", multiple=True, help="Of the candidates; may be repeated.")
@click.option("--pool", "pools", multiple=True, help="Of configs/fleet.yaml; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Print what would run, on what, at what cost; needs no server.")
@click.option("--budget-usd", type=click.FloatRange(min=0, min_open=True), help="The most it may cost.")
@click.option("--everything", is_flag=True, help="Dispatch also what is known to be measured.")
def command(
    models: tuple[str, ...],
    precisions: tuple[str, ...],
    pools: tuple[str, ...],
    dry_run: bool,
    budget_usd: float | None,
    everything: bool,
) -> int:
    """Measure every model and precision on every pool, what is measured and unchanged left out.

    What isn't chosen is as configs/fleet.yaml says. Runs here, and dispatches to the workers of the Prefect
    server that PREFECT_API_URL (or Prefect's profile) names; interrupted, the same command joins what still
    runs there.
    """
    if not dry_run:
        _check_server()
    from flows.planning import MatrixParameters, plan

    parameters = MatrixParameters(
        models=list(models),
        precisions=list(precisions),
        pools=list(pools),
        budget_usd=budget_usd,
        everything=everything,
        dry_run=dry_run,
    )
    if dry_run:
        from flows.matrix_table import text_of

        click.echo(text_of(plan(parameters, Home.current())))
        return 0
    from flows.matrix import matrix
    from quantgate.cli.runtime import expected_failures

    with expected_failures():
        done = matrix(parameters)
    click.echo(f"{len(done.dispatched)} runs, {done.measured} checkpoints measured, {done.skipped} left out")
    return 0


def _check_server() -> None:
    """A Prefect server must be configured and answer: a temporary one has no workers.

    Raises:
        ConfigError: none is, or it doesn't.
    """
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if not url:
        raise ConfigError(
            "no Prefect server is configured, and workers take runs from one",
            where="matrix",
            mend="Set PREFECT_API_URL, or see what would run with --dry-run.",
        )
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10):  # noqa: S310
            return
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise ConfigError(
            f"the Prefect server doesn't answer ({getattr(error, 'reason', error)})",
            where=url,
            mend="Start it (`prefect server start`), or correct PREFECT_API_URL.",
        ) from None
