"""Before a run: tasks on which no loss could show, by an earlier run of the baseline or by a published score."""

from __future__ import annotations

import pytest

from quantgate.judge.power import KnownScore
from quantgate.model.records import RunPlan, TaskContent
from tasks.resume.insensitive import insensitive_lines
from tests.support.demo_bundles import manifests

BASELINE = manifests()[0]
PLAN = RunPlan.model_validate(BASELINE.model_dump(include=set(RunPlan.model_fields)))
TASK = next(task for task in PLAN.suite.tasks if task.task == "qg_demo_cloze")


def published(score: float, **changes: str) -> KnownScore:
    return KnownScore("qg_demo_cloze", "acc", "none", score, "published")._replace(**changes)


@pytest.mark.parametrize(
    ("score", "floor", "says"), [(0.02, 0.0, True), (0.021, 0.0, False), (0.265, 0.25, True)]
)
def test_a_published_score_within_the_margin_of_the_floor_is_said(
    score: float, floor: float, says: bool
) -> None:
    plan = PLAN.model_copy(
        update={"contents": (TaskContent(task=TASK.task, content_sha256="0", documents=1000, floor=floor),)}
    )
    lines = list(insensitive_lines(plan, [], [published(score)]))
    assert [
        line.startswith("qg_demo_cloze: may validate nothing: the baseline scores") for line in lines
    ] == [True] * says
    assert (
        list(insensitive_lines(plan, [], [published(score, metric="f1"), published(score, task="x")])) == []
    )


def test_an_earlier_run_of_the_baseline_goes_before_a_published_score() -> None:
    def run(score: float, floor: float | None = None) -> object:
        tasks = tuple(
            task.model_copy(
                update={"mean_score": score, "documents": 1000, "documents_available": 1000, "floor": floor}
            )
            for task in BASELINE.tasks
        )
        return BASELINE.model_copy(update={"tasks": tasks})

    lines = list(insensitive_lines(PLAN, [run(0.005)], [published(0.9)]))  # type: ignore[list-item]
    assert len(lines) == len(PLAN.suite.tasks)
    assert f"0.197 % (at least, by run {BASELINE.run_id}), not more than 2 points above the 0 %" in lines[0]
    assert list(insensitive_lines(PLAN, [run(0.9)], [published(0.0)])) == []  # type: ignore[list-item]
    assert len(list(insensitive_lines(PLAN, [run(0.26, 0.25)], []))) == len(PLAN.suite.tasks)  # type: ignore[list-item]
