"""Identify a checkpoint by its content: by its tensors, however they are named as files, and by its settings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from quantgate.bundles.staging import write_json
from quantgate.model.records import Checkpoint
from quantgate.model.yaml_file import Strict, fingerprint_of, load_json
from tasks.checkpoint.files import CODE, read_json_if_any, read_weights
from tasks.checkpoint.safetensors import Span, Tensor, read_spans

_CHUNK_BYTES = 1 << 24
_SAMPLED_TENSORS, _SAMPLES_EACH = 128, 8
_SETTINGS = ("config.json", "generation_config.json")
_COMMENTS = ("comment", "note", "description", "license", "transformers_version")
"""Parts of a key's name that say that nobody serves by its value."""


class Contents(Strict):
    """A checkpoint's content, as hashes that no name and no split into files changes."""

    weights_sha256: str | None = Field(description="Of the tensors; None where they were not read.")
    settings_sha256: str = Field(
        description="Of config.json and generation_config.json, without comments, and of code that is permitted."
    )
    weights_sample: str = Field(description="Bytes of elements drawn by the tensors' names, hexadecimal.")


class _Stored(NamedTuple):
    """A tensor and where its bytes lie."""

    name: str
    tensor: Tensor
    file: Path
    span: Span

    @property
    def size_bytes(self) -> int:
        """Return the bytes that it takes."""
        return self.span.end - self.span.begin


def contents_of(
    checkpoint: Checkpoint, cache: Path, progress: Callable[[int, int], None] | None = None
) -> Contents:
    """Read a checkpoint's content; of a revision that was read before, what was found then.

    Args:
        checkpoint: resolved; its revision fixes its files.
        cache: folder that keeps a small file for each revision.
        progress: called with (bytes hashed, bytes in all).

    Raises:
        ConfigError: a file is damaged.
    """
    identity: Any = [checkpoint.revision, "with code"] if checkpoint.remote_code else checkpoint.revision
    file = cache / f"{fingerprint_of(identity)[:32]}.json"
    if file.exists():
        return load_json(file, Contents, "Remove it: it is made again.")
    folder = Path(checkpoint.path)
    stored = sorted(_tensors(folder, checkpoint.source))
    contents = Contents(
        weights_sha256=_tensors_hash(stored, progress) if stored else None,
        settings_sha256=fingerprint_of(
            [_without_comments(read_json_if_any(folder / name, checkpoint.source)) for name in _SETTINGS]
            + (_code(folder) if checkpoint.remote_code else [])
        ),
        weights_sample=_sample(stored),
    )
    write_json(file, contents.model_dump(mode="json"))
    return contents


def share_alike(first: str, second: str) -> float:
    """Return the share of two samples' elements that are the same, 0 to 1, of the sample with fewer.

    Their tensors are aligned in order, so that one that was added, and that nothing may use, moves no other.
    """
    if first == second:
        return float(bool(first))
    rows, columns = (
        np.frombuffer(bytes.fromhex(sample), np.uint8).reshape(-1, _SAMPLES_EACH)
        for sample in (first, second)
    )
    if not len(rows) or not len(columns):
        return 0.0
    best = np.zeros(len(columns) + 1, np.int64)
    for row in rows:
        alike = (row == columns).sum(axis=1)
        best[1:] = np.maximum.accumulate(np.maximum(best[1:], best[:-1] + alike))
    return int(best[-1]) / (_SAMPLES_EACH * min(len(rows), len(columns)))


def _tensors(folder: Path, where: str) -> Iterator[_Stored]:
    """Yield the tensors of the weights that are served; none where they are not safetensors."""
    if not any(folder.glob("*.safetensors")):
        return
    for path in read_weights(folder, where)[0]:
        for name, (tensor, span) in read_spans(path, where).items():
            yield _Stored(name, tensor, path, span)


def _tensors_hash(stored: list[_Stored], progress: Callable[[int, int], None] | None) -> str:
    """Return the SHA-256 over sorted lines ``name dtype shape sha256`` of the tensors."""
    total_bytes, done_bytes = sum(tensor.size_bytes for tensor in stored), 0
    digest = hashlib.sha256()
    for name, tensor, path, span in stored:
        content = hashlib.sha256()
        with path.open("rb") as file:
            file.seek(span.begin)
            left = span.end - span.begin
            while left:
                chunk = file.read(min(left, _CHUNK_BYTES))
                content.update(chunk)
                left -= len(chunk)
                done_bytes += len(chunk)
                if progress:
                    progress(done_bytes, total_bytes)
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} {content.hexdigest()}\n".encode())
    return digest.hexdigest()


def _sample(stored: list[_Stored]) -> str:
    """Return bytes of the largest tensors, drawn by their names: they show whether two checkpoints are nearly one."""
    largest = sorted(stored, key=lambda tensor: (-tensor.size_bytes, tensor.name))[:_SAMPLED_TENSORS]
    drawn = bytearray()
    for tensor in largest:
        with tensor.file.open("rb") as file:
            for number in range(_SAMPLES_EACH):
                offset = int(hashlib.sha256(f"{tensor.name} {number}".encode()).hexdigest(), 16)
                file.seek(tensor.span.begin + offset % max(1, tensor.size_bytes))
                drawn += file.read(1)
    return drawn.hex()


def _code(folder: Path) -> list[dict[str, str]]:
    """Return the SHA-256 of each file of code by its name: code that runs decides answers as settings do."""
    files = (path for pattern in CODE for path in folder.glob(pattern))
    return [{path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}]


def _without_comments(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_comments(item)
            for key, item in value.items()
            if not key.startswith("_") and not any(word in key.lower() for word in _COMMENTS)
        }
    return value
