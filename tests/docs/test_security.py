"""SECURITY.md: each promise names tests that exist, and the guards of it that have no other place."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from quantgate.model.home import ROOT
from tasks.checkpoint.resolve import resolve
from tasks.engine import server
from tasks.engine.environment import EngineEnvironment, load_engine
from tasks.progress import Reporter
from tests.support.tiny_checkpoints import checkpoint_files, write_checkpoint

PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
PROMISES = [line for line in PAGE.splitlines() if line.startswith("| **")]
LINK = re.compile(r"\[`(test_\w+)`\]\(([^)]+)\)")
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch"}
ROOMS = ("commands", "flows", "tasks", "warehouse", "quantgate")


@pytest.mark.parametrize("line", PROMISES, ids=lambda line: line.split("**")[1])
def test_each_promise_names_tests_that_exist(line: str) -> None:
    links = LINK.findall(line)
    assert links, "a promise without a test"
    for name, path in links:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (name, path)


def test_every_kind_of_promise_is_there_and_a_way_to_report() -> None:
    said = " ".join(line.split("**")[1].lower() for line in PROMISES)
    for subject in (
        "loopback",
        "secret",
        "safetensors",
        "code",
        "folder",
        "sql",
        "text",
        "containers",
        "audited",
    ):
        assert subject in said, subject
    assert "## Report a fault" in PAGE


def test_engines_listen_on_loopback_with_a_key_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StartedError(Exception):
        pass

    started: list[tuple[tuple[str, ...], dict[str, str]]] = []

    def tied(command: Any, *, log: Path, environment: dict[str, str]) -> None:
        started.append((command, environment))
        raise StartedError

    monkeypatch.setattr(server, "Tied", tied)
    checkpoint = resolve(str(write_checkpoint(tmp_path / "plain", checkpoint_files())))
    config = load_engine(None, "cpu")[1]
    environment = EngineEnvironment(name="x", config=config, python=Path("python"), version="0")
    for _ in range(2):
        engine = server.serve(
            checkpoint, environment, {}, log=tmp_path / "log", report=Reporter(lambda _: None)
        )
        with pytest.raises(StartedError), engine:
            pass
    keys = [variables[server.API_KEY_VARIABLE] for _, variables in started]
    assert keys[0] != keys[1]
    for (command, _), key in zip(started, keys, strict=True):
        assert command[command.index("--host") + 1] == "127.0.0.1"
        assert len(key) >= 32
        assert key not in " ".join(command)


def test_nothing_here_opens_a_pickle() -> None:
    opened = set()
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            loads_numpy = isinstance(node, ast.keyword) and node.arg == "allow_pickle"
            if loads_numpy or {name.split(".")[0] for name in names} & PICKLES:
                opened.add(path.relative_to(ROOT).as_posix())
    assert opened == set()
