"""Whose answers a baseline may take over: the same setting and content, positions without a gap, joining kernels."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from quantgate.bundles import batches
from quantgate.bundles.identity import is_reusable_baseline, reusable_result
from quantgate.bundles.manifest import Manifest, TaskResult
from quantgate.bundles.schema import PROMPTS, SAMPLES
from quantgate.bundles.staging import open_staging
from quantgate.bundles.store import Answers
from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.enums import Family, KernelMode, Validity
from quantgate.model.home import Home
from quantgate.model.records import BaselineRef, RunPlan
from tasks.resume.baseline_reuse import inherit_task
from tests.quantgate.bundles.test_seal import plan, sample
from tests.quantgate.bundles.test_staging import inputs, start

TASK = SuiteTask(task="a", family=Family.MATH)
CONTENT = {"task": "a", "family": "math", "metric": "acc", "filter": None, "version": "1", "sha256": "s"}
ASKED = {"lm_eval": "0.4.13", "limit": None, "tasks": [CONTENT]}


def planned(limit: int | None = None, **changes: Any) -> RunPlan:
    suite = Suite(name="s", tasks=(TASK,), limit=limit)
    changed = {"suite": ASKED | {"limit": limit}, "policy_fingerprint": "ours"} | changes
    return plan().model_copy(update={"inputs": inputs(**changed), "suite": suite})


def source(positions: list[int | None], kernel: str = "A", **changes: Any) -> Answers:
    """An earlier bundle whose task was answered at these positions, the first two once more."""
    given = planned(**changes)
    result = TaskResult(
        task="a",
        family=Family.REASONING,
        metric="acc",
        filter="none",
        version="1",
        documents=len(positions),
        mean_score=0.5,
        output_type="multiple_choice",
        duration_s=1,
        engine_start_id="s1",
        documents_available=50,
    )
    manifest = Manifest(
        run_id="before",
        fingerprint="f",
        engine_starts=(start(1, kernel), start(2, kernel)),
        tasks=(result,),
        started_at=start(1).started_at,
        measured_at=start(1).started_at,
        **{name: value for name, value in given if name != "contents"},
    )
    rows = [
        sample("a", number) | {"position": position, "engine_start_id": "s1", "family": "reasoning"}
        for number, position in enumerate(positions)
    ]
    again = [row | {"engine_start_id": "s2"} for row in rows if row["position"] in {0, 1}]
    prompts = [{"prompt_hash": row["prompt_hash"], "text": "x"} for row in [*rows, sample("b", 99)]]
    samples, controls = (pa.Table.from_pylist(found, SAMPLES) for found in (rows, again))
    return Answers(manifest, samples, controls, pa.Table.from_pylist(prompts, PROMPTS))


def test_another_policy_limit_or_workload_asks_the_same() -> None:
    other = source([0], policy_fingerprint="theirs", workload={"concurrency": [1]}).manifest
    assert is_reusable_baseline(planned(limit=5), other)
    assert reusable_result(planned(limit=5), TASK, other) == other.tasks[0]


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint_revision": "sha256:2"},
        {"baseline_revision": "sha256:1"},
        {"gpu": "h100"},
        {"gpu_count": 2},
        {"mig_slice": "1g.10gb"},
        {"sm_arch": "sm_90"},
        {"device_name": "another CPU"},
        {"cpu_cores": 64},
        {"engine": "vllm"},
        {"engine_version": "0.33.0"},
        {"serving": {"arguments": {"max-model-len": 1024}}},
        {"suite": ASKED | {"chat_template": True}},
        {"suite": ASKED | {"lm_eval": "0.4.14"}},
        {"suite": ASKED | {"what_is_yet_to_come": 1}},
    ],
)
def test_whatever_may_change_an_answer_is_asked_anew(change: dict[str, Any]) -> None:
    assert not is_reusable_baseline(planned(), source([0], **change).manifest)


def test_a_candidate_or_a_quarantined_run_takes_and_gives_nothing() -> None:
    there = source([0]).manifest
    candidate = planned().model_copy(update={"baseline": BaselineRef(name="x", revision="r", run_id="y")})
    assert not is_reusable_baseline(candidate, there)
    assert not is_reusable_baseline(planned(), there.model_copy(update={"validity": Validity.QUARANTINED}))


@pytest.mark.parametrize("change", [{"sha256": "t"}, {"version": "2"}, {"metric": "f1"}, {"filter": "x"}])
def test_another_content_or_score_is_another_task(change: dict[str, str]) -> None:
    assert (
        reusable_result(planned(), TASK, source([0], suite=ASKED | {"tasks": [CONTENT | change]}).manifest)
        is None
    )


def test_a_bundle_from_before_the_order_was_recorded_holds_nothing() -> None:
    there = source([0]).manifest
    old = there.tasks[0].model_copy(update={"documents_available": None})
    assert reusable_result(planned(), TASK, there.model_copy(update={"tasks": (old,)})) is None


def test_the_first_documents_are_taken_as_the_batch_that_the_task_begins_with() -> None:
    staging, given = open_staging(Home.current(), inputs(), {"checkpoint": "x"}), planned(limit=3)
    assert inherit_task(staging, given, TASK, source([4, 1, 0, 3, 2])) == 3
    (batch,) = batches.finished(staging, "a")
    assert (batch.documents, batch.documents_available, batch.family) == (3, 50, Family.MATH)
    result = batches.join(staging, "a", judged=False)
    folder = staging.task_dir("a")
    rows = pa.parquet.read_table(folder / "samples.parquet").to_pylist()
    assert [(row["position"], row["doc_id"], row["family"]) for row in rows] == [
        (0, "2", "math"),
        (1, "1", "math"),
        (2, "4", "math"),
    ]
    assert result.mean_score == pytest.approx(1 / 3)
    assert pa.parquet.read_table(folder / "prompts.parquet").num_rows == 3
    assert [one.engine_start_id for one in staging.starts()] == ["s1", "s2"]
    # The limit asks for three second answers, of which there are two: they are the first batch.
    assert staging.controls.task_result("a") is None
    assert [batch.documents for batch in batches.finished(staging.controls, "a")] == [2]


def test_second_answers_come_along_where_there_are_as_many_as_the_policy_asks_for() -> None:
    staging, given = open_staging(Home.current(), inputs(), {"checkpoint": "x"}), planned()
    policy = given.policy.model_copy(update={"aa_documents": 2})
    assert inherit_task(staging, given.model_copy(update={"policy": policy}), TASK, source([0, 1, 2])) == 3
    again = staging.controls.task_result("a")
    assert again is not None
    assert (again.documents, again.engine_start_id) == (2, "s2")
    assert [one.engine_start_id for one in staging.starts()] == ["s1", "s2"]


@pytest.mark.parametrize("positions", [[None, None], [1, 2], [0, 2], [0, 0, 1]])
def test_positions_with_a_gap_are_not_the_first_documents(positions: list[int | None]) -> None:
    staging = open_staging(Home.current(), inputs(), {"checkpoint": "x"})
    assert inherit_task(staging, planned(), TASK, source(positions)) == 0
    assert batches.finished(staging, "a") == []
    assert staging.starts() == []


def test_answers_of_other_kernels_do_not_join_what_is_there() -> None:
    staging = open_staging(Home.current(), inputs(), {"checkpoint": "x"})
    staging.add_start(start(9, kernel="B"))
    assert inherit_task(staging, planned(), TASK, source([0, 1])) == 0
    assert [one.engine_start_id for one in staging.starts()] == ["s9"]
    assert source([0]).manifest.engine_starts[0].kernel_mode is KernelMode.NATIVE
