"""A baseline answers a document once, whatever policy, suite or candidate asks next; --fresh asks again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from quantgate.bundles.manifest import Manifest
from quantgate.model.config.policy import FamilyPolicy
from quantgate.model.enums import Family
from quantgate.model.home import ROOT, Home
from tests.support.looked_runs import LOOKS, LookedRuns, looked_runs  # noqa: F401 - a fixture

POLICY = LOOKS.model_copy(
    update={
        "looks": (),
        "aa_documents": 10,
        "families": dict.fromkeys(
            (Family.MATH, Family.REASONING), FamilyPolicy(margin=0.1, min_documents=20)
        ),
    }
)


def suite(runs: LookedRuns, **families: str) -> str:
    """A suite of the demo's tasks, each of the family that is named."""
    tasks = [
        {"task": f"qg_demo_{task}", "path": "demo/tasks", "family": family}
        for task, family in families.items()
    ]
    file = runs.folder / f"{'-'.join(families)}.yaml"
    file.write_text(yaml.safe_dump({"name": file.stem, "tasks": tasks}))
    return str(file)


def table(manifest: Manifest, name: str) -> pa.Table:
    return pq.read_table(Path(Home.current().bundles) / manifest.run_id / f"{name}.parquet").sort_by(
        [("task", "ascending"), ("position", "ascending")]
    )


def of(rows: pa.Table, task: str, documents: int) -> list[dict[str, Any]]:
    kept = [row for row in rows.to_pylist() if row["task"] == task][:documents]
    return [{key: value for key, value in row.items() if key != "family"} for row in kept]


def test_another_suite_policy_and_candidate_ask_a_baseline_nothing_twice(
    looked_runs: LookedRuns,  # noqa: F811
) -> None:
    runs, runs.policy = looked_runs, POLICY
    first, _ = runs.validate(runs.good, tasks=suite(runs, arithmetic="math"), family=None, limit=40)
    assert runs.asked_of(runs.baseline) == [(0, 40), (0, 10)]

    runs.policy = POLICY.model_copy(update={"alpha": 0.01})
    both = suite(runs, arithmetic="reasoning", chain="math")
    second, _ = runs.validate(runs.good, tasks=both, family=None, limit=30)
    assert runs.asked_of(runs.baseline) == [(0, 30), (0, 10)], "the other task alone, and its A/A"
    assert any(
        f"answered before, in run {first.run_id}" in line and "qg_demo_arithmetic (30 documents)" in line
        for line in runs.lines
    )
    name = "qg_demo_arithmetic"
    assert of(table(second, "samples"), name, 40) == of(table(first, "samples"), name, 30)
    assert of(table(second, "control_samples"), name, 40) == of(table(first, "control_samples"), name, 10)
    assert set(table(second, "samples").filter(pa.compute.field("task") == name)["family"].to_pylist()) == {
        "reasoning"
    }
    starts = {one.engine_start_id for one in second.engine_starts}
    assert starts >= {row["engine_start_id"] for row in table(second, "samples").to_pylist()}
    assert len(starts) == 4
    (result,) = (one for one in second.tasks if one.task == name)
    assert (result.documents, result.documents_available, result.family) == (30, 1000, Family.REASONING)
    scores = [row["score"] for row in of(table(first, "samples"), name, 30)]
    assert result.mean_score == sum(scores) / 30
    verdicts = {row["verdict"] for row in runs.verdicts().values()}
    assert verdicts == {"BASELINE", "VALIDATED", "INCONCLUSIVE"}, "all are compared; 30 documents are few"

    runs.policy = POLICY.model_copy(update={"alpha": 0.02})
    more, _ = runs.validate(runs.bad, tasks=both, family=None, limit=40)
    assert runs.asked_of(runs.baseline) == [(30, 40)], "what no run has answered"
    assert of(table(more, "samples"), name, 40) == of(table(first, "samples"), name, 40)
    assert more.files["control_samples.parquet"].rows == 20

    none, _ = runs.validate(runs.good, tasks=suite(runs, chain="reasoning"), family=None, limit=20)
    assert runs.asked_of(runs.baseline) == []
    assert none.files["samples.parquet"].rows == 20

    runs.validate(runs.good, tasks=suite(runs, chain="reasoning"), family=None, limit=20, fresh=True)
    assert runs.asked_of(runs.baseline) == [(0, 20), (0, 10)], "--fresh"


def test_what_changes_answers_is_asked_anew(looked_runs: LookedRuns) -> None:  # noqa: F811
    runs, runs.policy = looked_runs, POLICY.model_copy(update={"aa_documents": 0})
    asked: dict[str, Any] = {"tasks": runs.tasks, "limit": 30}
    runs.validate(runs.good, **asked)
    runs.validate(runs.good, **asked, engine_arguments={"max-num-seqs": 4})
    assert runs.asked_of(runs.baseline) == [(0, 30)], "served otherwise"
    file = Path(runs.tasks)
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:-1], json.dumps(json.loads(lines[-1]) | {"id": "new"})]))
    runs.validate(runs.good, **asked)
    assert runs.asked_of(runs.baseline) == [(0, 30)], "another data set"


def test_a_damaged_bundle_is_not_taken_from(looked_runs: LookedRuns) -> None:  # noqa: F811
    runs, runs.policy = looked_runs, POLICY.model_copy(update={"aa_documents": 0})
    first, _ = runs.validate(runs.good, limit=30)
    file = Path(Home.current().bundles) / first.run_id / "samples.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    second, _ = runs.validate(runs.good, limit=20)
    assert runs.asked_of(runs.baseline) == [(0, 20)]
    assert second.files["samples.parquet"].rows == 20
    assert any("nothing is inherited from run" in line and first.run_id in line for line in runs.lines)
    assert ROOT not in file.parents
