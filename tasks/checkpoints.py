"""A checkpoint as its files describe it: found or pulled, checked, classified, identified."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from quantgate.model.config import ROOT
from quantgate.model.errors import ConfigError
from quantgate.model.records import Checkpoint
from tasks.checkpoint_files import check_listing, content_hash, read_json, read_weights
from tasks.checkpoint_formats import PRECISIONS, classify
from tasks.checkpoint_hub import HUB_ID, pull

PRECISION_SUFFIX = re.compile(
    r"([-_.](BF16|FP16|FP32|FP8|FP4|NVFP4|MXFP4|MXFP8|INT8|INT4|AWQ|GPTQ|W\d+A(FP)?\d+|Int\d|\dbit"
    r"|NVFP4A16|KV|dynamic|block|quantized))+$",
    re.IGNORECASE,
)
"""What a name's end says of its precision; stripped for the model's name, never believed."""

POSITION_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")
"""Where config.json may say the longest context (tokens)."""


def resolve(
    source: str,
    *,
    cache: Path | None = None,
    declared: str | None = None,
    model: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Checkpoint:
    """Find a checkpoint, check that it can be served, and read from its files what it is.

    Args:
        source: a local folder (from the working directory, or from the project's root), or a hub id,
            ``org/name`` or ``org/name@revision``.
        cache: the hub's cache folder, its own default where there is none.
        declared: the precision that the user expects it to have.
        model: the base model's name; from the checkpoint's name where there is none.
        progress: called with (bytes hashed, bytes in all) while a local folder is hashed.

    Returns:
        The checkpoint; its revision is the commit's SHA, or ``sha256:`` and the hash of what is served.

    Raises:
        ConfigError: it isn't there, can't be served, would run code of its own, or isn't what it declares
            or the user declared; one line with the mend.
    """
    folder = _local_folder(source)
    if folder is None:
        identity = HUB_ID.fullmatch(source)
        if identity is None:
            raise _not_found(source)
        name = identity["repo"]
        folder, revision = pull(name, identity["revision"], where=source, cache=cache)
    else:
        name, revision = folder.resolve().name, ""
    try:
        check_listing([path.name for path in folder.iterdir() if path.is_file()], source)
        config = read_json(folder / "config.json", source)
        _refuse_custom_code(folder, config, source)
        weights = read_weights(folder, source)
        quant_file = folder / "hf_quant_config.json"
        hf_quant = read_json(quant_file, source) if quant_file.is_file() else None
        found = classify(config, hf_quant, weights.tensors, source)
        _check_declared(declared, found.precision, found.weight_format, source)
        return Checkpoint(
            source=source,
            path=str(folder.resolve()),
            name=name,
            revision=revision or content_hash(folder, weights.files, progress),
            model=model or model_name(name if "/" in name else str(folder.resolve())),
            architecture=_architecture(config, source),
            precision=found.precision,
            weight_format=found.weight_format,
            kv_cache_dtype=found.kv_cache_dtype,
            parameters=found.parameters,
            size_bytes=sum(path.stat().st_size for path in weights.files),
            vocab_size=_number(config, ("vocab_size",), source),
            max_position_embeddings=_optional_number(config, POSITION_KEYS),
        )
    except OSError as error:
        what = f"can't be read ({error.strerror or error})"
        raise ConfigError(what, where=source, mend="Check the folder and its permissions.") from None


def model_name(name: str) -> str:
    """The name that a model's checkpoints share: the last part, without what it says of its precision.

    A folder called after a precision only (``tiny/fp8``) goes by its parent.
    """
    for part in reversed(name.rstrip("/").split("/")):
        stripped = PRECISION_SUFFIX.sub("", f"-{part}").removeprefix("-")
        if stripped:
            return stripped
    return name


def check_source(source: str) -> None:
    """Tell at once a source that can be nothing, before anything is read or pulled.

    Raises:
        ConfigError: it is neither a folder nor a hub id.
    """
    if _local_folder(source) is None and HUB_ID.fullmatch(source) is None:
        raise _not_found(source)


def _local_folder(source: str) -> Path | None:
    """The local folder that is meant, or None.

    Raises:
        ConfigError: the source is a file, or is empty.
    """
    if not source.strip():
        raise ConfigError("no checkpoint is named", mend="Give a folder or a hub id (org/name).")
    for path in (Path(os.path.expanduser(source)), ROOT / source):  # noqa: PTH111 - Path's raises without a home
        if os.path.isdir(path):  # noqa: PTH112 - false, not an error, for a name no file can have
            return path
        if os.path.isfile(path):  # noqa: PTH113
            raise ConfigError("is a file", where=source, mend="Give the folder it lies in.")
    return None


def _not_found(source: str) -> ConfigError:
    """The complaint of a source that is neither a folder nor a hub id, with the nearest folder's name."""
    typed = Path(source)
    for parent in (typed.parent, ROOT / typed.parent):
        near = difflib.get_close_matches(typed.name, (other.name for other in parent.glob("*/")), n=1)
        if near:
            return ConfigError(
                "no such folder", where=source, mend=f"Did you mean '{typed.with_name(near[0])}'?"
            )
    mend = "Give a folder that exists, or a hub id: org/name or org/name@revision."
    return ConfigError("neither a folder nor a hub id", where=source, mend=mend)


def _refuse_custom_code(folder: Path, config: Mapping[str, Any], where: str) -> None:
    """Refuse a checkpoint that needs code of its own; one whose architecture is known does without it."""
    mend = "Quantgate runs no code of a checkpoint: give a conversion to an architecture the engine knows."
    if config.get("auto_map"):
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        from transformers import CONFIG_MAPPING

        kind = config.get("model_type")
        if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
            what = f"needs code of its own (auto_map in config.json, model_type '{kind}')"
            raise ConfigError(what, where=where, mend=mend)
    tokenizer = folder / "tokenizer_config.json"
    if (
        tokenizer.is_file()
        and read_json(tokenizer, where).get("auto_map")
        and not (folder / "tokenizer.json").is_file()
    ):
        what = "its tokenizer needs code of its own (auto_map in tokenizer_config.json)"
        raise ConfigError(what, where=where, mend="Convert it to tokenizer.json.")


def _check_declared(declared: str | None, precision: str, weight_format: str, where: str) -> None:
    """Refuse a precision that the user declared and the files don't have."""
    if declared is None or declared.lower() == precision:
        return
    if declared.lower() not in PRECISIONS:
        what = f"'{declared}' is not a precision"
        raise ConfigError(what, where=where, mend=f"Known: {', '.join(PRECISIONS)}.")
    what = f"declared as {declared.lower()}, but the files hold {precision} ({weight_format})"
    raise ConfigError(what, where=where, mend=f"Declare {precision}, or give another checkpoint.")


def _architecture(config: Mapping[str, Any], where: str) -> str:
    """Class name of the model."""
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        mend = 'Add it, e.g. ["LlamaForCausalLM"], or give a language model\'s checkpoint.'
        raise ConfigError("config.json names no 'architectures'", where=where, mend=mend)
    return names[0]


def _optional_number(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    """The first positive whole number under any of the keys, in config.json or its text_config."""
    text_config = config.get("text_config")
    for place in (config, text_config if isinstance(text_config, dict) else {}):
        for key in keys:
            if type(place.get(key)) is int and place[key] > 0:
                return int(place[key])
    return None


def _number(config: Mapping[str, Any], keys: tuple[str, ...], where: str) -> int:
    """The same, where it must be there."""
    number = _optional_number(config, keys)
    if number is None:
        raise ConfigError(f"config.json has no '{keys[0]}'", where=where, mend="Add it to config.json.")
    return number
