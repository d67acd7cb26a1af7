"""Nothing that is given to the command ends it otherwise than with status 0, 1, 2 or 3 and a line of its own.

``make fuzz`` tries more of the same, EXAMPLES=2000 of each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands.options import _pairs
from quantgate.bundles.manifest import parse_manifest
from quantgate.model.bounded import FileLoader, PlainLoader, RefusedError, ValueLoader, parse_json, parse_yaml
from quantgate.model.errors import QuantgateError
from quantgate.model.home import ROOT
from tasks.checkpoint.safetensors import read_spans
from tasks.quality.jsonl import read_documents
from tests.fuzz.command_lines import VERBS, words
from tests.fuzz.entry import command
from tests.fuzz.inputs import KINDS, warehouse
from tests.fuzz.junk import JSON_TEXTS, MUTATIONS, YAML_LINES
from warehouse.prices.offer_file import read_lines

MORE = int(os.environ.get("FUZZ_EXAMPLES", "0"))
IN_CHILDREN = ("samples of a bundle", "safetensors", "warehouse")
"""Kinds whose parsers are not Python's: one that crashes would end the tests."""
RANDOM = st.integers(0, 1 << 32).map(Random)


def examples(default: int) -> Any:
    """Return the settings of so many examples; none is kept for the next time."""
    return settings(
        max_examples=MORE or default, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize("name", sorted(KINDS.keys() - set(IN_CHILDREN)))
@examples(4)
@given(data=st.data(), random=RANDOM)
def test_no_content_of_a_file_stops_the_command(name: str, data: st.DataObject, random: Random) -> None:
    mutation = data.draw(st.sampled_from(KINDS[name].mutations))
    with tempfile.TemporaryDirectory() as folder:
        line, environment = KINDS[name].write(Path(folder), mutation, random)
        ended = command(line, {"QUANTGATE_HOME": f"{folder}/home", "HF_HUB_OFFLINE": "1"} | environment)
    assert not ended.fault


@pytest.mark.parametrize("verb", VERBS)
@examples(4)
@given(random=RANDOM)
def test_no_command_line_stops_the_command(verb: str, random: Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "warehouse.duckdb").write_bytes(warehouse())
        ended = command(words(verb, random), {"QUANTGATE_HOME": folder, "HF_HUB_OFFLINE": "1"})
    assert not ended.fault


@pytest.mark.parametrize("kind", IN_CHILDREN)
def test_no_binary_file_crashes_the_command(kind: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.campaign", "2", "--only", kind, "--most", str(MORE or 5)],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"| {kind} |" in done.stdout


def refusal(read: Callable[[], object]) -> str | None:
    """Return what a refusal says; None if there is none. Any other error is a fault."""
    try:
        read()
    except (RefusedError, QuantgateError) as error:
        return str(error)
    return None


SYNTAX = st.text(
    st.sampled_from("[]{}:,-?&*!|>%@`\"'#\\ \n\t<=~.0123456789abcxeE+_\0\ufeff\u2028"), max_size=80
)
YAML = st.one_of(
    SYNTAX, st.text(max_size=80), st.lists(st.sampled_from(YAML_LINES), max_size=4).map("\n".join)
)
JSON = st.one_of(SYNTAX, st.text(max_size=80), st.sampled_from(JSON_TEXTS))


@pytest.mark.parametrize("loader", [FileLoader, ValueLoader, PlainLoader], ids=lambda loader: loader.__name__)
@examples(200)
@given(text=YAML)
def test_yaml_is_read_or_refused(loader: Any, text: str) -> None:
    assert refusal(lambda: parse_yaml(text, loader)) != ""


@examples(200)
@given(text=JSON)
def test_json_is_read_or_refused(text: str) -> None:
    assert refusal(lambda: parse_json(text)) != ""


@examples(200)
@given(text=YAML.map(lambda text: f"a={text}"))
def test_an_engine_argument_is_read_or_refused(text: str) -> None:
    class Option:
        opts = ("--engine-arg",)

    said = refusal(lambda: _pairs(None, Option, (text,)))  # type: ignore[arg-type]
    assert said is None or said.startswith("--engine-arg: 'a' is a value that is not read")


@pytest.mark.parametrize(
    ("kind", "name", "parse"),
    [
        ("safetensors", "x.safetensors", lambda path: read_spans(path, "x")),
        ("manifest of a bundle", "manifest.json", lambda path: parse_manifest(path.read_bytes(), "x")),
        ("documents", "x.jsonl", read_documents),
        ("prices, CSV", "x.csv", read_lines),
        ("prices, JSON", "x.json", read_lines),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
@examples(60)
@given(data=st.data(), random=RANDOM)
def test_a_parser_reads_or_refuses(
    made: Path, kind: str, name: str, parse: Any, data: st.DataObject, random: Random
) -> None:
    mutations = MUTATIONS[KINDS[kind].form]
    content = mutations[data.draw(st.sampled_from(sorted(mutations)))](KINDS[kind].seed(), random)
    (made / name).write_bytes(content)
    assert "\n" not in (refusal(lambda: parse(made / name)) or "")
