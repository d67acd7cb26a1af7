"""Resolve a checkpoint from its source: find or pull it, check it, classify it, identify it."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from quantgate.model.config.models import SHA, Allowed
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.records import Checkpoint
from quantgate.model.secrets import refuse_secrets
from tasks.checkpoint import hub
from tasks.checkpoint.files import (
    PROCESSORS,
    Weights,
    check_listing,
    content_hash,
    is_pickled_weight,
    is_served,
    is_weight,
    read_json,
    read_json_if_any,
    read_weights,
    served_under,
    source_folders,
)
from tasks.checkpoint.formats.precision import PRECISIONS, Format, classify, classify_unread, stated_format
from tasks.checkpoint.formats.quant_config import QUANT_FILE, sections
from tasks.checkpoint.hub import HUB_ID
from tasks.checkpoint.pins import Pins
from tasks.checkpoint.retry import Patience
from tasks.checkpoint.safetensors import DOWNLOAD_HINT, Tensor
from tasks.progress import Reporter

PRECISION_SUFFIX = re.compile(
    r"([-_.](BF16|FP16|FP32|FP8|FP4|NVFP4|MXFP4|MXFP8|INT8|INT4|AWQ|GPTQ|W\d+A(FP)?\d+|Int\d|\dbit"
    r"|NVFP4A16|KV|dynamic|block|quantized))+$",
    re.IGNORECASE,
)
"""Endings of a name that claim a precision; stripped for the model's name, never believed."""

EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight")
"""Endings of the name of the tensor that has a row for each token."""

_PROCESSOR_CLASSES = (
    "processor_class",
    "image_processor_type",
    "video_processor_type",
    "feature_extractor_type",
)

POSITION_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")
"""Keys of config.json that may hold the longest context (tokens)."""


def resolve(
    source: str,
    *,
    cache: Path | None = None,
    declared: str | None = None,
    allow: Allowed | None = None,
    pins: Pins | None = None,
    patience: Patience | None = None,
    progress: Callable[[int, int], None] | None = None,
    check_bytes: Callable[[int], None] | None = None,
) -> Checkpoint:
    """Find a checkpoint, check that it can be served, and read from its files what it is.

    Args:
        source: a folder (from here or the project's root), or a hub id: ``org/name`` or ``org/name@revision``.
        cache: the hub's cache folder, its own default where there is none.
        declared: the precision that the user expects it to have.
        allow: what this one may do that none may otherwise; only a hub id with its commit may.
        pins: the commits that hub ids without a revision stand for; None pins nothing.
        patience: how long a hub in trouble is waited for.
        progress: called with (bytes hashed, bytes in all) while a local folder is hashed.
        check_bytes: called with the size of a hub's weights before they are fetched; raises for what is too large.

    Returns:
        The checkpoint; its revision is the commit's SHA, or ``sha256:`` and the hash of what is served.

    Raises:
        ConfigError: it isn't there, can't be served, would run code, isn't what was declared, or stores a secret.
    """
    folder = _local_folder(source)
    if folder is None:
        name, asked = _hub_id(source)
        allow = _pinned(allow, asked, source)
        inspect = partial(inspect_configuration, source, declared, allow, check_bytes)
        folder, revision = hub.pull(
            name, asked, where=source, cache=cache, allow=allow, pins=pins, patience=patience, inspect=inspect
        )
    else:
        name, revision, allow = folder.resolve().name, "", _pinned(allow, None, source)
    contents = _read(folder, source, declared, allow)
    for remark in contents.format.remarks:
        Reporter.current().line(f"{source}: {remark}")
    try:
        checkpoint = Checkpoint(
            source=source,
            path=str(folder.resolve()),
            name=name,
            revision=revision or content_hash(folder, contents.weight_files, progress),
            model=model_name(name if "/" in name else str(folder.resolve())),
            architecture=_architecture(contents.config, source),
            **contents.format.recorded(),
            size_bytes=contents.size_bytes,
            vocab_size=contents.vocab_size,
            max_position_embeddings=_optional_number(contents.config, POSITION_KEYS),
            remote_code=contents.remote_code,
        )
    except OSError as error:
        raise _unreadable(error, source) from None
    refuse_secrets(checkpoint.model_dump(), source)  # what config.json says is stored with the run
    return checkpoint


