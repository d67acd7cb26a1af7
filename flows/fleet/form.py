"""Make the form of a deployment: its JSON schema, which Prefect's UI shows and its server holds submissions to."""

from __future__ import annotations

from typing import Any, cast, get_args, get_type_hints

from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel

from flows.fleet.deployments import Deployment
from flows.parameters import ADVANCED

OWN_CHECKPOINTS = ["baseline", "candidates", "tasks"]
"""Fields of a validation that has no model of configs/models."""


def form_of(deployment: Deployment) -> dict[str, Any]:
    """Return the schema of a deployment's parameters, as Prefect keeps it.

    Three things are added to what Prefect makes of the flow. A field that may be empty is a plain field instead of a
    choice between a type and None. Advanced fields come last, and the pool's own GPU is the only choice. A body whose
    fields are not inside ``parameters`` is refused, which Prefect would submit and the flow would fail on.
    """
    schema: dict[str, Any] = parameter_schema(deployment.load_flow()).model_dump()
    record = _record_of(deployment)
    definitions = schema["definitions"]
    form = definitions[record.__name__]
    form["properties"] = {
        name: _field(record, name, form["properties"][name], definitions, position)
        for position, name in enumerate(_ordered(record))
    }
    form["description"] = " ".join((record.__doc__ or "").split())
    if "model" in form["properties"]:
        form |= {
            "if": {"required": ["baseline"]},
            "then": {"required": OWN_CHECKPOINTS},
            "else": {"required": ["model"]},
        }
    own = deployment.parameters.get("parameters", {})
    if "gpu" in own:
        form["properties"]["gpu"]["enum"] = [own["gpu"]]
    whole = {"$ref": f"#/definitions/{record.__name__}", "title": "Parameters", "position": 0}
    return {
        **schema,
        "properties": {"parameters": whole},
        "definitions": {record.__name__: form},
        "additionalProperties": False,
    }


def _record_of(deployment: Deployment) -> type[BaseModel]:
    """Return the record that the flow takes as its only argument, ``parameters``."""
    annotation = get_type_hints(deployment.load_flow().fn)["parameters"]
    (record,) = [kind for kind in get_args(annotation) or (annotation,) if kind is not type(None)]
    return cast("type[BaseModel]", record)


def _ordered(record: type[BaseModel]) -> list[str]:
    """Return the fields' names: in the record's order, advanced ones last."""
    return sorted(record.model_fields, key=lambda name: ADVANCED in record.model_fields[name].metadata)


def _field(
    record: type[BaseModel], name: str, made: dict[str, Any], definitions: dict[str, Any], position: int
) -> dict[str, Any]:
    """Return a field of the form, without a choice of its type and without a reference to another definition."""
    variants = [variant for variant in made.get("anyOf", []) if variant.get("type") != "null"]
    field = {key: value for key, value in made.items() if key != "anyOf"}
    for variant in variants:
        field = variant | field
    if "$ref" in field:
        meant = definitions[field.pop("$ref").rpartition("/")[2]]
        field = {key: meant[key] for key in ("type", "enum")} | field
    if field.get("default", ...) is None:
        del field["default"]
    advanced = ADVANCED in record.model_fields[name].metadata
    title = f"Advanced: {field['title']}" if advanced else field["title"]
    return field | {"title": title, "position": position}
