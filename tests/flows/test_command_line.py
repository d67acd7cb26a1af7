"""Parameters written as a command are read from it again."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from commands.measure.validate import command
from flows.command_line import validate_command
from flows.parameters import PublishMode, ValidateParameters


def parsed(text: str) -> tuple[ValidateParameters, str | None]:
    """The parameters that the command line makes of a command, and the GPU that it submits to."""
    program, verb, *words = shlex.split(text)
    assert (program, verb) == ("quantgate", "validate")
    given = dict(command.make_context("validate", words).params)
    gpu = given.pop("gpu")
    del given["watch"], given["require_validated"]
    return ValidateParameters(**given), gpu


@pytest.mark.parametrize(
    "given",
    [
        {"model": "Llama-3.1-8B"},
        {"model": "Llama-3.1-8B", "precisions": ["fp8", "nvfp4"], "limit": 50, "full": True, "fresh": True},
        {
            "baseline": "my models/a",
            "candidates": ["b", "org/c@1234"],
            "tasks": "own.jsonl",
            "family": "math",
        },
        {"baseline": "a", "candidates": ["b"], "tasks": "t", "concurrency": [1, 8], "chat_template": False},
        {
            "baseline": "a",
            "candidates": ["b"],
            "tasks": "t",
            "chat_template": True,
            "run_generated_code": True,
        },
        {
            "model": "Llama-3.1-8B",
            "engine": "vllm-cpu",
            "policy": "standard",
            "engine_arguments": {
                "max-model-len": 4096,
                "dtype": "auto",
                "enforce-eager": True,
                "seed": None,
                "revision": "4096",
                "lora-modules": {"mine": "my folder"},
                "chat-template": "{% if a: b %} 'x'\n",
                "tag": " a ",
            },
        },
    ],
)
def test_what_is_written_is_read_again(given: dict[str, Any]) -> None:
    parameters = ValidateParameters(**given)
    assert parsed(validate_command(parameters)) == (parameters, None)


def test_a_short_command_stays_short() -> None:
    text = "quantgate validate Llama-3.1-8B --precision fp8 --engine-arg max-model-len=4096"
    given = {"model": "Llama-3.1-8B", "precisions": ["fp8"], "engine_arguments": {"max-model-len": 4096}}
    assert validate_command(ValidateParameters(**given)) == text


def test_a_run_of_the_fleet_goes_on_there() -> None:
    on_host = ValidateParameters(model="Llama-3.1-8B", gpu="h100", afterwards=PublishMode.FLEET)
    assert parsed(validate_command(on_host)) == (ValidateParameters(model="Llama-3.1-8B"), "h100")
    pinned = on_host.model_copy(update={"revisions": {"org/model": "abc"}})
    assert validate_command(pinned) == "quantgate matrix"
