"""The fixed text: what is in it, what is refused, and how it is cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.fidelity import text as demo_text
from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import load_yaml
from tasks.fidelity.text import DEFAULT_TEXT, Passage, read_text, windows


def suite(fidelity: str | Path | None = None) -> Suite:
    return Suite(name="s", tasks=(SuiteTask(task="x"),), fidelity=None if fidelity is None else str(fidelity))


def test_a_suite_that_names_none_has_the_default() -> None:
    text = read_text(suite())
    assert text == read_text(suite(DEFAULT_TEXT))
    assert text.text_id.startswith("plain.txt@")
    assert len(text.passages) == 1
    assert text.passages[0].prompt == ""
    assert 1500 <= len(text.passages[0].answer.split()) <= 2500


def test_the_demos_text_is_what_its_script_writes_and_its_tasks_ask() -> None:
    assert (ROOT / "demo" / "fidelity.jsonl").read_text() == demo_text()
    text = read_text(load_yaml(ROOT / "configs" / "suites" / "demo.yaml", Suite))
    asked = {
        json.loads(line)["prompt"]
        for file in (ROOT / "demo" / "tasks").glob("*.jsonl")
        for line in file.read_text().splitlines()
    }
    assert {passage.prompt for passage in text.passages} < asked
    assert all(passage.answer.startswith(" ") for passage in text.passages)


def test_another_content_is_another_text(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("one text")
    first = read_text(suite(file))
    file.write_text("another text")
    second = read_text(suite(file))
    assert first.text_id != second.text_id
    assert {first.text_id.split("@")[0], second.text_id.split("@")[0]} == {"mine.txt"}


def test_a_passage_a_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "2 + 2 =", "answer": " 4"}\n\n{"answer": "So it is."}\n')
    assert read_text(suite(file)).passages == (
        Passage(prompt="2 + 2 =", answer=" 4"),
        Passage(prompt="", answer="So it is."),
    )


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"  \n", "holds no text"),
        ("a.txt", b"\xff\xfe", "can't be read"),
        ("a.jsonl", b"", "holds no text"),
        ("a.jsonl", b'{"prompt": "x", "answer": ""}', "holds no text"),
        ("a.jsonl", b'{"answer": "x"}\nnot JSON\n', r"a\.jsonl:2: is not JSON"),
        ("a.jsonl", b'{"prompt": "x", "anser": "y"}', "unknown key 'anser'. Did you mean 'answer'"),
        ("a.jsonl", b'["x"]', "expected a mapping"),
    ],
)
def test_what_is_no_text_is_told_in_one_line(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=told) as raised:
        read_text(suite(tmp_path / name))
    assert "\n" not in str(raised.value)
    assert name in str(raised.value)


def test_a_text_that_is_not_there_names_its_suite(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fidelity text .*none\.txt: can't be read .*suite 's'"):
        read_text(suite(tmp_path / "none.txt"))


@given(st.integers(1, 500), st.integers(0, 80), st.integers(2, 64))
def test_each_token_that_counts_counts_once_and_has_what_comes_before_it(
    length: int, first: int, size: int
) -> None:
    found = list(windows(length, first, size))
    assert [i for w in found for i in range(w.scored, w.end)] == list(range(first, length))
    for window in found:
        assert 0 < window.end - window.start <= size
        assert window.start == 0 or window.scored - window.start >= max(size // 4, 1)
