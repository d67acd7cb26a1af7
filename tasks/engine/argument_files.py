"""Resolve files that an engine's arguments name: their paths for its command, their content for a run's identity.

An argument that names a file means what the file holds: the fingerprint carries the content's hash in place of the
path, so that a moved adapter is the same run and a changed one is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from quantgate.model.bounded import named_path, read_text, real_path, reason
from quantgate.model.config.engines import EngineConfig
from quantgate.model.config.models import CheckpointConfig
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from tasks.checkpoint.files import read_json
from tasks.checkpoint.hub import HUB_ID
from tasks.checkpoint.pins import Pins
from tasks.checkpoint.resolve import check_source, resolve
from tasks.engine.arguments import WHERE, serving_arguments
from tasks.engine.permission import CODE_ARGUMENT, check_permitted
from tasks.engine.server import SERVED_MODEL

LORA, SPECULATIVE, TEMPLATE = "lora-modules", "speculative-config", "chat-template"
PATHS = (TEMPLATE, "tokenizer", "hf-config-path", "generation-config", "tool-parser-plugin")
"""Arguments whose value may be a file or a folder, or something else that the engine knows ("auto", a name)."""
ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class ResolvedArguments:
    """Serving arguments with the files that they name."""

    arguments: dict[str, Any]
    """The engine's overrides: paths are absolute, a draft of the hub is its folder, None removes one."""
    recorded: dict[str, Any]
    """For the fingerprint: contents (``sha256:…``, or a hub id's ``org/name@commit``) in place of paths."""
    adapter: str | None
    """Name under which the LoRA adapter is served, if there is one."""
    chat_template: str | None
    """Text of the chat template that an argument gives in place of the checkpoint's own."""


def resolve_arguments(
    config: EngineConfig, overrides: Mapping[str, Any], pins: Pins | None = None
) -> ResolvedArguments:
    """Find and hash the files that a run's arguments name; a draft model of the hub is pulled.

    Args:
        config: the engine, with its own arguments.
        overrides: the run's, on top of them.
        pins: the commits that hub ids without a revision stand for; None pins nothing.

    Raises:
        ConfigError: a file, an adapter or a draft model isn't there or can't be served.
    """
    return _resolved(config, overrides, partial(_pulled, pins=pins))


def recorded_arguments(
    config: EngineConfig, overrides: Mapping[str, Any], commit: Callable[[str], str]
) -> dict[str, Any]:
    """Return what ``resolve_arguments`` would record, for a plan: no draft model is pulled.

    Args:
        config: the engine, with its own arguments.
        overrides: the run's, on top of them.
        commit: gives the commit of a hub id, or refuses.

    Raises:
        ConfigError: as ``resolve_arguments``, and as `commit`.
    """

    def draft(source: str) -> tuple[str, str]:
        hub = None if _existing(source) else HUB_ID.fullmatch(source)
        return (source, f"{hub['repo']}@{commit(source)}") if hub else _pulled(source, None)

    return _resolved(config, overrides, draft).recorded


def with_code(checkpoint: CheckpointConfig) -> CheckpointConfig:
    """Return the checkpoint with an argument for its own code if allowed: the argument is in the fingerprint.

    Raises:
        ConfigError: its arguments would run code without permission.
    """
    check_permitted(checkpoint.engine_arguments, checkpoint.allow)
    if not checkpoint.allow.remote_code:
        return checkpoint
    arguments = checkpoint.engine_arguments | {CODE_ARGUMENT: True}
    return checkpoint.model_copy(update={"engine_arguments": arguments})


def _pulled(draft: str, pins: Pins | None) -> tuple[str, str]:
    """Return the folder of a draft model, and its identity for the record."""
    checkpoint = resolve(draft, pins=pins)
    local = checkpoint.revision.startswith("sha256:")
    return checkpoint.path, checkpoint.revision if local else f"{checkpoint.name}@{checkpoint.revision}"


