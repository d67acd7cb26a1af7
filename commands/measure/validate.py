"""``quantgate validate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from commands.measure.on_fleet import run_on_fleet
from commands.measure.run_here import run_here
from commands.options import options_of, require_validated_option
from commands.verb import Verb
from flows.parameters import ValidateParameters
from quantgate.model.errors import ConfigError
from quantgate.model.home import Home

if TYPE_CHECKING:
    from flows.validation import Validation


@click.command("validate", cls=Verb)
@options_of(ValidateParameters)
@click.option(
    "--gpu",
    metavar="NAME",
    help="Run on the fleet: on hosts with this GPU type, or in the pool of this name. Needs PREFECT_API_URL.",
)
@click.option("--watch", is_flag=True, help="With --gpu: follow the run to its end and print its table.")
@require_validated_option
def command(*, gpu: str | None, watch: bool, require_validated: bool, **parameters: Any) -> int:
    """Validate quantized checkpoints against their baseline.

    Name a MODEL of configs/models, or give checkpoints of your own with --baseline, --candidate and --tasks. The
    checkpoints are measured on this machine, or with --gpu on the fleet.

    Each line of a JSONL file of tasks is {"prompt": …, "answer": …}: the model generates text, which must match the
    answer exactly. A line that also has "choices" is a multiple-choice question.
    """
    if gpu is None and watch:
        raise ConfigError(
            "--watch only applies with --gpu", where="validate", hint="Give --gpu too, or leave --watch out."
        )
    if gpu is not None and require_validated and not watch:
        raise ConfigError(
            "--require-validated needs the verdict, and without --watch the command does not wait for it",
            where="validate",
            hint="Give --watch too.",
        )
    home, chosen = Home.current(), ValidateParameters(**parameters)
    if gpu is not None:
        return run_on_fleet(gpu, chosen, home, watched=watch, require_validated=require_validated)

    def run_flow() -> Validation:
        from flows.validate import validate

        return validate(chosen)

    return run_here(chosen, home, run_flow, require_validated=require_validated)
