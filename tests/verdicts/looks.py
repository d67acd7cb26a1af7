"""Ask a candidate batch by batch: where the shipped judge stops it, and with which outcome."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from quantgate.bundles.manifest import TaskResult
from quantgate.judge.interim import look_sizes
from quantgate.judge.judge import judge_interim
from quantgate.model.config.policy import Policy
from quantgate.model.enums import Outcome
from quantgate.model.records import TaskVerdict
from tests.verdicts.scores import Task

LOOKS = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)


def followed(
    baseline: pa.Table, candidate: pa.Table, task: Task, policy: Policy, required: int = 1
) -> TaskVerdict:
    """Return the task's verdict at the look where it is decided, or at the last.

    Args:
        baseline: samples of all documents, with their positions.
        candidate: the same of the candidate.
        task: the task.
        policy: with looks.
        required: tasks of the run.
    """
    candidate = candidate.filter(pc.equal(candidate["task"], task.task))
    sizes = look_sizes(len(candidate), policy.looks, policy.families[task.family].min_documents)
    for look, size in enumerate(sizes, 1):
        answered = candidate.filter(pc.less(candidate["position"], size))
        result = TaskResult(
            task=task.task,
            family=task.family,
            metric=answered["metric"][0].as_py(),
            filter=task.filter or "",
            version="1.0",
            documents=len(answered),
            documents_available=len(candidate),
            looks=sizes[:look],
            mean_score=pc.mean(answered["score"]).as_py(),
            output_type="generate_until",
            duration_s=0.0,
            engine_start_id="",
        )
        verdict = judge_interim(baseline, answered, result, policy, required)
        if verdict.outcome is not Outcome.UNDECIDED:
            break
    return verdict
