"""Read a checkpoint's folder: the files that are served, each one whole or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from quantgate.model.bounded import FILE_BYTES, RefusedError, named_path, parse_json, read_bytes
from quantgate.model.config.models import Allowed
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from tasks.checkpoint.safetensors import DOWNLOAD_HINT, Tensor, read_header

SERVED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
"""Files that an engine reads to serve a model: weights, configuration, tokenizer, chat template."""

NOT_SERVED = ("*/*", "consolidated*.safetensors", "adapter_model*.safetensors")
"""Files among them that it doesn't read: subfolders (original/, onnx/), the weights' second copy, adapters."""

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
"""Weights that can run code when they are loaded."""

PICKLES_SERVED = ("*.bin", "*.pt")
"""Pickles that an engine loads if they are allowed."""

TRAINING = ("training_args.bin", "optimizer.*", "scheduler.*", "scaler.*", "rng_state*", "*/*")
"""Files among them that a trainer leaves beside the weights."""

CODE = ("*.py",)
"""Code that a checkpoint brings with it, run only if that is allowed."""

PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
"""Configurations of what prepares images and sound, each of which may name code."""

TOKENIZERS = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("tekken.json",),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("*.tiktoken",),
    ("tiktoken.model",),
)
"""Sets of files any one of which is a tokenizer."""


class Weights(NamedTuple):
    """The weight files that are served and every tensor they hold, by name."""

    files: tuple[Path, ...]
    tensors: dict[str, Tensor]


def source_folders(source: str) -> tuple[Path, Path]:
    """Return where a checkpoint's local folder may lie: from the working directory, or from the project's root.

    Raises:
        ConfigError: no folder can have this name.
    """
    return named_path(source), ROOT / source


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return True if a path inside a repository matches any of the patterns."""
    return any(fnmatch(name, pattern) for pattern in patterns)


def is_served(name: str) -> bool:
    """Return True if serving needs a file, by its path inside the repository."""
    return matches(name, SERVED) and not matches(name, NOT_SERVED)


def served_patterns(allow: Allowed) -> tuple[str, ...]:
    """Return the patterns of the files that serving needs, with those that this checkpoint is allowed."""
    return SERVED + PICKLES_SERVED * allow.pickle + CODE * allow.remote_code


def served_under(allow: Allowed, name: str) -> bool:
    """Return True if serving needs a file, with those that this checkpoint is allowed."""
    return matches(name, served_patterns(allow)) and not matches(name, NOT_SERVED)


def is_pickled_weight(name: str) -> bool:
    """Return True if a file holds weights that can run code when they are loaded."""
    return matches(name, PICKLES_SERVED) and not matches(name, TRAINING)


