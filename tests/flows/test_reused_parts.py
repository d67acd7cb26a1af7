"""Validations on the stub engine under another policy or suite: what its engine is asked a second time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.planning import request
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.schema import SAMPLES
from quantgate.bundles.staging import write_json
from quantgate.model.home import Home
from tasks.run import STEPS, ActiveRun
from tests.support import flow_runs
from tests.support.stub_runs import ARITHMETIC, BF16, NVFP4, StubRuns, stub_runs  # noqa: F401 - a fixture
from tests.tasks.resume.test_aa_repeat import answered, few
from warehouse.load import load_bundles
from warehouse.query import query

CHAIN = str(Path(ARITHMETIC).with_name("chain.yaml"))
GIVEN = {"baseline": BF16, "candidates": [NVFP4], "workload": "demo", "concurrency": [1, 2], "limit": 24}


class Asked:
    """What the engine was asked, in order: ``fidelity``, ``load`` or a task."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def steps(self) -> flow_runs.run.Steps:
        """The flow's own steps, each noted; lm-eval is left out."""

        def evaluate(engine: Any, run: ActiveRun, task: Any) -> None:
            self.parts.append(task.task)
            answered(run.staging, task.task, start_id=engine.start.engine_start_id)
            _in_order(run, task.task)

        def noted(part: str, step: Callable[..., None]) -> Callable[..., None]:
            def noting(*given: Any) -> None:
                self.parts.append(part)
                step(*given)

            return noting

        return replace(
            STEPS,
            evaluate=evaluate,
            compare_tokens=noted("fidelity", STEPS.compare_tokens),
            load=noted("load", STEPS.load),
        )

    def taken(self) -> list[str]:
        """Return what was asked since the last time."""
        parts, self.parts = self.parts, []
        return parts


def _in_order(run: ActiveRun, task: str) -> None:
    """Give the answers their places in the order of documents, and the task its content, as lm-eval's step does."""
    staging = run.staging
    (content,) = (content.content_sha256 for content in run.plan.contents if content.task == task)
    file = staging.task_dir(task) / "samples.parquet"
    rows = pq.read_table(file).to_pylist()
    placed = [row | {"position": position} for position, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(placed, SAMPLES), file)
    result = staging.task_result(task)
    assert result is not None
    known = result.model_copy(update={"documents_available": 1000, "content_sha256": content})
    write_json(file.with_name("result.json"), known.model_dump(mode="json"))


@pytest.fixture
def asked(stub_runs: StubRuns, monkeypatch: pytest.MonkeyPatch) -> Asked:  # noqa: F811 - the fixture
    asked = Asked()
    monkeypatch.setattr(flow_runs, "STEPS", asked.steps())
    monkeypatch.setattr(request, "load_policy", lambda _: few(0))
    return asked


def validated(lines: list[str], tasks: Any = ARITHMETIC, **given: Any) -> list[Manifest]:
    manifests, failures = flow_runs.measured(GIVEN | {"tasks": tasks} | given, lines)
    assert failures == []
    return manifests


def test_another_policy_asks_the_candidate_s_documents_again_and_nothing_else(
    stub_runs: StubRuns,  # noqa: F811
    asked: Asked,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = validated(stub_runs.lines)
    assert asked.taken() == ["qg_demo_arithmetic", "fidelity", "load"] * 2
    tighter = few(0).model_copy(update={"alpha": 0.01})
    monkeypatch.setattr(request, "load_policy", lambda _: tighter)
    baseline, candidate = validated(stub_runs.lines)
    assert asked.taken() == ["qg_demo_arithmetic"], "the candidate's: nobody judges answers by a later policy"
    assert any("its documents are asked again: run" in line for line in stub_runs.lines)
    for run, first in ((baseline, one), (candidate, two)):
        assert run.run_id != first.run_id
        assert run.reused == dict.fromkeys(("fidelity", "load c1", "load c2"), first.run_id)
    home = Home.current()
    assert load_bundles(home.warehouse, home.bundles).problems == ()
    sql = "SELECT count(*) AS points, count_if(latest) AS latest FROM throughput_points"
    assert query(home.warehouse, sql).to_pylist() == [{"points": 8, "latest": 4}], "each level counts once"


def test_another_task_in_the_suite_is_all_that_the_baseline_is_asked(
    stub_runs: StubRuns,  # noqa: F811
    asked: Asked,
) -> None:
    validated(stub_runs.lines)
    asked.taken()
    validated(stub_runs.lines, tasks=[ARITHMETIC, CHAIN])
    assert asked.taken() == ["qg_demo_chain", "qg_demo_arithmetic", "qg_demo_chain"]


def test_a_level_that_is_new_is_all_the_load_that_is_measured(
    stub_runs: StubRuns,  # noqa: F811
    asked: Asked,
) -> None:
    validated(stub_runs.lines)
    asked.taken()
    runs = validated(stub_runs.lines, concurrency=[1, 2, 4])
    assert asked.taken().count("load") == 2
    assert all(set(run.reused) == {"fidelity", "load c1", "load c2"} for run in runs)
    assert stub_runs.lines.count(f"{runs[0].checkpoint.name}: 1 load level …") == 1


def test_fresh_measures_every_part(stub_runs: StubRuns, asked: Asked) -> None:  # noqa: F811
    validated(stub_runs.lines)
    asked.taken()
    manifests, _ = flow_runs.measured(GIVEN | {"tasks": ARITHMETIC}, stub_runs.lines, fresh=True)
    assert asked.taken() == ["qg_demo_arithmetic", "fidelity", "load"] * 2
    assert all(run.reused == {} for run in manifests)
