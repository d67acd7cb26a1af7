"""The form of a deployment: plain fields, the important ones first, and nothing beside them."""

from __future__ import annotations

from typing import Any

import pytest

from flows.fleet.deployments import deployments
from flows.fleet.form import form_of
from flows.parameters import ADVANCED, ValidateParameters
from quantgate.model.config.fleet import load_fleet
from quantgate.model.home import ROOT

FORMS = {one.full_name: form_of(one) for one in deployments(load_fleet(ROOT / "configs" / "fleet.yaml"))}


def fields(name: str) -> dict[str, dict[str, Any]]:
    (record,) = FORMS[name]["definitions"].values()
    return dict(record["properties"])


@pytest.mark.parametrize("name", FORMS)
def test_no_field_asks_for_its_type_and_every_one_is_explained(name: str) -> None:
    schema = FORMS[name]
    assert list(schema["properties"]) == ["parameters"]
    assert schema["additionalProperties"] is False
    for field in fields(name).values():
        assert {"anyOf", "$ref", "allOf"}.isdisjoint(field)
        assert field["type"]
        assert field["title"]
        assert field["description"].endswith((".", "}."))
        assert field.get("default", ...) is not None


def test_advanced_fields_come_last_and_say_so() -> None:
    form = fields("validate/h100")
    assert set(form) == set(ValidateParameters.model_fields)
    titles = [one["title"] for one in sorted(form.values(), key=lambda one: one["position"])]
    advanced = [title.startswith("Advanced: ") for title in titles]
    assert advanced == sorted(advanced)
    assert sum(advanced) == sum(
        ADVANCED in field.metadata for field in ValidateParameters.model_fields.values()
    )
    assert titles[:2] == ["Model", "Precisions"]


def test_choices_are_lists() -> None:
    form = fields("validate/h100")
    assert "quantgate-demo" in form["model"]["enum"]
    assert {"fp8", "nvfp4"} <= set(form["precisions"]["items"]["enum"])
    for closed in ("policy", "engine", "family", "afterwards"):
        assert form[closed]["enum"], closed
    assert form["gpu"]["enum"] == ["h100"], "the pool has no other"
    assert "enum" not in str(form["tasks"]), "a path may stand there"
