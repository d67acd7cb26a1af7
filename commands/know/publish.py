"""``quantgate publish``."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from commands.output import say
from commands.verb import Verb
from quantgate.model.home import Home


@click.command("publish", cls=Verb)
@click.option("--as-of", type=click.DateTime(), help="Time (UTC) whose prices are used. Default: now.")
def command(as_of: datetime | None) -> int:
    """Publish the validated table as Parquet, CSV and Markdown.

    The column as_of holds the time of the prices.
    """
    from commands.runtime import expected_failures, in_process

    moment = as_of.replace(tzinfo=UTC) if as_of else None
    with in_process(Home.current()), expected_failures():
        from flows.publish import PublishParameters, publish

        folder = publish(PublishParameters(as_of=moment))
    say(str(folder))
    return 0
