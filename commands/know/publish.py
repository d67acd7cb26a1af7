"""``quantgate publish``."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from quantgate.model.home import Home


@click.command("publish")
@click.option("--as-of", type=click.DateTime(), help="The time (UTC) whose prices are used; now if left out.")
def command(as_of: datetime | None) -> int:
    """Publish the validated table as Parquet, CSV and markdown, each with its as_of."""
    from commands.runtime import expected_failures, in_process

    moment = as_of.replace(tzinfo=UTC) if as_of else None
    with in_process(Home.current()), expected_failures():
        from flows.publish import PublishParameters, publish

        folder = publish(PublishParameters(as_of=moment))
    click.echo(str(folder))
    return 0
