"""``quantgate import``."""

from __future__ import annotations

from pathlib import Path

import click

from commands.outcome import say_left_out
from commands.output import say
from commands.verb import Verb
from quantgate.model.home import Home
from quantgate.model.words import counted


@click.command("import", cls=Verb)
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> int:
    """Import published MLPerf Inference results.

    FILE is the official summary_results.json of a round. The token rates of its closed division become rows of the
    view published_evidence. They never become rows of validated_table. Importing a file again changes nothing.
    """
    from warehouse.configuration import import_results
    from warehouse.load import load_bundles

    home = Home.current()
    done = import_results(file, home.warehouse)
    say_left_out(load_bundles(home.warehouse, home.bundles).problems)
    say(
        f"{counted(done.imported, 'result')} imported, {counted(done.left_out, 'other')} left out, "
        f"kept in {done.file}"
    )
    return 0
