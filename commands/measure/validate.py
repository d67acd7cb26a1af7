"""``quantgate validate``."""

from __future__ import annotations

from typing import Any

import click
import yaml

from commands.measure.on_fleet import run_on_fleet
from commands.outcome import show_outcome
from quantgate.model.enums import Family
from quantgate.model.errors import ConfigError
from quantgate.model.home import Home


def _engine_arguments(given: tuple[str, ...]) -> dict[str, Any]:
    """``KEY=VALUE`` pairs, values read as YAML: 4096 is a number, true a bare flag, null takes one away, {…} a map."""
    arguments = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise ConfigError(
                f"'{pair}' is not KEY=VALUE", where="--engine-arg", hint="Write e.g. max-model-len=4096."
            )
        try:
            arguments[key.lstrip("-")] = yaml.safe_load(value)
        except yaml.YAMLError:
            arguments[key.lstrip("-")] = value
    return arguments


def _levels(given: str | None) -> list[int] | None:
    if given is None:
        return None
    try:
        levels = [int(part) for part in given.split(",")]
    except ValueError:
        levels = []
    if not levels or min(levels) < 1:
        raise ConfigError(
            f"'{given}' is not a list of whole numbers from 1 on",
            where="--concurrency",
            hint="Write e.g. 1,8,32.",
        )
    return levels


@click.command("validate")
@click.argument("model", required=False)
@click.option("--precision", "precisions", multiple=True, help="Of the model's candidates; may be repeated.")
@click.option("--baseline", help="Folder or hub id (org/name[@revision]) to hold candidates against.")
@click.option("--candidate", "candidates", multiple=True, help="Folder or hub id; may be repeated.")
@click.option("--name", help="Name they share in the table; the baseline's own if left out.")
@click.option("--tasks", help="Suite name, lm-eval task or group, lm-eval YAML, or JSONL.")
@click.option(
    "--family", type=click.Choice([f.value for f in Family]), help="Family of tasks that bring none."
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Documents of each task: the first in the order they are asked in. Under a policy with looks a run that this "
    "leaves INCONCLUSIVE goes on with a larger one, or none.",
)
@click.option(
    "--full",
    is_flag=True,
    help="Candidates answer every document and are judged once, at the end; refused after looks on the way.",
)
@click.option(
    "--workload", help="Ladder of configs/workloads, or a YAML's path.  [default: the model's, or short]"
)
@click.option("--concurrency", help="Load levels in place of the workload's, e.g. 1,8,32.")
@click.option("--policy", help="Policy of configs/policy.yaml.  [default: the model's, or standard]")
@click.option(
    "--gpu", help="GPU type (or pool) of the fleet: run it there, on the server of PREFECT_API_URL."
)
@click.option("--watch", is_flag=True, help="With --gpu: follow the run to its end and print its table.")
@click.option("--engine", help="Engine of configs/engines.yaml; the hardware's default if left out.")
@click.option(
    "--engine-arg",
    "engine_args",
    multiple=True,
    help="Serving argument, its value as YAML: max-model-len=4096, lora-modules={name: FOLDER}; may be repeated.",
)
@click.option(
    "--chat-template/--no-chat-template",
    default=None,
    help="Prompts through the checkpoint's own chat template, or not.  [default: as the model says]",
)
@click.option("--run-generated-code", is_flag=True, help="Allow tasks that run the programs a model writes.")
@click.option(
    "--fresh",
    is_flag=True,
    help="Measure again what was measured before, to see whether it drifts: the first verdict stands.",
)
@click.option("--update-pins", is_flag=True, help="Take a hub id's newest commit in place of the pinned one.")
@click.option("--require-validated", is_flag=True, help="Exit with 3 unless every candidate is VALIDATED.")
def command(  # noqa: PLR0913, PLR0917 - one a flag
    model: str | None,
    precisions: tuple[str, ...],
    baseline: str | None,
    candidates: tuple[str, ...],
    name: str | None,
    tasks: str | None,
    family: str | None,
    limit: int | None,
    full: bool,
    workload: str | None,
    concurrency: str | None,
    policy: str | None,
    gpu: str | None,
    watch: bool,
    engine: str | None,
    engine_args: tuple[str, ...],
    chat_template: bool | None,
    run_generated_code: bool,
    fresh: bool,
    update_pins: bool,
    require_validated: bool,
) -> int:
    """Validate a MODEL of configs/models, or checkpoints of your own: on this machine, or with --gpu on the fleet.

    A JSONL has {"prompt", "answer"} on each line (generation, exact match), with "choices" multiple choice.
    """
    if gpu is None and watch:
        raise ConfigError(
            "a run here is watched anyway", where="--watch", hint="Give --gpu too, or leave it out."
        )
    if gpu is not None and require_validated and not watch:
        raise ConfigError(
            "nobody waits for the verdict", where="--require-validated", hint="Give --watch too."
        )
    arguments, levels = _engine_arguments(engine_args), _levels(concurrency)
    from commands.runtime import expected_failures, in_process
    from flows.planning.request import ValidateParameters, declare
    from tasks.progress import Reporter

    home = Home.current()
    parameters = ValidateParameters(
        model=model,
        precisions=list(precisions),
        baseline=baseline,
        candidates=list(candidates),
        name=name,
        tasks=tasks,
        family=Family(family) if family else None,
        limit=limit,
        full=full,
        workload=workload,
        concurrency=levels,
        policy=policy,
        engine=engine,
        engine_arguments=arguments,
        chat_template=chat_template,
        run_generated_code=run_generated_code,
        fresh=fresh,
        update_pins=update_pins,
    )
    if gpu is not None:
        return run_on_fleet(gpu, parameters, home, watched=watch, require_validated=require_validated)
    with Reporter(lambda _: None).used():  # the flow says the same again
        declare(parameters, home)
    with in_process(home), expected_failures():
        from flows.validate import validate

        result = validate(parameters)
    return show_outcome(home, result, require_validated=require_validated)
