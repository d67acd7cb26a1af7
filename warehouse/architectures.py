"""Model shapes and number formats of ``configs/``, as the warehouse stores them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantgate.model.bounded import parse_json, read_bytes
from quantgate.model.config.architectures import (
    Architecture,
    ArchitectureFile,
    FormatFile,
    ModelConfigKeys,
)
from quantgate.model.config.shapes import shape_of_config, size_difference
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import fingerprint_of, load_yaml
from warehouse.database import Connection, insert_rows, replace_rows


@dataclass(frozen=True)
class Shapes:
    """Architectures by name, each with its shape, and the formats that numbers are stored in."""

    architectures: dict[str, Architecture]
    formats: FormatFile

    def digest(self) -> str:
        """Return the SHA-256 (hex) of their content."""
        return fingerprint_of(
            [
                {name: entry.model_dump(mode="json") for name, entry in self.architectures.items()},
                self.formats.model_dump(mode="json"),
            ]
        )


def read_shapes(configs: Path) -> Shapes:
    """Read ``architectures/*.yaml`` and ``formats.yaml`` of a folder; both are optional.

    Raises:
        ConfigError: a file is wrong, a ``config_json`` is missing or lacks a key, or a name is listed twice.
    """
    architectures: dict[str, Architecture] = {}
    owners: dict[str, str] = {}
    for path in sorted((configs / "architectures").glob("*.yaml")):
        for model, entry in load_yaml(path, ArchitectureFile).architectures.items():
            for name in _names(model, entry):
                if name in owners:
                    raise ConfigError(
                        f"the name '{name}' is listed twice (for {owners[name]} and {model})",
                        where=f"architectures/{path.name}",
                        hint="Keep one.",
                    )
                owners[name] = model
            architectures[model] = _with_shape(entry, f"architectures/{path.name}: {model}")
    formats = configs / "formats.yaml"
    return Shapes(architectures, load_yaml(formats, FormatFile) if formats.is_file() else FormatFile())


def read_config_json(path: Path) -> ModelConfigKeys:
    """Read the keys of a checkpoint's config.json from which memory and limits follow.

    A multimodal model's ``text_config`` takes precedence; a key whose value is null counts as missing.

    Raises:
        ConfigError: the file can't be read, isn't JSON, or lacks a key that a shape needs.
    """
    try:
        data = parse_json(read_bytes(path))
    except OSError as error:
        raise ConfigError(
            f"can't be read ({error.strerror or error})", where=str(path), hint="Check the path."
        ) from None
    except ValueError:
        raise ConfigError("not valid JSON", where=str(path), hint="Correct the file.") from None
    if not isinstance(data, dict):
        raise ConfigError("not a JSON object", where=str(path), hint="Give a checkpoint's config.json.")
    return shape_of_config(data, str(path))


def refresh_shapes(connection: Connection, shapes: Shapes) -> None:
    """Replace the warehouse's architectures and formats."""
    rows = (_row(model, entry) for model, entry in shapes.architectures.items())
    replace_rows(connection, "architectures", rows)
    formats = (
        {**entry.model_dump(), "holds": holds, "format": name}
        for holds, entries in (("weights", shapes.formats.weights), ("kv_cache", shapes.formats.kv_cache))
        for name, entry in entries.items()
    )
    replace_rows(connection, "number_formats", formats)


def add_shape(connection: Connection, model: str, config_json: Path) -> None:
    """Add the shape that a checkpoint's config.json describes, under a name of its own.

    Raises:
        ConfigError: the file lacks a key that a shape needs.
    """
    architecture = Architecture(config=read_config_json(config_json), source="its config.json")
    insert_rows(connection, "architectures", [_row(model, architecture)])


def size_differences(connection: Connection) -> list[str]:
    """Return a line for each shape whose parameters differ by over 10 % from the size that its name or file states."""
    rows = connection.execute(
        "SELECT model, parameters, vision_parameters, nominal_billions * 1e9 FROM model_shapes ORDER BY model"
    ).fetchall()
    return [line for row in rows if (line := size_difference(*row))]


def refresh_bounds(connection: Connection, *, all_runs: bool) -> None:
    """Store the limit of each load point that has none yet; with ``all_runs`` compute all limits again."""
    if all_runs:
        connection.execute("DELETE FROM store.run_bounds")
    connection.execute(
        "INSERT INTO store.run_bounds "
        "SELECT run_id, operating_point, bound_tok_s, bound_by, no_bound FROM bounds_of('run_points_without_bounds')"
    )


def _names(model: str, architecture: Architecture) -> list[str]:
    """Return all its names in lower case, each once."""
    return list(dict.fromkeys(name.lower() for name in (model, *architecture.names)))


def _with_shape(architecture: Architecture, where: str) -> Architecture:
    """Read its ``config`` from the ``config_json`` that it names, if it names one."""
    if architecture.config_json is None:
        return architecture
    path = ROOT / architecture.config_json
    if not path.is_file():
        raise ConfigError(
            f"no such file '{architecture.config_json}'", where=where, hint="Correct config_json."
        )
    return architecture.model_copy(update={"config": read_config_json(path)})


def _attention(config: ModelConfigKeys) -> dict[str, Any]:
    """Return the columns of the local layers: chunks are a window whose layers are listed as chunked_attention."""
    if config.attention_chunk_size is None or config.sliding_window is not None:
        return {}
    pattern = config.sliding_window_pattern or config.num_hidden_layers + 1
    kinds = config.layer_types or tuple(
        "chunked_attention" if layer % pattern else "full_attention"
        for layer in range(1, config.num_hidden_layers + 1)
    )
    return {"sliding_window": config.attention_chunk_size, "layer_types": kinds}


def _row(model: str, architecture: Architecture) -> Mapping[str, Any]:
    assert architecture.config is not None
    return {
        **architecture.config.model_dump(exclude={"attention_chunk_size"}),
        **_attention(architecture.config),
        **architecture.code.model_dump(),
        "model": model,
        "names": _names(model, architecture),
        **architecture.model_dump(include={"nominal_billions", "source", "note"}),
    }
