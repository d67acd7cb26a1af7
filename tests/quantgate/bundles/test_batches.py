"""Batches of a task: what a kill leaves of them, and what they are together."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantgate.bundles import batches, seal
from quantgate.bundles.manifest import Manifest, TaskResult
from quantgate.bundles.schema import PROMPTS, SAMPLES
from quantgate.bundles.staging import Staging, open_staging
from quantgate.bundles.store import Answers
from quantgate.model.errors import RunError
from quantgate.model.home import Home
from tests.quantgate.bundles.test_seal import finished, plan, sample
from tests.quantgate.bundles.test_staging import inputs, start


@pytest.fixture
def staging() -> Staging:
    return open_staging(Home.current(), inputs(), {"checkpoint": "x"})


def rows(scores: Sequence[float], first: int, start_id: str = "s1") -> pa.Table:
    made = [
        sample("a", first + number)
        | {"score": score, "position": first + number, "engine_start_id": start_id}
        for number, score in enumerate(scores)
    ]
    return pa.Table.from_pylist(made, SAMPLES)


RESULT: dict[str, object] = {
    "task": "a",
    "family": "math",
    "metric": "acc",
    "filter": "none",
    "version": "1",
    "mean_score": 0.0,
    "output_type": "generate_until",
    "duration_s": 2.0,
    "engine_start_id": "s1",
    "documents_available": 9,
    "truncated_prompts": 1,
}


def answer(staging: Staging, scores: Sequence[float], first: int, **result: object) -> None:
    """A finished batch."""
    table = rows(scores, first)
    prompts = [{"prompt_hash": value, "text": "x"} for value in table["prompt_hash"].unique().to_pylist()]
    made = TaskResult.model_validate(RESULT | {"documents": len(scores)} | result)
    folder = batches.batch_dir(staging, "a", first)
    batches.write_part(folder, made, table, pa.Table.from_pylist(prompts, PROMPTS))


def test_finished_batches_become_the_tasks_part(staging: Staging) -> None:
    assert not batches.begun(staging)
    answer(staging, [1, 0], 0)
    answer(staging, [1, math.nan, 1], 2, engine_start_id="s2")
    (batches.batch_dir(staging, "a", 5).with_name(".000000005.partial")).mkdir()  # a kill left it
    assert batches.begun(staging)
    assert [one.documents for one in batches.finished(staging, "a")] == [2, 3]
    assert staging.task_result("a") is None
    so_far = batches.samples_so_far(staging, "a")
    assert so_far["position"].to_pylist() == list(range(5))
    assert not {"answer", "responses", "target"}.intersection(so_far.column_names)
    joined = batches.join(staging, "a", judged=True)
    assert staging.task_result("a") == joined
    assert (joined.documents, joined.looks, joined.documents_available) == (5, (2, 5), 9)
    assert (joined.mean_score, joined.duration_s, joined.truncated_prompts) == (0.75, 4.0, 2)
    assert joined.engine_start_id == "s2"
    assert pq.read_table(staging.task_dir("a") / "samples.parquet").num_rows == 5
    assert batches.finished(staging, "a") == []


def test_looks_of_an_earlier_run_come_first_and_a_baseline_has_none(staging: Staging) -> None:
    answer(staging, [1, 1, 1, 0], 0, looks=(2, 4))
    answer(staging, [1], 4)
    results, samples = batches.finished(staging, "a"), batches.samples_so_far(staging, "a")
    assert batches.together(results[:1], samples.slice(0, 4), judged=True).looks == (2, 4)
    assert batches.together(results, samples, judged=True).looks == (2, 4, 5)
    assert batches.together(results, samples, judged=False).looks == ()


@pytest.fixture
def earlier() -> Manifest:
    """A bundle of two tasks."""
    finished(Home.current())
    return seal.seal(open_staging(Home.current(), plan().inputs, {}), Home.current().bundles, plan())


def tables(manifest: Manifest) -> list[pa.Table]:
    place = f"{Home.current().bundles}/{manifest.run_id}"
    names = ("samples", "prompts", "control_samples")
    return [pq.read_table(f"{place}/{name}.parquet") for name in names]


def test_a_run_begins_with_the_answers_that_it_continues(staging: Staging, earlier: Manifest) -> None:
    samples, prompts, controls = tables(earlier)
    again = samples.filter(pa.compute.equal(samples["task"], "b"))
    batches.inherit_run(staging, plan(), Answers(earlier, samples, again, prompts))
    assert batches.continues(staging) == earlier.run_id
    assert controls.num_rows == 0
    for result in earlier.tasks:
        assert batches.finished(staging, result.task) == [result]
        own = samples.filter(pa.compute.equal(samples["task"], result.task))
        assert batches.samples_so_far(staging, result.task)["doc_id"] == own["doc_id"]
        assert staging.task_result(result.task) is None
    assert staging.starts() == list(earlier.engine_starts)
    assert staging.controls.task_result("a") is None
    second = staging.controls.task_result("b")
    assert second is not None
    assert second.documents == again.num_rows
    staging.add_start(earlier.engine_starts[0].model_copy(update={"engine_start_id": "same"}))
    assert batches.continues(staging) == earlier.run_id
    staging.add_start(start(9, kernel="another"))
    assert batches.continues(staging) is None
    assert not batches.begun(staging)


def test_second_answers_that_are_too_few_are_the_first_batch_of_those_that_are_wanted(
    staging: Staging, earlier: Manifest
) -> None:
    samples, prompts, _ = tables(earlier)
    of_more = tuple(result.model_copy(update={"documents_available": 9}) for result in earlier.tasks)
    again = samples.filter(pa.compute.equal(samples["task"], "b"))
    assert again.num_rows == 4
    batches.inherit_run(
        staging, plan(), Answers(earlier.model_copy(update={"tasks": of_more}), samples, again, prompts)
    )
    assert staging.controls.task_result("b") is None
    (batch,) = batches.finished(staging.controls, "b")
    assert batch.documents == 4
    assert batches.samples_so_far(staging.controls, "b").num_rows == 4
    assert batches.finished(staging.controls, "a") == []


def test_as_many_second_answers_are_wanted_as_policy_limit_and_task_allow() -> None:
    result = TaskResult.model_validate(RESULT | {"documents": 60, "documents_available": 300})
    suite, policy = plan().suite, plan().policy
    assert suite is not None
    for limit, aa_documents, wanted in ((None, 200, 200), (60, 200, 60), (None, 400, 300), (100, 0, 0)):
        given: dict[str, object] = {"suite": suite.model_copy(update={"limit": limit})}
        given |= {"policy": policy.model_copy(update={"aa_documents": aa_documents})}
        assert batches.again_wanted(plan().model_copy(update=given), result) == wanted


@pytest.mark.parametrize("last_rename", [0, 1])
def test_a_kill_amid_it_leaves_nothing_begun(
    staging: Staging, earlier: Manifest, monkeypatch: pytest.MonkeyPatch, last_rename: int
) -> None:
    samples, prompts, _ = tables(earlier)
    renamed: list[str] = []

    class Killed(Exception):  # noqa: N818 - what a kill leaves
        pass

    class Path(type(staging.path)):  # type: ignore[misc]
        def rename(self, target: object) -> None:
            if len(renamed) == last_rename:
                raise Killed
            renamed.append(str(target))
            shutil.move(self, str(target))

    dying = Staging(Path(staging.path), staging.run_id, staging.started_at)
    with pytest.raises(Killed):
        batches.inherit_run(dying, plan(), Answers(earlier, samples, samples, prompts))
    assert not batches.begun(staging)
    assert batches.continues(staging) is None
    batches.inherit_run(staging, plan(), Answers(earlier, samples, samples, prompts))
    assert batches.continues(staging) == earlier.run_id
    assert [path.name for path in staging.path.iterdir() if path.name.startswith(".")] == []


def test_a_batch_without_a_number_is_no_fault_while_the_task_has_one(staging: Staging) -> None:
    answer(staging, [1.0, 0.0], 0)
    answer(staging, [math.nan], 2)
    results, samples = batches.finished(staging, "a"), batches.samples_so_far(staging, "a")
    assert batches.together(results, samples, judged=True).mean_score == 0.5
    with pytest.raises(RunError, match="no document has a score"):
        batches.together(results[1:], samples.slice(2), judged=True)
