"""docs/troubleshooting.md quotes messages that the code prints."""

from __future__ import annotations

import ast
import re

import pytest

from quantgate.model.home import ROOT

ROOMS = ("commands", "flows", "tasks", "warehouse", "quantgate")
MESSAGES = re.findall(r"^### `(.*)`$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def strings() -> str:
    """Every string constant of the code, those of f-strings between their placeholders."""
    trees = (ast.parse(path.read_text()) for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    nodes = (node for tree in trees for node in ast.walk(tree))
    return "\n".join(n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))


def test_there_are_messages() -> None:
    assert len(MESSAGES) >= 25


@pytest.mark.parametrize("message", MESSAGES)
def test_the_code_prints_it(message: str, strings: str) -> None:
    parts = [part.strip() for part in message.split("…")]
    assert [part for part in parts if part not in strings] == []
    assert max(map(len, parts)) >= 10, "too little of it is fixed"
