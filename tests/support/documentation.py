"""Pages that people read, and the console commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from quantgate.model.home import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "decisions").glob("*.md")),
]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def commands_of(page: Path) -> Iterator[str]:
    """Each command of a page's console blocks, without its prompt and comment; an open quote joins lines."""
    for block in re.findall(r"```console\n(.*?)```", text_of(page), re.DOTALL):
        lines = iter(block.splitlines())
        for line in lines:
            if not line.startswith("$ "):
                continue
            command = line.removeprefix("$ ").split("  #")[0].rstrip()
            while command.count('"') % 2:
                command += "\n" + next(lines)
            yield command


def words_of(command: str) -> list[str]:
    """A command's words, without what is set for it alone and without the environment's folder."""
    words = shlex.split(command)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if words[:5] == ["docker", "compose", "run", "--rm", "cli"]:
        words = words[5:]
    return [words[0].removeprefix(".venv/bin/"), *words[1:]]


def named(command: str) -> str:
    """A command as a test's name."""
    return re.sub(r"\s+", " ", command)[:90]
