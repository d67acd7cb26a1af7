"""A flow's parameters: an unknown one is refused with the nearest name, in one line wherever it comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prefect import Flow, flow

from flows.demo import demo
from flows.load import load
from flows.matrix import matrix
from flows.parameters import Parameters, ValidateParameters
from flows.publish import publish
from flows.validate import validate
from quantgate.model.errors import ConfigError

FLOWS: list[Flow[Any, Any]] = [validate, demo, load, publish, matrix]


class CountParameters(Parameters):
    """Parameters of a flow that can't do without one."""

    file: Path


@flow
def count(parameters: CountParameters) -> None:
    """Count the lines of a file."""


@pytest.mark.parametrize(
    ("called", "given", "message"),
    [
        (validate, {"model": "quantgate-demo", "limitt": 3}, "unknown key 'limitt'. Did you mean 'limit'?"),
        (demo, {"fres": True}, "unknown key 'fres'. Did you mean 'fresh'?"),
        (load, {"wait": 3}, "unknown key 'wait'. Did you mean 'wait_s'?"),
        (publish, {"run_id": ["a"]}, "unknown key 'run_id'. Did you mean 'run_ids'?"),
        (matrix, {"pool": ["x"]}, "unknown key 'pool'. Did you mean 'pools'?"),
        (count, {"fil": "x"}, "unknown key 'fil'. Did you mean 'file'?"),
        (validate, {"model": "quantgate-demo", "limit": 0}, "key 'limit': "),
        (validate, {"afterwards": "nowhere"}, "key 'afterwards': "),
        (count, {}, "key 'file' is missing"),
    ],
)
def test_what_prefect_hands_a_flow_is_held_to_its_fields(
    called: Flow[Any, Any], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        called.validate_parameters({"parameters": given})
    assert str(refused.value).startswith(f"parameters of {called.name}: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_good_ones_pass_as_dictionaries_and_as_records() -> None:
    record = ValidateParameters(model="quantgate-demo", precisions=["fp8"], limit=3)
    for given in (record, record.model_dump(mode="json", exclude_defaults=True)):
        assert validate.validate_parameters({"parameters": given})["parameters"] == record


@pytest.mark.parametrize(("stored", "tasks"), [("gsm8k", ["gsm8k"]), (None, []), (["a", "b"], ["a", "b"])])
def test_tasks_that_a_deployment_stored_as_one_text_are_still_taken(stored: Any, tasks: list[str]) -> None:
    given = validate.validate_parameters({"parameters": {"model": "quantgate-demo", "tasks": stored}})
    assert given["parameters"].tasks == tasks


@pytest.mark.parametrize("called", FLOWS)
def test_a_form_still_has_the_fields(called: Flow[Any, Any]) -> None:
    (schema,) = [
        one
        for name, one in called.parameters.model_dump()["definitions"].items()
        if name.endswith("Parameters")
    ]
    assert schema["additionalProperties"] is False
    assert all(field["title"] and field["description"] for field in schema["properties"].values())