def is_folder(source: str) -> bool:
    """Return True if a source is a local folder, from the working directory or the project's root."""
    return any(path.is_dir() for path in (Path(source), *source_folders(source)))


def commit_of(
    source: str,
    declared: str | None = None,
    *,
    pins: Pins | None = None,
    keep: bool = False,
    cache: Path | None = None,
    patience: Patience | None = None,
) -> str:
    """Return the full SHA of the commit that all hosts are to measure.

    Args:
        source: ``org/name`` or ``org/name@revision``; without a revision the home's pin counts.
        declared: the precision that it is expected to have.
        pins: the home's.
        keep: pin an id without a pin, once its configuration has passed; a plan that is only shown pins nothing.
        cache: the hub's cache folder, its own default where there is none.
        patience: how long a hub in trouble is waited for.

    Raises:
        NotAskedError: the hub can't be reached, and nothing is pinned.
        ConfigError: it is no hub id, the hub says no, or what it holds can't be served.
    """
    identity = HUB_ID.fullmatch(source)
    if identity is None:
        raise ConfigError(
            "neither a folder here nor a hub id", where=source, hint="Correct it in configs/models."
        )
    return hub.commit_of(
        identity["repo"],
        identity["revision"],
        where=source,
        pins=pins,
        keep=keep,
        cache=cache,
        patience=patience,
        inspect=partial(inspect_configuration, source, declared, Allowed(), None),
    )


def check_source(source: str, declared: str | None = None) -> None:
    """Check a source without asking a hub or hashing: it exists in some form, and a folder can be served.

    Args:
        source: as for ``resolve``.
        declared: the precision that the user expects it to have.

    Raises:
        ConfigError: it is neither a folder nor a hub id, or a folder that ``resolve`` would refuse.
    """
    folder = _local_folder(source)
    if folder is not None:
        contents = _read(folder, source, declared, Allowed())
        _architecture(contents.config, source)
    else:
        _hub_id(source)


@dataclass
class Described:
    """What a checkpoint's files say of it, and what is wrong with them."""

    name: str
    config_file: Path
    config: dict[str, Any]
    precision: str | None = None
    """None where the files do not say, or can't be understood."""
    weight_format: str | None = None
    schemes: Mapping[str, int | None] = field(default_factory=dict)
    """Layers by how they are stored; None where only the configuration was read."""
    kv_cache_dtype: str = "auto"
    parameters: int | None = None
    """None where the weights were not read."""
    size_bytes: int | None = None
    traits: tuple[str, ...] = ()
    weight_only: bool = False
    problems: list[str] = field(default_factory=list)


def describe(
    source: str,
    *,
    cache: Path | None = None,
    pins: Pins | None = None,
    patience: Patience | None = None,
) -> Described:
    """Read what a checkpoint is; what `resolve` would refuse is a problem here, and weights need not be there.

    Args:
        source: as for `resolve`.
        cache: the hub's cache folder, its own default where there is none.
        pins: the commits that hub ids without a revision stand for.
        patience: how long a hub in trouble is waited for.

    Raises:
        ConfigError: it isn't there, or a file of it can't be read.
    """
    folder, size_bytes = _local_folder(source), None
    try:
        if folder is None:
            name, revision = _hub_id(source)
            folder, names, size_bytes = hub.look(
                name, revision, where=source, cache=cache, pins=pins, patience=patience
            )
        else:
            name, names = folder.resolve().name, [path.name for path in folder.iterdir() if path.is_file()]
        config = read_json(folder / "config.json", source)
        hf_quant = read_json_if_any(folder / QUANT_FILE, source)
        seen = Described(name, folder / "config.json", config, size_bytes=size_bytes)
        for check in (
            lambda: check_listing(names, source),
            lambda: _needs_code(folder, names, config, source, Allowed()),
            lambda: _architecture(config, source),
            lambda: _describe_format(seen, folder, hf_quant, source),
        ):
            _note_refusal(seen, check)
    except OSError as error:
        raise _unreadable(error, source) from None
    return seen