def _resolved(
    config: EngineConfig, overrides: Mapping[str, Any], find_draft: Callable[[str], tuple[str, str]]
) -> ResolvedArguments:
    """Resolve the arguments, with `find_draft` to give a draft's folder and identity."""
    arguments = serving_arguments(config, overrides)
    removed = {key.replace("_", "-") for key in config.arguments} - arguments.keys()
    served, recorded = dict.fromkeys(removed) | arguments, dict(arguments)
    adapter = adapter_of(arguments)
    if adapter:
        name, folder = adapter
        served |= {"enable-lora": True, LORA: {"name": name, "path": str(folder)}}
        recorded |= {"enable-lora": True, LORA: {name: _adapter_hash(folder)}}
    draft = draft_of(arguments)
    if draft:
        folder_of_draft, identity = find_draft(draft)
        settings = arguments[SPECULATIVE]
        served[SPECULATIVE] = {**settings, "model": folder_of_draft}
        recorded[SPECULATIVE] = {**settings, "model": identity}
    for key in PATHS:
        path = _existing(arguments.get(key))
        if path is not None:
            served[key], recorded[key] = str(path), _tree_hash(path)
    return ResolvedArguments(served, recorded, adapter[0] if adapter else None, _template(arguments))


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Check arguments that name files, before anything is hashed or pulled.

    Args:
        arguments: serving arguments by name, without dashes.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    adapter = adapter_of(arguments)
    if adapter and adapter[0] == SERVED_MODEL:
        hint = "Call the adapter something else."
        raise ConfigError(f"'{SERVED_MODEL}' is the model's own name", where=f"{WHERE}: {LORA}", hint=hint)
    draft = draft_of(arguments)
    if draft:
        check_source(draft)
    _template(arguments)


def _template(arguments: Mapping[str, Any]) -> str | None:
    """Return the text of the chat template that is given, as a file or in itself."""
    given = arguments.get(TEMPLATE)
    if given is None:
        return None
    path = _existing(given)
    if path is not None and path.is_file():
        try:
            return read_text(path)
        except (OSError, UnicodeDecodeError) as error:
            where = f"{WHERE}: {TEMPLATE}: {given}"
            raise ConfigError(
                f"can't be read ({reason(error)})", where=where, hint="Give it in UTF-8."
            ) from None
    if "{" not in str(given):
        raise ConfigError("no such file", where=f"{WHERE}: {TEMPLATE}: {given}", hint="Correct the path.")
    return str(given)


def adapter_of(arguments: Mapping[str, Any]) -> tuple[str, Path] | None:
    """Return name and folder of the LoRA adapter, or None.

    ``lora-modules`` may be ``{name: folder}``, vLLM's own ``{name: …, path: …}``, a list of one of these, or
    ``name=folder``.

    Raises:
        ConfigError: there are several, or the folder holds no adapter in safetensors.
    """
    given = arguments.get(LORA)
    where = f"{WHERE}: {LORA}"
    if given is None:
        if arguments.get("enable-lora") is True:
            hint = f"Name one: {LORA}={{my-adapter: FOLDER}}."
            raise ConfigError(
                "'enable-lora' without an adapter measures nothing of it", where=where, hint=hint
            )
        return None
    modules = [
        pair for part in (given if isinstance(given, list) else [given]) for pair in _pairs(part, where)
    ]
    if len(modules) != 1:
        hint = "A run measures one adapter: start one for each."
        raise ConfigError(f"names {len(modules)} adapters", where=where, hint=hint)
    if arguments.get("enable-lora") is False:
        raise ConfigError("'enable-lora' is false", where=where, hint="Leave one of the two out.")
    name, given_path = modules[0]
    folder = _existing(given_path)
    if folder is None or not folder.is_dir():
        hint = "Give the folder that holds its adapter_config.json."
        raise ConfigError("no such folder", where=f"{where}: {given_path}", hint=hint)
    shown = f"{where}: {given_path}"
    if not (folder / ADAPTER_CONFIG).is_file():
        raise ConfigError(f"has no {ADAPTER_CONFIG}", where=shown, hint="Give the folder that PEFT saved.")
    _check_rank(read_json(folder / ADAPTER_CONFIG, shown), arguments.get("max-lora-rank"), shown)
    if not (folder / "adapter_model.safetensors").is_file():
        hint = "Save it as safetensors: weights in a pickle file can run code."
        raise ConfigError("has no adapter_model.safetensors", where=shown, hint=hint)
    return name, folder


