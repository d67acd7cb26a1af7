"""No sentence that a person reads has the homemade words: pages, help, and messages in the code.

No name in the code is a word that says nothing of what it stands for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from commands.main import cli
from quantgate.model.home import ROOT
from tests.support.documentation import PAGES, text_of

WORDS = re.compile(
    r"""\b(
    mend(?:s|ed|ing)? | told | tells | (?:take|takes|taken|taking|took)\s+(?:up|over)
    | stands?\s+twice | on\s+(?:its|their)\s+way | bets | ladders? | A/A\s+controls
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)
ROOMS = ("commands", "flows", "tasks", "warehouse", "quantgate")
VAGUE = frozenset({"one", "found", "there", "here", "told", "place", "every"})
"""Words that are no names in source modules and views."""
EXEMPT = re.compile(r"`[^`\n]*`|\]\([^)]*\)|[\w*./-]+\.(?:md|py|sh|sql|yaml)\b|<!--.*?-->", re.DOTALL)
"""Names of files and public names: code spans, targets of links, paths, marks of tests."""


def offences(text: str) -> Iterator[tuple[int, str]]:
    """Line number and word of each offence; what is exempt is blanked, so that lines keep their numbers."""
    blanked = EXEMPT.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    for match in WORDS.finditer(blanked):
        yield blanked.count("\n", 0, match.start()) + 1, " ".join(match[0].split())


def test_the_words_are_found() -> None:
    text = (
        "Mend it.\nThe ladder\nwas told; it was taken\nover, as `bets` and [x](bets.md) say: a betting test."
    )
    assert list(offences(text)) == [(1, "Mend"), (2, "ladder"), (3, "told"), (3, "taken over")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_plain_words(page: Path) -> None:
    text = re.sub(r"```.*?```", lambda block: "\n" * block[0].count("\n"), text_of(page), flags=re.DOTALL)
    if page.name == "CONTRIBUTING.md":  # its glossary names the words
        text = text.split("## The words")[0]
    shown = page.relative_to(ROOT)
    found = [f"{shown}:{line}: {word}" for line, word in offences(text)]
    assert found == [], "\n".join(found)


def verbs(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, member in command.commands.items():
            yield from verbs(member, f"{path} {name}")


@pytest.mark.parametrize(("path", "command"), verbs(cli, "quantgate"))
def test_help_has_plain_words(path: str, command: click.Command) -> None:
    shown = command.get_help(click.Context(command, info_name=path))
    assert [f"{path} --help: {word}" for _, word in offences(shown)] == []


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each string that the code may print: no docstring, and no text of an attribute's."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
            yield node.lineno, node.value


def sql_messages(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each string literal of a file of SQL."""
    text = re.sub(r"--[^\n]*", lambda comment: " " * len(comment[0]), path.read_text(encoding="utf-8"))
    for match in re.finditer(r"'((?:[^']|'')*)'", text):
        yield text.count("\n", 0, match.start()) + 1, match[1]


def test_messages_have_plain_words() -> None:
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*")):
            read = {".py": messages, ".sql": sql_messages}.get(path.suffix)
            for line, text in read(path) if read else ():
                found += [
                    f"{path.relative_to(ROOT)}:{line}: {word}: {text[:90]!r}" for _, word in offences(text)
                ]
    assert found == [], "\n" + "\n".join(found)


def names(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of each variable, parameter, field, function and class that a module makes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name


def sql_names(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of each word of a file of SQL outside its strings and comments."""
    blank = re.compile(r"--[^\n]*|'(?:[^']|'')*'")
    text = blank.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), path.read_text(encoding="utf-8"))
    for match in re.finditer(r"\w+", text):
        yield text.count("\n", 0, match.start()) + 1, match[0]


def test_a_name_says_what_it_stands_for(tmp_path: Path) -> None:
    module, view = tmp_path / "module.py", tmp_path / "view.sql"
    module.write_text("def place(told):\n    one = told.found\n    return [every for every in one]\n")
    view.write_text("SELECT 'there' -- one\nAS found")
    read = {".py": names, ".sql": sql_names}
    made = [name for path in (module, view) for _, name in read[path.suffix](path) if name in VAGUE]
    assert sorted(made) == ["every", "found", "one", "place", "told"]
    vague = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for room in (*ROOMS, "benchmarks", "demo", "docs")
        for path in sorted((ROOT / room).rglob("*"))
        if path.suffix in read and "migrations" not in path.parts
        for line, name in read[path.suffix](path)
        if name in VAGUE
    ]
    assert vague == [], "\n".join(vague)
