"""Flips as a person reads them: in 100 columns, with the place where two answers part in sight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from quantgate.model.errors import ConfigError
from quantgate.model.text import inert
from tests.support.command import quantgate
from tests.support.demo_bundles import BUNDLES, manifests, warehouse
from warehouse.report.flips import around_difference, find_flips, flip_text


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warehouse(tmp_path_factory.mktemp("flips"))


def row(**changes: Any) -> dict[str, Any]:
    return {
        "direction": "worse",
        "task": "sums",
        "doc_id": "7",
        "doc_repeat": 0,
        "checkpoint": "toy-fp8",
        "prompt": "What is\n6 × 7?",
        "target": "42",
        "baseline_answer": "42",
        "candidate_answer": "43",
        "baseline_responses": json.dumps([["42"]]),
        "candidate_responses": json.dumps([["43"]]),
        "baseline_score": 1.0,
        "candidate_score": 0.0,
        "baseline_finish_reason": "stop",
        "candidate_finish_reason": "length",
        "baseline_output_tokens": 2,
        "candidate_output_tokens": 64,
    } | changes


def test_a_flip_is_a_block() -> None:
    assert flip_text(row()).splitlines() == [
        "worse: sums, document 7, toy-fp8",
        "prompt      What is",
        "            6 × 7?",
        "target      42",
        "baseline    42",
        "candidate   43",
        "score       1 (stop, 2 tokens) → 0 (length, 64 tokens)",
    ]


def test_of_long_answers_the_part_where_they_part_is_shown() -> None:
    shared = "so far both say the same thing, " * 40
    flip = row(
        prompt="few shots\n" * 50 + "the question",
        baseline_responses=json.dumps([[f"{shared}and then 42{' tail' * 50}"]]),
        candidate_responses=json.dumps([[f"{shared}and then 43{' tail' * 50}"]]),
    )
    lines = flip_text(flip).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[1].startswith("prompt      … few shots")
    assert lines[3].endswith("the question"), "a prompt's end holds the question"
    one, other = (line for line in lines if "said" in line)
    assert "and then 42 tail" in one
    assert "and then 43 tail" in other
    assert one.index("42") == other.index("43"), "the differences are aligned"


def test_choices_have_no_text_to_show() -> None:
    flip = row(
        baseline_responses="[[[-3.6, false]], [[-4.6, false]]]", candidate_responses="[[[-3.6, false]]]"
    )
    assert "said" not in flip_text(flip)


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300), st.integers(20, 90))
def test_what_differs_is_in_sight_and_the_room_is_kept(start: str, one: str, other: str, room: int) -> None:
    first, second = around_difference(start + one, start + other, room)
    assert max(cell_len(first), cell_len(second)) <= room
    assert first.isprintable()
    assert second.isprintable()
    plain_one, plain_other = inert(start + one), inert(start + other)
    narrow = all(cell_len(c) == 1 for c in plain_one + plain_other)
    if narrow and plain_one != plain_other:
        assert first != second


def test_flips_are_chosen(database: Path) -> None:
    everything, total = find_flips(database)
    assert everything.num_rows == total == 78 + 13 + 273
    task = "qg_demo_arithmetic"
    worse, of_them = find_flips(
        database, task=task, direction="worse", checkpoint="quantgate-demo-NVFP4", limit=3
    )
    assert worse.num_rows == 3 < of_them
    assert {(r["task"], r["direction"], r["precision"]) for r in worse.to_pylist()} == {
        (task, "worse", "nvfp4")
    }
    run_id = manifests()[1].run_id
    own, n = find_flips(database, run_id=run_id)
    assert set(own.column("run_id").to_pylist()) == {run_id}
    assert 0 < n < total
    assert own.column("direction").to_pylist()[0] == "worse"
    blocks = [flip_text(r) for r in everything.to_pylist()]
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 100
    for options, message in (
        ({"task": "qg_demo_arithmetics"}, "--task: nothing is called 'qg_demo_arithmetics'. Did you mean"),
        ({"run_id": "nope"}, "--run: nothing is called 'nope'."),
        ({"checkpoint": "quantgate-demo-FP9"}, "Did you mean 'quantgate-demo-FP8'?"),
    ):
        with pytest.raises(ConfigError) as error:
            find_flips(database, **options)
        assert message in str(error.value)


def test_the_command(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_HOME", str(database.parent))
    monkeypatch.setenv("QUANTGATE_BUNDLES", str(BUNDLES))
    done = quantgate("flips", "--direction", "worse", "--task", "qg_demo_chain", "--limit", "2")
    assert (done.status, done.err) == (0, "")
    assert done.out.count("worse: qg_demo_chain, document ") == 2
    assert done.out.count("\nbaseline    ") == done.out.count("\ncandidate   ") == 2
    assert done.out.splitlines()[-1].endswith("flips; --limit shows more")
    rows = json.loads(quantgate("flips", "--task", "qg_demo_cloze", "--format", "json").out)
    assert len(rows) == 13
    assert {"prompt", "target", "baseline_answer", "candidate_answer", "candidate_finish_reason"} <= set(
        rows[0]
    )
