"""The fixed text on which candidates are compared with their baseline, token by token."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from quantgate.model.bounded import named_path, parse_json, read_bytes, reason
from quantgate.model.config.suites import Suite
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import Strict, parse_record

DEFAULT_TEXT = "configs/fidelity/plain.txt"
HASH_DIGITS = 12


class Passage(Strict):
    """A prompt and what follows it; the tokens of the answer alone count."""

    prompt: str = ""
    answer: str


@dataclass(frozen=True)
class Text:
    """A text and its name: figures of different texts are never compared."""

    text_id: str
    """The file's name and the beginning of its SHA-256."""
    passages: tuple[Passage, ...]


class Window(NamedTuple):
    """Tokens of a passage that are asked at once, from ``start`` to ``end``; those from ``scored`` on count."""

    start: int
    scored: int
    end: int


def read_text(suite: Suite) -> Text:
    """Read the text of a suite: its own, or `DEFAULT_TEXT`.

    A ``.jsonl`` holds a passage a line, ``{"prompt": …, "answer": …}``, whose answer goes on where the prompt ends,
    with its leading space if it has one. Any other file is plain text, and all of it counts.

    Args:
        suite: names the file, from the root.

    Raises:
        ConfigError: it is not there, is empty, is not UTF-8, or a line is no passage.
    """
    named = suite.fidelity or DEFAULT_TEXT
    path, where = ROOT / named_path(named), f"fidelity text {named}"
    try:
        content = read_bytes(path)
        written = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = f"Correct 'fidelity' of suite '{suite.name}': a text file in UTF-8."
        raise ConfigError(f"can't be read ({reason(error)})", where=where, hint=hint) from None
    passages = tuple(_passages(written, where)) if path.suffix == ".jsonl" else (Passage(answer=written),)
    if not any(passage.answer.strip() for passage in passages):
        raise ConfigError("holds no text", where=where, hint="Give it some, a few thousand words.")
    return Text(f"{path.name}@{hashlib.sha256(content).hexdigest()[:HASH_DIGITS]}", passages)


def _passages(written: str, where: str) -> Iterator[Passage]:
    for number, line in enumerate(written.splitlines(), 1):
        if not line.strip():
            continue
        try:
            passage = parse_json(line)
        except ValueError as error:
            hint = "Put one JSON object on each line."
            raise ConfigError(f"is not JSON: {error}", where=f"{where}:{number}", hint=hint) from None
        yield parse_record(Passage, passage, f"{where}:{number}")


def windows(length: int, first: int, size: int) -> Iterator[Window]:
    """Cut a passage into windows for the engine, so that each token counts once.

    A window overlaps the one before by a quarter, so that every token has others before it.

    Args:
        length: tokens of the passage.
        first: index of the first token that counts.
        size: most tokens of a window, 2 at least.
    """
    start, scored = 0, first
    while scored < length:
        end = min(start + size, length)
        if end > scored:
            yield Window(start, scored, end)
            scored = end
        start = end - max(size // 4, 1)