def _note_refusal(seen: Described, check: Callable[[], object]) -> None:
    """Note why a checkpoint would be refused; what is damaged can't be described.

    Raises:
        ConfigError: a file is damaged.
    """
    try:
        check()
    except ConfigError as error:
        if error.hint == DOWNLOAD_HINT:
            raise
        seen.problems.append(f"{error.what}. {error.hint}".strip())


def _describe_format(seen: Described, folder: Path, hf_quant: dict[str, Any] | None, where: str) -> None:
    """Add the format: from the weights where they are there, else from the configuration alone."""
    weights: list[Weights] = []
    if any(path.is_file() and is_weight(path.name) for path in folder.glob("*.safetensors")):
        _note_refusal(seen, lambda: weights.append(read_weights(folder, where)))
    for files, tensors in weights:
        seen.size_bytes = sum(path.stat().st_size for path in files)
        stored = classify(seen.config, hf_quant, tensors, where)
        seen.precision, seen.schemes, seen.parameters = stored.precision, stored.schemes, stored.parameters
        seen.weight_format, seen.kv_cache_dtype = stored.weight_format, stored.kv_cache_dtype
        seen.traits, seen.weight_only = stored.traits, stored.weight_only
        seen.problems += stored.remarks
        return
    stated = stated_format(seen.config, hf_quant, where)
    declared = stated.declared
    seen.precision, seen.weight_format = stated.precision, stated.weight_format
    precisions = [scheme.precision for scheme in declared.schemes] or [*filter(None, [stated.precision])]
    seen.schemes = dict.fromkeys(precisions)
    seen.kv_cache_dtype, seen.traits = declared.kv_cache_dtype, declared.traits
    seen.weight_only = any(scheme.weight_only for scheme in declared.schemes)
    seen.problems += [*declared.remarks, "the weights were not read: this is what the configuration says"]


class _Contents(NamedTuple):
    """Facts that a folder's files show without reading the weights."""

    config: dict[str, Any]
    format: Format
    weight_files: tuple[Path, ...]
    size_bytes: int
    remote_code: bool
    vocab_size: int


def inspect_configuration(
    where: str,
    declared: str | None,
    allow: Allowed,
    check_bytes: Callable[[int], None] | None,
    folder: Path,
    sizes: Mapping[str, int],
) -> None:
    """Check the configuration, and the bytes of the weights, before a download of hours.

    Raises:
        ConfigError: it needs code that isn't allowed, isn't what the user declared, or is too large.
    """
    config = read_json(folder / "config.json", where)
    _needs_code(folder, sizes, config, where, allow)
    hf_quant = read_json_if_any(folder / QUANT_FILE, where)
    stated = stated_format(config, hf_quant, where)
    if stated.precision is not None:
        _check_declared(declared, stated.precision, stated.weight_format, where)
    _architecture(config, where)
    if check_bytes:
        check_bytes(
            sum(size for name, size in sizes.items() if is_weight(name) and served_under(allow, name))
        )


