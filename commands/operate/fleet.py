"""``quantgate fleet``: pools, limits, deployments and schedules of configs/fleet.yaml on a Prefect server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from commands.options import require_validated_option
from quantgate.model.config.fleet import FleetFile, fleet_path

if TYPE_CHECKING:
    from flows.fleet.provision import Done


@click.group("fleet")
def command() -> None:
    """Hosts of each GPU type: a Prefect work pool each, what runs there, and how to start their workers."""


@command.command("init")
def init() -> int:
    """Make pools, limits, deployments and schedules on the server (PREFECT_API_URL); safe to repeat.

    They are those of configs/fleet.yaml, or of the file that QUANTGATE_FLEET names.
    """
    from flows.fleet.check import checked_fleet
    from flows.fleet.provision import LEFT, UNCHANGED, initialize
    from flows.fleet.server import server

    fleet = checked_fleet()
    with server() as client:
        done = initialize(client, fleet)
        url = str(client.api_url)
    _tell(done)
    if all(one.state in {UNCHANGED, LEFT} for one in done):
        click.echo(f"nothing to change: {url.rstrip('/')} has what {fleet_path()} says")
    _tell_workers(fleet)
    return 0


def _tell(done: list[Done]) -> None:
    for one in done:
        click.echo(f"{one.state:<9}  {one.what}" + (f": {one.detail}" if one.detail else ""))


def _tell_workers(fleet: FleetFile) -> None:
    from flows.fleet.deployments import worker_commands

    click.echo("\nStart the workers, each on its host in the checkout, with this PREFECT_API_URL:")
    for name, pool in fleet.pools.items():
        if not pool.hosts:
            click.echo(f"# {name}: no host is listed in the fleet's file yet")
        for host in pool.hosts:
            click.echo(f"# {name}: {host.name}")
            for line in worker_commands(fleet, name, host):
                click.echo(f"  {line}")


@command.command("show")
def show() -> int:
    """Print prefect.yaml of the fleet: what `init` deploys, in Prefect's own words; needs no server."""
    from flows.fleet.check import checked_fleet
    from flows.fleet.deployments import prefect_yaml

    click.echo(prefect_yaml(checked_fleet()), nl=False)
    return 0


@command.command("watch")
@click.argument("run")
@require_validated_option
def watch(run: str, require_validated: bool) -> int:
    """Follow a RUN of `validate` (its id) to its end and print its table."""
    from commands.measure.on_fleet import follow, parse_run_id
    from flows.fleet.server import server

    run_id = parse_run_id(run)
    with server() as client:
        return follow(client, run_id, require_validated=require_validated)
