"""The benchmark of judging runs at a tiny size, and its result holds what docs/benchmarks.md quotes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from quantgate.model.config import ROOT


def test_every_candidate_is_judged_and_its_cost_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.judging", "--samples", "1500", "--runs", "15"]
    command += ["--repeats", "1", "--candidates", "2", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json", "result.md"], (
        "the data is deleted"
    )
    assert (tmp_path / "result.md").read_text() in done.stdout
    result = json.loads((tmp_path / "result.json").read_text())
    (shape,) = result["shapes"]
    (judged,) = shape["judge"]
    # 15 runs of 5 tasks of 20 documents; 5 of them are baselines of 2 candidates each
    assert (judged["samples"], judged["candidates"], judged["tasks"]) == (1500, 10, 50)
    assert sum(judged["verdicts"].values()) == 10
    assert {"judge_read", "judge_count", "judge_test", "all"} <= set(judged["seconds"])
    assert judged["peak_memory_bytes"] > 50e6
    assert len(judged["load_average"]) == 2
    for figures in result["figures"]:
        assert 0 < figures["exact_tests"] <= 10, "no more than there are distinct counts"
        assert figures["seconds"]["known"] < figures["seconds"]["new"]
