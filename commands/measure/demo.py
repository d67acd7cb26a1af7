"""``quantgate demo``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from commands.measure.run_here import run_here
from commands.options import options_of, require_validated_option
from commands.verb import Verb
from flows.parameters import DemoParameters
from quantgate.model.home import Home

if TYPE_CHECKING:
    from flows.validation import Validation


@click.command("demo", cls=Verb)
@options_of(DemoParameters)
@require_validated_option
def command(*, require_validated: bool, **parameters: Any) -> int:
    """Validate the FP8 and NVFP4 checkpoints of a tiny model.

    They are compared with its BF16 checkpoint. The demo needs no GPU, no hub and no account.
    """
    chosen = DemoParameters(**parameters)

    def run_flow() -> Validation:
        from flows.demo import demo

        return demo(chosen)

    return run_here(
        chosen.validation(), Home.current(), run_flow, require_validated=require_validated, published=True
    )
