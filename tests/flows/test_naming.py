"""Names and tags of flow runs."""

from __future__ import annotations

from typing import Any

import pytest

from flows.naming import name_of, tags_of
from flows.parameters import ValidateParameters
from quantgate.model.errors import ConfigError

OWN = {
    "baseline": "/there/My-BF16",
    "candidates": ["/there/My-FP8", "org/My-NVFP4"],
    "tasks": ["/q/own.jsonl"],
}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"model": "quantgate-demo", "precisions": ["fp8"], "gpu": "h100"}, "quantgate-demo fp8 on h100"),
        ({"model": "quantgate-demo", "gpu": "cpu"}, "quantgate-demo fp8 nvfp4 on cpu"),
        ({"model": "quantgate-demo", "precisions": ["nvfp4"]}, "quantgate-demo nvfp4"),
        (OWN, "My-BF16 My-FP8 My-NVFP4"),
        (OWN | {"name": "mine", "gpu": "l40s"}, "mine My-FP8 My-NVFP4 on l40s"),
    ],
)
def test_a_run_is_named_by_model_precision_and_gpu(given: dict[str, Any], name: str) -> None:
    assert name_of(ValidateParameters(**given)) == name


def test_tags_say_what_is_measured_and_by_which_policy() -> None:
    assert tags_of(ValidateParameters(model="quantgate-demo", gpu="h100", limit=7)) == [
        *("model:quantgate-demo", "precision:fp8", "precision:nvfp4", "gpu:h100", "policy:demo", "suite:demo")
    ]
    assert tags_of(ValidateParameters(**OWN, policy="demo")) == [
        *("model:My-BF16", "policy:demo", "suite:own.jsonl")
    ]


def test_parameters_without_checkpoints_have_no_name() -> None:
    with pytest.raises(ConfigError, match="no model"):
        name_of(ValidateParameters())
