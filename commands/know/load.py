"""``quantgate load``."""

from __future__ import annotations

import click

from commands.verb import Verb
from quantgate.model.home import Home


@click.command("load", cls=Verb)
def command() -> int:
    """Load new bundles into the warehouse and judge their candidates.

    The warehouse can be read during a load.
    """
    from commands.runtime import expected_failures, in_process

    with in_process(Home.current()), expected_failures():
        from flows.load import load

        done = load()
    return 1 if done.problems else 0
