"""A flow's parameters: an unknown one is refused with the nearest name, in one line wherever it comes out."""

from __future__ import annotations

from typing import Any

import pytest
from prefect import Flow

from flows.demo import demo
from flows.load import load
from flows.parameters import ValidateParameters
from flows.prices import prices
from flows.publish import publish
from flows.validate import validate
from quantgate.model.errors import ConfigError

FLOWS: list[Flow[Any, Any]] = [validate, demo, load, publish, prices]


@pytest.mark.parametrize(
    ("flow", "given", "told"),
    [
        (validate, {"model": "quantgate-demo", "limitt": 3}, "unknown key 'limitt'. Did you mean 'limit'?"),
        (demo, {"fres": True}, "unknown key 'fres'. Did you mean 'fresh'?"),
        (load, {"wait": 3}, "unknown key 'wait'. Did you mean 'wait_s'?"),
        (publish, {"run_id": ["a"]}, "unknown key 'run_id'. Did you mean 'run_ids'?"),
        (prices, {"fil": "x"}, "unknown key 'fil'. Did you mean 'file'?"),
        (validate, {"model": "quantgate-demo", "limit": 0}, "key 'limit': "),
        (validate, {"afterwards": "nowhere"}, "key 'afterwards': "),
        (prices, {}, "key 'file' is missing"),
    ],
)
def test_what_prefect_hands_a_flow_is_held_to_its_fields(
    flow: Flow[Any, Any], given: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        flow.validate_parameters({"parameters": given})
    assert str(refused.value).startswith(f"parameters of {flow.name}: ")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_good_ones_pass_as_dictionaries_and_as_records() -> None:
    record = ValidateParameters(model="quantgate-demo", precisions=["fp8"], limit=3)
    for given in (record, record.model_dump(mode="json", exclude_defaults=True)):
        assert validate.validate_parameters({"parameters": given})["parameters"] == record


@pytest.mark.parametrize("flow", FLOWS)
def test_a_form_still_has_the_fields(flow: Flow[Any, Any]) -> None:
    (schema,) = [
        one
        for name, one in flow.parameters.model_dump()["definitions"].items()
        if name.endswith("Parameters")
    ]
    assert schema["additionalProperties"] is False
    assert all(field["title"] and field["description"] for field in schema["properties"].values())
