"""What others wrote is refused before it costs memory, time or a crash, and in a few words."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from quantgate.model import bounded
from quantgate.model.bounded import (
    DEPTH,
    PlainLoader,
    RefusedError,
    TooMuchError,
    ValueLoader,
    named_path,
    parse_json,
    parse_yaml,
    read_bytes,
    read_text,
)
from quantgate.model.errors import ConfigError

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: b\nday: 2026-02-30", 2, "'2026-02-30' is no timestamp"),
        ("? [a]: b", 1, "a key is neither text nor a number"),
        ("a: b\na: c", 2, "key 'a' is listed twice"),
        ("a: b\n<<: {c: d}", 2, "'<<' is not read here"),
        ("a: !!python/name:os.sep ''", 1, "could not determine a constructor"),
        ("a: !!int x", 1, "'x' is no int"),
        ("a: !<tag:%C3%28> b", 1, "can't decode byte"),
        ("a: 1" + "0" * 5000, 1, "is no int"),
        ("a: 1" + "0" * 30, 1, "a number is too large"),
        ("a: .nan", 1, "nan is not finite"),
        ("a: *nowhere", 1, "found undefined alias"),
        ("a: [b", 1, "expected ',' or ']'"),
        ("---\na: b\n---\na: c", 3, "another document"),
    ],
)
def test_yaml_that_is_refused_names_its_line(text: str, line: int, problem: str) -> None:
    with pytest.raises(RefusedError) as raised:
        parse_yaml(text)
    assert problem in str(raised.value)
    assert raised.value.line == line


@pytest.mark.parametrize("loader", [bounded.FileLoader, ValueLoader, PlainLoader])
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "stands for more than"),
        ("a: &a [*a]", "'a' contains itself"),
        ("a: &a {<<: *a}", "'a' contains itself"),
        ("? " * 20_000, f"nested more than {DEPTH} deep"),
        ("[" * 100_000, f"nested more than {DEPTH} deep"),
        ("- " * 20_000, f"nested more than {DEPTH} deep"),
    ],
    ids=["bomb", "loop", "merged loop", "keys", "brackets", "dashes"],
)
def test_yaml_beyond_a_bound_is_never_built(loader: object, text: str, problem: str) -> None:
    with pytest.raises(TooMuchError, match=problem.replace("[", r"\[")):
        parse_yaml(text, loader)


def test_numbers_of_old_yaml_are_texts() -> None:
    assert parse_yaml("[12:30, 010, 0x1F, 1_000, 190:20:30.15, 1.5]") == [
        "12:30",
        "010",
        31,
        1000,
        "190:20:30.15",
        1.5,
    ]
    assert parse_yaml("2026-01-31", ValueLoader) == "2026-01-31"


def test_a_task_of_lm_eval_means_what_lm_eval_reads() -> None:
    assert parse_yaml("a: &x {b: 1}\nc: {<<: *x}\nc: {<<: *x, d: 010}", PlainLoader)["c"] == {"b": 1, "d": 8}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, f"nested more than {DEPTH} deep"),
        ("[" * (DEPTH + 1) + "]" * (DEPTH + 1), f"nested more than {DEPTH} deep"),
        ('{"a": 1' + "0" * 400 + "}", "a number of 401 digits"),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        (b"\xff\xfe{\0}\0", "not UTF-8"),
        ('{"a": }', "Expecting value"),
    ],
)
def test_json_that_is_refused(text: str | bytes, problem: str) -> None:
    with pytest.raises(RefusedError, match=problem):
        parse_json(text)


def test_json_that_is_read() -> None:
    assert parse_json('{"a": [1' + "0" * 30 + ', "\\ud83d\\ude00"]}') == {"a": [10**30, "😀"]}
    deep = "[" * DEPTH + "]" * DEPTH
    assert parse_json(deep) is not None


def test_the_column_of_a_fault_is_kept() -> None:
    with pytest.raises(RefusedError) as raised:
        parse_json('{"a": 1\n "b"')
    assert (raised.value.line, raised.value.column) == (2, 2)


@pytest.mark.parametrize(
    ("prepare", "problem"),
    [
        (os.mkfifo, "Not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "Not a regular file"),
        (lambda path: path.symlink_to(path.name), "symbolic links"),
        (Path.mkdir, "Is a directory"),
        (lambda path: path.write_bytes(bytes(5000)), "Larger than"),
    ],
    ids=["pipe", "device", "loop", "folder", "large"],
)
def test_what_is_no_file_of_a_right_size_is_not_read(
    tmp_path: Path, prepare: Callable[[Path], object], problem: str
) -> None:
    prepare(tmp_path / "x")
    with pytest.raises(OSError, match=problem):
        read_bytes(tmp_path / "x", 4096)


def test_a_file_is_read_as_text(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes("a\r\né".encode())
    assert read_text(tmp_path / "x", 5) == "a\né"


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b", "a" * 300, "a/" * 3000])
def test_a_name_that_no_file_can_have(name: str) -> None:
    with pytest.raises(ConfigError, match="Give the path of a file"):
        named_path(name)
    with pytest.raises(OSError, match="name"):
        read_bytes(Path(name))


def test_a_user_that_is_unknown_is_a_name_like_any(tmp_path: Path) -> None:
    assert named_path("~nobody-here/x") == Path("~nobody-here/x")