def _pairs(given: Any, where: str) -> list[tuple[str, str]]:
    """Return name and folder of each adapter in one value."""
    if isinstance(given, str):
        name, equals, path = given.partition("=")
        pairs = [(name, path)] if equals else []
    elif isinstance(given, dict) and {"name", "path"} <= given.keys():
        pairs = [(given["name"], given["path"])]
    else:
        pairs = list(given.items()) if isinstance(given, dict) else []
    if not pairs or not all(isinstance(part, str) and part for pair in pairs for part in pair):
        shown = str(given)[:60]
        raise ConfigError(f"'{shown}' names no adapter", where=where, hint="Write {my-adapter: FOLDER}.")
    return pairs


DEFAULT_MAX_LORA_RANK = 16
"""vLLM's own (0.25 to 0.32)."""


def _check_rank(config: Mapping[str, Any], allowed: Any, where: str) -> None:
    """Refuse an adapter of a higher rank than the engine makes room for."""
    rank, most = config.get("r"), DEFAULT_MAX_LORA_RANK if allowed is None else allowed
    if isinstance(rank, int) and isinstance(most, int) and rank > most:
        hint = f"Add --engine-arg max-lora-rank={next((n for n in (32, 64, 128, 256, 320, 512) if n >= rank), rank)}."
        raise ConfigError(
            f"its rank is {rank}, and the engine's max-lora-rank {most}", where=where, hint=hint
        )


def draft_of(arguments: Mapping[str, Any]) -> str | None:
    """Return the draft model of speculative decoding, a folder or a hub id; None if it needs none.

    Raises:
        ConfigError: the value is not a map.
    """
    given = arguments.get(SPECULATIVE)
    if given is None:
        return None
    if not isinstance(given, dict):
        hint = (
            "Write {method: ngram, num_speculative_tokens: 3} or {model: FOLDER, num_speculative_tokens: 3}."
        )
        raise ConfigError(f"'{given}' is not a map", where=f"{WHERE}: {SPECULATIVE}", hint=hint)
    model = given.get("model")
    if model is None and "method" not in given:
        hint = "Add 'model: FOLDER', or 'method: ngram' and the like."
        raise ConfigError("has neither 'model' nor 'method'", where=f"{WHERE}: {SPECULATIVE}", hint=hint)
    return None if model is None else str(model)


def _existing(value: Any) -> Path | None:
    """Return the file or folder that a value names, from here or from the root; None if there is none."""
    if not isinstance(value, str) or not value or "\n" in value or "{" in value:
        return None
    for path in (named_path(value), ROOT / value):
        if path.exists():
            return real_path(path)
    return None


def _adapter_hash(folder: Path) -> str:
    """Hash the files of an adapter that the engine reads; a trainer leaves more in its folder."""
    return _hash([folder / ADAPTER_CONFIG, *sorted(folder.glob("*.safetensors"))], lambda path: path.name)


def _tree_hash(path: Path) -> str:
    """Hash a file's content, or a folder's files by their relative paths."""
    if path.is_file():
        return _hash([path], lambda _: "")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return _hash(files, lambda file: file.relative_to(path).as_posix())


def _hash(files: list[Path], name: Callable[[Path], str]) -> str:
    """Return the SHA-256 of sorted lines ``name sha256``."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            digest.update(f"{name(file)} {hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return f"sha256:{digest.hexdigest()}"
