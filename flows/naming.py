"""Name and tag a validation's flow run, so that a list of runs says what each measures."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from prefect.client.orchestration import get_client
from prefect.runtime import deployment, flow_run

from flows.parameters import ValidateParameters
from flows.planning.request import chosen_model
from quantgate.model.config.models import ModelConfig
from quantgate.model.errors import ConfigError


def name_of(parameters: ValidateParameters) -> str:
    """Return the name of a validation's flow run: ``Llama-3.1-8B fp8 on h100``.

    Raises:
        ConfigError: the parameters name no checkpoints, or unknown ones.
    """
    model = chosen_model(parameters)
    where = f" on {parameters.gpu}" if parameters.gpu else ""
    return f"{PurePath(model.name).name} {' '.join(_candidates(model))}{where}"


def tags_of(parameters: ValidateParameters) -> list[str]:
    """Return the tags of a validation's flow run: model, precisions, GPU, policy and suite.

    Raises:
        ConfigError: the parameters name no checkpoints, or unknown ones.
    """
    model = chosen_model(parameters)
    suites = parameters.tasks or [model.suite]
    tags = {
        "model": [PurePath(model.name).name],
        "precision": [str(candidate.precision) for candidate in model.candidates if candidate.precision],
        "gpu": [parameters.gpu] if parameters.gpu else [],
        "policy": [parameters.policy or model.policy],
        "suite": [PurePath(suite).name for suite in suites],
    }
    return [f"{kind}:{value}" for kind, values in tags.items() for value in dict.fromkeys(values)]


def _candidates(model: ModelConfig) -> list[str]:
    """Return the candidates' precisions, or the names of those that are no model's."""
    names = (
        str(candidate.precision) if candidate.precision else PurePath(candidate.source).name
        for candidate in model.candidates
    )
    return list(dict.fromkeys(names))


def own_name() -> str:
    """Return the name of the validation that this process begins; wrong parameters keep the name that it has."""
    given: Any = flow_run.parameters["parameters"]
    try:
        return name_of(ValidateParameters.model_validate(given))
    except ConfigError:
        return str(flow_run.name)


def tag_own_run(parameters: ValidateParameters) -> None:
    """Tag the current flow run of a deployment; one from a form or a schedule has only the deployment's tags."""
    tags = {*flow_run.tags, *tags_of(parameters)}
    if deployment.id and tags != set(flow_run.tags):
        with get_client(sync_client=True) as client:
            client.update_flow_run(flow_run.id, tags=sorted(tags))