def _read(folder: Path, where: str, declared: str | None, allow: Allowed) -> _Contents:
    """Check a folder and classify it.

    Raises:
        ConfigError: it can't be served, would run code that isn't allowed, or isn't what it declares or the user
            declared.
    """
    try:
        names = [path.name for path in folder.iterdir() if path.is_file()]
        check_listing(names, where, allow)
        config = read_json(folder / "config.json", where)
        remote_code = _needs_code(folder, names, config, where, allow)
        hf_quant = read_json_if_any(folder / QUANT_FILE, where)
        tensors: dict[str, Tensor] = {}
        pickled = not any(name.endswith(".safetensors") and is_served(name) for name in names)
        if pickled:
            files = tuple(folder / name for name in sorted(filter(is_pickled_weight, names)))
        else:
            files, tensors = read_weights(folder, where)
        size_bytes = sum(path.stat().st_size for path in files)
        if pickled:
            stored = classify_unread(config, hf_quant, size_bytes, where)
            Reporter.current().line(
                f"{where}: pickle weights are not opened here: {stored.precision} is what config.json says, and "
                f"{stored.parameters / 1e9:.2f} G parameters are estimated from {size_bytes / 1e9:.2f} GB"
            )
        else:
            stored = classify(config, hf_quant, tensors, where)
        _check_declared(declared, stored.precision, stored.weight_format, where)
    except OSError as error:
        raise _unreadable(error, where) from None
    return _Contents(config, stored, files, size_bytes, remote_code, _vocab_size(config, tensors, where))


def _unreadable(error: OSError, where: str) -> ConfigError:
    what = f"can't be read ({error.strerror or error})"
    return ConfigError(what, where=where, hint="Check the folder and its permissions.")


def _pinned(allow: Allowed | None, revision: str | None, where: str) -> Allowed:
    """Return what is allowed; it holds only for a commit that somebody has read."""
    allow = allow or Allowed()
    if (allow.pickle or allow.remote_code) and not re.fullmatch(SHA, revision or ""):
        raise ConfigError(
            "'allow' needs a commit: what runs code must not change under its name",
            where=where,
            hint="Give a hub id with the 40 digits of its commit as revision.",
        )
    return allow


def model_name(name: str) -> str:
    """Return the name that a model's checkpoints share: the last part, without its precision.

    A folder called after a precision only (``tiny/fp8``) goes by its parent.
    """
    for part in reversed(name.rstrip("/").split("/")):
        stripped = PRECISION_SUFFIX.sub("", f"-{part}").removeprefix("-")
        if stripped:
            return stripped
    return name


def _local_folder(source: str) -> Path | None:
    """Return the local folder that is meant, or None.

    Raises:
        ConfigError: the source is a file, or is empty.
    """
    if not source.strip():
        raise ConfigError("no checkpoint is named", hint="Give a folder or a hub id (org/name).")
    for path in (Path(os.path.expanduser(source)), ROOT / source):  # noqa: PTH111 - Path's raises without a home
        if os.path.isdir(path):  # noqa: PTH112 - false, not an error, for a name no file can have
            return path
        if os.path.isfile(path):  # noqa: PTH113
            raise ConfigError("is a file", where=source, hint="Give the folder it lies in.")
    return None


def _hub_id(source: str) -> tuple[str, str | None]:
    """Return repository and revision of a hub id.

    Raises:
        ConfigError: the source is no hub id.
    """
    identity = HUB_ID.fullmatch(source)
    if identity is None:
        raise _not_found(source)
    return identity["repo"], identity["revision"]


def _not_found(source: str) -> ConfigError:
    """Return the error for a source that is neither a folder nor a hub id, with the nearest folder's name."""
    typed = Path(source)
    for parent in (typed.parent, ROOT / typed.parent):
        near = difflib.get_close_matches(typed.name, (other.name for other in parent.glob("*/")), n=1)
        if near:
            return ConfigError(
                "no such folder", where=source, hint=f"Did you mean '{typed.with_name(near[0])}'?"
            )
    hint = "Give a folder that exists, or a hub id: org/name or org/name@revision."
    return ConfigError("neither a folder nor a hub id", where=source, hint=hint)