def read_json(path: Path, where: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ConfigError: it can't be read, or holds something else.
    """
    try:
        value = parse_json(read_bytes(path))
    except RefusedError as error:
        what = f"{path.name} is not valid JSON ({f'line {error.line}' if error.line else error})"
        raise ConfigError(what, where=where, hint=DOWNLOAD_HINT) from None
    except OSError as error:
        raise ConfigError(
            f"{path.name} can't be read ({error.strerror})", where=where, hint=DOWNLOAD_HINT
        ) from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path.name} doesn't hold a JSON object", where=where, hint=DOWNLOAD_HINT)
    return value


def read_json_if_any(path: Path, where: str) -> dict[str, Any] | None:
    """Read a JSON file as `read_json` does; return None if there is no such file."""
    return read_json(path, where) if path.is_file() else None


def is_weight(name: str) -> bool:
    """Return True if a file holds weights of either kind."""
    return (name.endswith(".safetensors") and is_served(name)) or is_pickled_weight(name)


def check_listing(names: Iterable[str], where: str, allow: Allowed | None = None) -> None:
    """Refuse a checkpoint whose file names already show that it can't be served.

    Args:
        names: paths inside the repository or folder.
        where: the checkpoint as messages name it.
        allow: what this checkpoint may do that none may otherwise.

    Raises:
        ConfigError: no config.json, no safetensors (pickles or others instead), or no tokenizer.
    """
    names = set(names)
    served = {name for name in names if is_served(name)}
    if "config.json" not in served:
        hint = "Give the folder or repository that holds config.json, weights and tokenizer."
        raise ConfigError("no config.json", where=where, hint=hint)
    allowed = allow is not None and allow.pickle and any(map(is_pickled_weight, names))
    if not allowed and not any(name.endswith(".safetensors") for name in served):
        pickles = sorted(
            (name for name in names if matches(name, PICKLES)), key=lambda name: (name.count("/"), name)
        )
        if pickles:
            what = f"pickle weights only ({pickles[0]}), which can run code when they are loaded"
            hint = (
                "Convert them to safetensors: save_pretrained(…, safe_serialization=True); or set `allow: {pickle: "
                "true}` and a revision for it in configs/models."
            )
            raise ConfigError(what, where=where, hint=hint)
        raise ConfigError("no weights (*.safetensors)", where=where, hint="Export the model as safetensors.")
    for files in TOKENIZERS:
        if all(any(fnmatch(name, pattern) for name in served) for pattern in files):
            return
    hint = (
        "Put the base model's tokenizer files (tokenizer.json, tokenizer_config.json …) beside the weights."
    )
    raise ConfigError(
        "no tokenizer (tokenizer.json, tokenizer.model or a vocabulary)", where=where, hint=hint
    )


def read_weights(folder: Path, where: str) -> Weights:
    """Read the headers of the served weights: those in the index, or every safetensors file without an index.

    Raises:
        ConfigError: the index is malformed or names a file or tensor that isn't there; a file is truncated
            or damaged; a tensor is in two files.
    """
    index = folder / "model.safetensors.index.json"
    weight_map = _weight_map(index, where) if index.is_file() else {}
    files = [folder / shard for shard in sorted(set(weight_map.values()))]
    if not weight_map:
        files = sorted(path for path in folder.glob("*.safetensors") if is_served(path.name))
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        what = f"{len(missing)} of {len(files)} weight files missing: {', '.join(missing[:3])}"
        raise ConfigError(what, where=where, hint="Copy or download the missing ones.")
    tensors: dict[str, Tensor] = {}
    home: dict[str, str] = {}
    for path in files:
        for name, tensor in read_header(path, where).items():
            if name in tensors:
                what = f"tensor '{name}' is in {home[name]} and in {path.name}"
                raise ConfigError(what, where=where, hint="Remove the file that isn't the checkpoint's.")
            tensors[name] = tensor
            home[name] = path.name
    for name, shard in weight_map.items():
        if home.get(name) != shard:
            what = f"{index.name} names tensor '{name}', which {shard} doesn't hold"
            raise ConfigError(what, where=where, hint=DOWNLOAD_HINT)
    if not tensors:
        raise ConfigError("the weight files hold no tensors", where=where, hint=DOWNLOAD_HINT)
    return Weights(tuple(files), tensors)


def _weight_map(index: Path, where: str) -> dict[str, str]:
    """Return the weight file of each tensor, from an index."""
    weight_map = read_json(index, where).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ConfigError(f"{index.name} has no 'weight_map'", where=where, hint=DOWNLOAD_HINT)
    for shard in weight_map.values():
        if not isinstance(shard, str) or "/" in shard or not shard.endswith(".safetensors"):
            what = f"{index.name} names {str(shard)[:60]!r}, which is no safetensors file beside it"
            raise ConfigError(what, where=where, hint=DOWNLOAD_HINT)
    return weight_map


def content_hash(
    folder: Path, weights: Iterable[Path], progress: Callable[[int, int], None] | None = None
) -> str:
    """Return the hash of what is served: SHA-256 over the sorted lines ``name size sha256`` of the served files.

    Args:
        folder: the checkpoint's folder.
        weights: the weight files that are served (others in the folder don't count).
        progress: called with (bytes hashed, bytes in all) after each 16 MiB.

    Returns:
        ``sha256:`` and 64 hex digits; the same for the same names and bytes wherever the folder lies.
    """
    chosen = {path.name: path for path in weights}
    for path in folder.iterdir():
        if path.is_file() and is_served(path.name) and path.suffix != ".safetensors":
            if path.stat().st_size > FILE_BYTES:
                what = f"{path.name} is larger than {FILE_BYTES >> 20} MiB"
                raise ConfigError(what, where=str(folder), hint="Remove it: no engine reads such a file.")
            chosen[path.name] = path
    total_bytes = sum(path.stat().st_size for path in chosen.values())
    done_bytes = 0
    lines = []
    for name in sorted(chosen):
        digest = hashlib.sha256()
        size_bytes = 0
        with chosen[name].open("rb") as file:
            while chunk := file.read(1 << 24):
                digest.update(chunk)
                size_bytes += len(chunk)
                done_bytes += len(chunk)
                if progress:
                    progress(done_bytes, total_bytes)
        lines.append(f"{name} {size_bytes} {digest.hexdigest()}\n")
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()
