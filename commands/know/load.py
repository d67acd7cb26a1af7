"""``quantgate load``."""

from __future__ import annotations

import click

from quantgate.model.home import Home


@click.command("load")
def command() -> int:
    """Take new bundles into the warehouse and judge the candidates among them; readers go on meanwhile."""
    from commands.runtime import expected_failures, in_process

    with in_process(Home.current()), expected_failures():
        from flows.load import load

        done = load()
    return 1 if done.problems else 0
