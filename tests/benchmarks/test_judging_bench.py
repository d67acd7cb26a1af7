"""The benchmark of judging runs at a tiny size, and its result holds what docs/benchmarks.md quotes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.judging import DOCUMENTS, main


def test_every_candidate_is_judged_and_its_cost_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--samples", "1500", "--runs", "15", "--repeats", "1", "--candidates", "2"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json", "result.md"], (
        "the data is deleted"
    )
    assert (tmp_path / "result.md").read_text() in capfd.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    (shape,) = result["shapes"]
    (judged,) = shape["judge"]
    # 15 runs of 5 tasks of 20 documents; 5 of them are baselines of 2 candidates each
    assert (judged["samples"], judged["candidates"], judged["tasks"]) == (1500, 10, 50)
    assert sum(judged["verdicts"].values()) == 10
    assert {"judge_read", "judge_count", "judge_test", "all"} <= set(judged["seconds"])
    assert judged["peak_memory_bytes"] > 50e6
    assert len(judged["load_average"]) == 2
    assert [found["documents"] for found in result["figures"]["tests"]] == list(DOCUMENTS)
    for found in result["figures"]["tests"]:
        assert 0 < found["exact_tests"] <= 10, "no more than there are distinct counts"
        assert {"new", "known"} == set(found["seconds"])
