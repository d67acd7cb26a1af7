"""``quantgate demo``."""

from __future__ import annotations

import click

from commands.outcome import show_outcome
from quantgate.model.home import Home


@click.command("demo")
@click.option("--fresh", is_flag=True, help="Measure again what was measured before.")
@click.option(
    "--quick", is_flag=True, help="One candidate, 50 documents a task, one load level: too few to decide."
)
@click.option("--require-validated", is_flag=True, help="Exit with 3 unless every candidate is VALIDATED.")
def command(fresh: bool, quick: bool, require_validated: bool) -> int:
    """BF16, FP8 and NVFP4 of a tiny model in, one validated table out; no GPU, no hub, no account."""
    from commands.runtime import expected_failures, in_process

    home = Home.current()
    with in_process(home), expected_failures():
        from flows.demo import DemoParameters, demo

        result = demo(DemoParameters(fresh=fresh, quick=quick))
    return show_outcome(home, result, require_validated=require_validated)
