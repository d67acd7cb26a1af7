"""``quantgate demo``."""

from __future__ import annotations

from typing import Any

import click

from commands.options import options_of, require_validated_option
from commands.outcome import show_outcome
from flows.parameters import DemoParameters
from quantgate.model.home import Home


@click.command("demo")
@options_of(DemoParameters)
@require_validated_option
def command(*, require_validated: bool, **parameters: Any) -> int:
    """Validate the FP8 and NVFP4 checkpoints of a tiny model against its BF16 one.

    The demo needs no GPU, no hub and no account.
    """
    from commands.runtime import expected_failures, in_process

    home = Home.current()
    with in_process(home), expected_failures():
        from flows.demo import demo

        result = demo(DemoParameters(**parameters))
    return show_outcome(home, result, require_validated=require_validated)
