"""``quantgate inspect``."""

from __future__ import annotations

import json

import click

from commands.output import say, say_rows
from commands.verb import Verb
from quantgate.model.home import Home


@click.command("inspect", cls=Verb)
@click.argument("checkpoint")
@click.option("--gpu", help="Only this GPU of configs/gpus.yaml. Default: every GPU.")
@click.option(
    "--context",
    type=click.IntRange(min=1),
    help="Tokens of the longest request that must fit. Default: the model's own.",
)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def command(checkpoint: str, gpu: str | None, context: int | None, form: str) -> int:
    """Say what a CHECKPOINT is before anything runs.

    It shows the format of its layers, the kernels and GPUs that it needs, and what an engine would refuse. CHECKPOINT
    is a folder, a hub id, or a model of configs/models, whose checkpoints are all shown. Where the weights are not
    here, the configuration files alone are read; no weights are fetched. Problems do not change the exit status.

    Example: quantgate inspect nvidia/Llama-3.3-70B-Instruct-FP4 --gpu h100 --context 131072
    """
    from commands.know.inspection import inspect, sources_of, text_of

    home, sources = Home.current(), sources_of(checkpoint)
    inspected = [inspect(source, home, gpu, context) for source in sources]
    if form == "json":
        shown = [entry.as_json() for entry in inspected]
        say_rows(json.dumps(shown[0] if checkpoint in sources else shown, indent=2), form)
    else:
        say("\n\n".join(text_of(entry) for entry in inspected))
    return 0
