"""The fixed text in a run on the stub engine: asked once a start, once more for the A/A, again where it has changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.planning import request
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.home import Home
from tasks.fidelity import text as fidelity_text
from tasks.run import ActiveRun
from tests.support import flow_runs
from tests.support.stub_runs import ARITHMETIC, StubRuns, stub_runs  # noqa: F401 - a fixture
from tests.tasks.resume.test_aa_repeat import answered, few
from warehouse.load import load_bundles
from warehouse.query import query

ROWS = """
    SELECT run_id, baseline_run_id, text, tokens, coverage, k, kl_mean_nats, top1_agreement, perplexity_ratio, alarms
    FROM fidelity
"""


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short default text of the test's own; lm-eval is left out."""

    def answers(engine: Any, run: ActiveRun, task: Any) -> None:
        answered(run.staging, task.task, start_id=engine.start.engine_start_id)

    monkeypatch.setattr(flow_runs, "STEPS", replace(flow_runs.STEPS, evaluate=answers))
    file = tmp_path / "short.jsonl"
    file.write_text('{"prompt": "compute 1 + 2 =", "answer": " 3"}\n{"answer": "user : hello"}\n')
    monkeypatch.setattr(fidelity_text, "DEFAULT_TEXT", str(file))
    return file


def test_a_run_holds_the_text_once_and_of_another_start_once_more(
    stub_runs: StubRuns,  # noqa: F811 - first, since it sets the steps that the text's fixture replaces
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request, "load_policy", lambda _: few())
    manifest = stub_runs.baseline(limit=24)
    told = manifest.fidelity
    assert told is not None
    assert (told.tokens, told.k, told.vocab_size, told.skipped) == (3, 256, 256, "")
    rows = pq.read_table(Path(Home.current().bundles) / manifest.run_id / "fidelity.parquet")
    starts = [start.engine_start_id for start in manifest.engine_starts]
    assert rows["engine_start_id"].to_pylist() == [starts[0]] * 3 + [starts[1]] * 3
    assert told.engine_start_id == starts[0]
    for start in manifest.engine_starts:
        assert start.command[start.command.index("--max-logprobs") + 1] == "256"
    assert "max-logprobs" not in manifest.inputs.serving["arguments"], "it is no part of the fingerprint"

    home = Home.current()
    assert load_bundles(home.warehouse, home.bundles).problems == ()
    (row,) = query(home.warehouse, ROWS).to_pylist()
    assert row["run_id"] == row["baseline_run_id"] == manifest.run_id
    assert (row["tokens"], row["coverage"], row["text"]) == (3, "whole", told.text_id)
    # The stub thinks the same after a restart, and so does the real engine on a CPU.
    assert (row["kl_mean_nats"], row["top1_agreement"], row["perplexity_ratio"]) == (0, 1, 1)
    assert row["alarms"] == []


def test_a_text_that_changed_on_the_way_is_asked_anew_and_one_that_is_done_is_not(
    stub_runs: StubRuns,  # noqa: F811 - first, since it sets the steps that the text's fixture replaces
    text: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ends(*_: object) -> None:
        raise RunError("killed in load")

    def told() -> list[str]:
        return [line for line in stub_runs.lines if line.endswith("fidelity …")]

    known = flow_runs.STEPS
    monkeypatch.setattr(flow_runs, "STEPS", replace(known, load=ends))
    for _ in range(2):
        with pytest.raises(RunError, match="killed in load"):
            stub_runs.baseline(limit=24)
    assert len(told()) == 1
    text.write_text('{"answer": "user : hello , bot"}\n')
    monkeypatch.setattr(flow_runs, "STEPS", known)
    manifest = stub_runs.baseline(limit=24)
    assert len(told()) == 2
    assert manifest.fidelity is not None
    assert manifest.fidelity.tokens == 4
    text.write_text('{"answer": "user : hello"}\n')
    assert stub_runs.baseline(limit=24) == manifest, "another text alone measures nothing anew"
    assert (
        f"its fidelity was measured on {manifest.fidelity.text_id}, not on short.jsonl@"
        in stub_runs.lines[-1]
    )


def test_a_text_that_cannot_be_read_is_told_before_an_engine_starts(
    stub_runs: StubRuns,  # noqa: F811
    text: Path,
) -> None:
    suite = text.with_name("suite.yaml")
    suite.write_text(
        "name: mine\nfidelity: none.txt\ntasks:\n"
        f"  - {{task: qg_demo_arithmetic, path: {Path(ARITHMETIC).parent}, family: math}}\n"
    )
    with pytest.raises(ConfigError, match=r"fidelity text none\.txt: can't be read .*suite 'mine'"):
        stub_runs.baseline(tasks=str(suite))
    assert stub_runs.lines == []