def _needs_code(
    folder: Path, names: Collection[str], config: Mapping[str, Any], where: str, allow: Allowed
) -> bool:
    """Return True if a checkpoint is served with its own code; a known architecture does without it.

    Raises:
        ConfigError: it needs code, which isn't allowed.
    """
    hint = "Give a conversion to an architecture the engine knows; or, once you have read the code, " + (
        "put it on a hub and allow its commit there: a folder has none."
        if is_folder(where)
        else "set `allow: {remote_code: true}` and a revision for it in configs/models."
    )
    if allow.remote_code:
        _check_own_code(folder, where)
        return True
    if config.get("auto_map"):
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
        from transformers import CONFIG_MAPPING

        kind = config.get("model_type")
        if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
            what = f"needs code of its own (auto_map in config.json, model_type '{kind}')"
            raise ConfigError(what, where=where, hint=hint)
    tokenizer = read_json_if_any(folder / "tokenizer_config.json", where) or {}
    if tokenizer.get("auto_map") and "tokenizer.json" not in names:
        what = "its tokenizer needs code of its own (auto_map in tokenizer_config.json)"
        raise ConfigError(what, where=where, hint="Convert it to tokenizer.json.")
    for name in PROCESSORS:
        processor = read_json_if_any(folder / name, where) or {}
        if processor.get("auto_map") and not _is_known_processor(processor):
            raise ConfigError(
                f"its processor needs code of its own (auto_map in {name})", where=where, hint=hint
            )
    return False


def _check_own_code(folder: Path, where: str) -> None:
    """Refuse permitted code that another repository holds: the permission is for one commit.

    Raises:
        ConfigError: a configuration names such code, as ``org/name--module.Class``.
    """
    for name in ("config.json", "tokenizer_config.json", *PROCESSORS):
        settings = read_json_if_any(folder / name, where) or {}
        if any("--" in str(section.get("auto_map")) for section in sections(settings)):
            raise ConfigError(
                f"{name} names code of another repository, which 'allow' doesn't permit",
                where=where,
                hint="Give a checkpoint that holds all of its code.",
            )


def _is_known_processor(processor: Mapping[str, Any]) -> bool:
    """Return True if the engine's library has a class that a processor's configuration names."""
    import transformers

    return not {value for key, value in processor.items() if key in _PROCESSOR_CLASSES}.isdisjoint(
        dir(transformers)
    )


def _check_declared(declared: str | None, precision: str, weight_format: str, where: str) -> None:
    """Refuse a precision that the user declared and the files don't have."""
    if declared is None or declared.lower() == precision:
        return
    if declared.lower() not in PRECISIONS:
        what = f"'{declared}' is not a precision"
        raise ConfigError(what, where=where, hint=f"Known: {', '.join(PRECISIONS)}.")
    what = f"declared as {declared.lower()}, but the files hold {precision} ({weight_format})"
    raise ConfigError(what, where=where, hint=f"Declare {precision}, or give another checkpoint.")


def _architecture(config: Mapping[str, Any], where: str) -> str:
    """Return the class name of the model."""
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        hint = 'Add it, e.g. ["LlamaForCausalLM"], or give a language model\'s checkpoint.'
        raise ConfigError("config.json names no 'architectures'", where=where, hint=hint)
    return names[0]


def _optional_number(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    """Return the first positive whole number under any of the keys, in config.json or its text_config."""
    stated = (section.get(key) for section in sections(config) for key in keys)
    return next((number for number in stated if type(number) is int and number > 0), None)


def _vocab_size(config: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> int:
    """Return the tokens of the vocabulary, padding included, from config.json or the embedding's rows.

    Gemma 3's config.json leaves it to its class.
    """
    stated = _optional_number(config, ("vocab_size",))
    rows = (tensor.shape[0] for name, tensor in tensors.items() if name.endswith(EMBEDDINGS) and tensor.shape)
    tokens = stated or next(rows, None)
    if tokens is None:
        raise ConfigError("config.json has no 'vocab_size'", where=where, hint="Add it to config.json.")
    return tokens
