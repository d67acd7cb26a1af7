"""``quantgate fleet``: make the pools, limits, deployments and schedules of configs/fleet.yaml on a Prefect server."""

from __future__ import annotations

import click

from commands.options import require_validated_option
from commands.output import say
from commands.verb import VerbGroup
from quantgate.model.config.fleet import FleetFile, fleet_path


@click.group("fleet", cls=VerbGroup)
def command() -> None:
    """Manage a fleet of GPU hosts on a Prefect server.

    Each GPU type has a work pool. configs/fleet.yaml lists the pools and their hosts.
    """


@command.command("init")
def init() -> int:
    """Create or update the fleet on the Prefect server.

    The fleet is its pools, limits, deployments and schedules. The command reads configs/fleet.yaml, or the file that
    QUANTGATE_FLEET names, and needs PREFECT_API_URL. It prints how to start the workers. It is safe to repeat.
    """
    from flows.fleet.check import checked_fleet
    from flows.fleet.provision import LEFT, UNCHANGED, initialize
    from flows.fleet.server import server

    fleet = checked_fleet()
    with server() as client:
        done = initialize(client, fleet)
        url = str(client.api_url)
    for line in done:
        say(f"{line.state:<9}  {line.what}" + (f": {line.detail}" if line.detail else ""))
    if all(line.state in {UNCHANGED, LEFT} for line in done):
        say(f"nothing to change: {url.rstrip('/')} has what {fleet_path()} says")
    _show_workers(fleet)
    return 0


def _show_workers(fleet: FleetFile) -> None:
    from flows.fleet.deployments import worker_commands

    say("\nStart the workers, each on its host in the checkout, with this PREFECT_API_URL:")
    for name, pool in fleet.pools.items():
        if not pool.hosts:
            say(f"# {name}: no host is listed in the fleet's file yet")
        for host in pool.hosts:
            say(f"# {name}: {host.name}")
            for line in worker_commands(fleet, name, host):
                say(f"  {line}")


@command.command("show")
def show() -> int:
    """Print the prefect.yaml of what `init` deploys; needs no server."""
    from flows.fleet.check import checked_fleet
    from flows.fleet.deployments import prefect_yaml

    say(prefect_yaml(checked_fleet()).removesuffix("\n"))
    return 0


@command.command("watch")
@click.argument("run")
@require_validated_option
def watch(run: str, require_validated: bool) -> int:
    """Follow the validation RUN (its id) and print its table."""
    from commands.measure.on_fleet import follow, parse_run_id
    from flows.fleet.server import server

    run_id = parse_run_id(run)
    with server() as client:
        return follow(client, run_id, require_validated=require_validated)
