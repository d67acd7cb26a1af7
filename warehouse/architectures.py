"""Model shapes and number formats of ``configs/``, as they lie in the warehouse too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import AliasChoices

from quantgate.model.config.architectures import Architecture, ArchitectureFile, FormatFile, ModelConfigKeys
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import fingerprint_of, load_yaml, parse_record
from warehouse.database import Connection, insert_rows


@dataclass(frozen=True)
class Shapes:
    """Architectures by name, each with its shape, and the formats that numbers are stored in."""

    architectures: dict[str, Architecture]
    formats: FormatFile

    def digest(self) -> str:
        """SHA-256 (hex) of their content."""
        return fingerprint_of(
            [
                {name: one.model_dump(mode="json") for name, one in self.architectures.items()},
                self.formats.model_dump(mode="json"),
            ]
        )


NO_SHAPES = Shapes({}, FormatFile())
"""A configuration without architectures."""


def read_shapes(configs: Path) -> Shapes:
    """Read ``architectures/*.yaml`` and ``formats.yaml`` of a folder; without them no shape is known.

    Raises:
        ConfigError: a file is wrong, a ``config_json`` isn't there or lacks a key, or a name stands twice.
    """
    found: dict[str, Architecture] = {}
    owners: dict[str, str] = {}
    for path in sorted((configs / "architectures").glob("*.yaml")):
        for model, one in load_yaml(path, ArchitectureFile).architectures.items():
            for name in _names(model, one):
                if name in owners:
                    raise ConfigError(
                        f"the name '{name}' stands twice (for {owners[name]} and {model})",
                        where=f"architectures/{path.name}",
                        hint="Keep one.",
                    )
                owners[name] = model
            found[model] = _with_shape(one, f"architectures/{path.name}: {model}")
    formats = configs / "formats.yaml"
    return Shapes(found, load_yaml(formats, FormatFile) if formats.is_file() else FormatFile())


def read_config_json(path: Path) -> ModelConfigKeys:
    """The keys of a checkpoint's config.json that memory and limits follow from.

    Those of a multimodal model's ``text_config`` are taken where it has one; a key that is null counts as left
    out.

    Raises:
        ConfigError: it can't be read, isn't JSON, or lacks what a shape needs.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"can't be read ({error.strerror or error})", where=str(path), hint="Check the path."
        ) from None
    except ValueError:
        raise ConfigError("not valid JSON", where=str(path), hint="Correct the file.") from None
    if not isinstance(data, dict):
        raise ConfigError("not a JSON object", where=str(path), hint="Give a checkpoint's config.json.")
    text = data.get("text_config")
    merged = {**data, **(text if isinstance(text, dict) else {})}
    known = set(_known_keys())
    return parse_record(
        ModelConfigKeys,
        {key: value for key, value in merged.items() if key in known and value is not None},
        str(path),
    )


def refresh_shapes(connection: Connection, shapes: Shapes) -> None:
    """Replace the warehouse's architectures and formats."""
    connection.execute("DELETE FROM store.architectures")
    insert_rows(
        connection, "architectures", (_row(model, one) for model, one in shapes.architectures.items())
    )
    connection.execute("DELETE FROM store.number_formats")
    for holds, formats in (("weights", shapes.formats.weights), ("kv_cache", shapes.formats.kv_cache)):
        insert_rows(
            connection,
            "number_formats",
            ({**one.model_dump(), "holds": holds, "format": name} for name, one in formats.items()),
        )


def refresh_bounds(connection: Connection, *, every_run: bool) -> None:
    """Store the limit of every load point that has none yet, or of all of them anew."""
    if every_run:
        connection.execute("DELETE FROM store.run_bounds")
    connection.execute(
        "INSERT INTO store.run_bounds "
        "SELECT run_id, operating_point, bound_tok_s, bound_by, no_bound FROM bounds_of('run_points_without_bounds')"
    )


def _names(model: str, one: Architecture) -> list[str]:
    """Every name it goes by, in lower case, each once."""
    return list(dict.fromkeys(name.lower() for name in (model, *one.names)))


def _known_keys() -> Iterator[str]:
    for name, field in ModelConfigKeys.model_fields.items():
        yield name
        if isinstance(field.validation_alias, AliasChoices):
            yield from (str(choice) for choice in field.validation_alias.choices)


def _with_shape(one: Architecture, where: str) -> Architecture:
    """The same with its ``config`` read from the ``config_json`` that it names."""
    if one.config_json is None:
        return one
    path = ROOT / one.config_json
    if not path.is_file():
        raise ConfigError(f"no such file '{one.config_json}'", where=where, hint="Correct config_json.")
    return one.model_copy(update={"config": read_config_json(path)})


def _row(model: str, one: Architecture) -> Mapping[str, Any]:
    assert one.config is not None
    return {
        **one.config.model_dump(),
        **one.code.model_dump(),
        "model": model,
        "names": _names(model, one),
        "nominal_billions": one.nominal_billions,
        "source": one.source,
        "note": one.note,
    }
