"""Tricks that need no luck in the engine's answers: none makes a bad checkpoint stand VALIDATED.

The tests use little of the project, so that they run against earlier versions too.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from quantgate.model.enums import Family
from quantgate.model.errors import QuantgateError
from quantgate.model.home import Home
from tests.support.looked_runs import Killed, LookedRuns, looked_runs, with_other_weights
from warehouse.query import query

__all__ = ["looked_runs"]


def table(runs: LookedRuns, use: str = "all") -> list[dict[str, Any]]:
    """What is published of the candidates."""
    runs.verdicts()
    sql = f"SELECT * FROM validated_table WHERE use = '{use}' AND verdict <> 'BASELINE'"
    return query(Home.current().warehouse, sql).to_pylist()


def validated(runs: LookedRuns, use: str = "all") -> list[str]:
    return [row["checkpoint"] for row in table(runs, use) if row["verdict"] == "VALIDATED"]


def edited(runs: LookedRuns, keep: slice = slice(None), copies: int = 1) -> str:
    """Some lines of the task's file, with copies that differ in blanks."""
    lines = [json.loads(line) for line in Path(runs.tasks).read_text().splitlines()][keep]
    file = runs.folder / "edited.jsonl"
    file.write_text(
        "".join(
            json.dumps({"prompt": line["prompt"] + " " * copy, "answer": line["answer"]}) + "\n"
            for line in lines
            for copy in range(copies)
        )
    )
    return str(file)


def named_as_the_baseline(runs: LookedRuns, place: str) -> str:
    folder = Path(shutil.copytree(runs.baseline, runs.folder / place / "quantgate-demo-BF16"))
    with_other_weights(folder, place)
    return str(folder)


def test_a_killed_try_counts(looked_runs: LookedRuns) -> None:
    looked_runs.kill_before = 2
    with pytest.raises(Killed):
        looked_runs.validate(looked_runs.close)
    shutil.rmtree(Home.current().staging)
    looked_runs.kill_before = None
    looked_runs.engine({"close": 1.0})
    looked_runs.validate(looked_runs.close, tasks=edited(looked_runs, slice(0, 270)))
    assert validated(looked_runs) == []


def test_a_damaged_copy_of_the_baseline_is_no_second_chance(looked_runs: LookedRuns) -> None:
    looked_runs.validate(looked_runs.bad)
    assert [row["verdict"] for row in table(looked_runs)] == ["REJECTED"]
    looked_runs.engine({"quantgate-demo-BF16": 0.3})
    looked_runs.validate(looked_runs.bad, baseline=named_as_the_baseline(looked_runs, "damaged"))
    assert validated(looked_runs) == []


def test_a_destroyed_model_passes_no_task_that_the_baseline_cannot_do(looked_runs: LookedRuns) -> None:
    looked_runs.engine({"quantgate-demo-BF16": 0.01, "bad": 0.0})
    looked_runs.validate(looked_runs.bad)
    assert validated(looked_runs) == []


@pytest.mark.parametrize("copies", [5, 10])
def test_copies_of_documents_are_no_more_documents(looked_runs: LookedRuns, copies: int) -> None:
    looked_runs.validate(looked_runs.good, tasks=edited(looked_runs, slice(0, 30), copies))
    assert validated(looked_runs) == []


def test_a_validated_checkpoint_is_no_baseline(looked_runs: LookedRuns) -> None:
    looked_runs.validate(looked_runs.good)
    assert len(validated(looked_runs)) == 1
    looked_runs.engine({"close": 1.0})
    with contextlib.suppress(QuantgateError):  # it is refused
        looked_runs.validate(looked_runs.close, baseline=looked_runs.good)
    assert len(validated(looked_runs)) == 1


def test_a_policy_that_decides_nothing_shows_nothing_for_free(looked_runs: LookedRuns) -> None:
    """All answers are seen under a policy that wants more documents than there are; then those that were lost go."""
    usual = looked_runs.policy
    families = {
        name: rule.model_copy(update={"min_documents": 10_000}) for name, rule in usual.families.items()
    }
    looked_runs.policy = usual.model_copy(update={"families": families})
    looked_runs.validate(looked_runs.close)
    looked_runs.policy = usual
    looked_runs.engine({"close": 1.0})
    looked_runs.validate(looked_runs.close, tasks=edited(looked_runs, slice(0, 270)))
    assert validated(looked_runs) == []


def test_documents_that_were_asked_as_one_family_validate_no_other(looked_runs: LookedRuns) -> None:
    (strict,) = looked_runs.policy.families.values()
    families = {
        Family.MATH: strict,
        Family.CUSTOM: strict.model_copy(update={"margin": 3 * strict.margin}),
    }
    uses = {"all": (), "math": (Family.MATH,), "custom": (Family.CUSTOM,)}
    looked_runs.policy = looked_runs.policy.model_copy(update={"families": families, "uses": uses})
    looked_runs.validate(looked_runs.close)
    assert validated(looked_runs, "math") == []
    with contextlib.suppress(QuantgateError):  # it is refused
        looked_runs.validate(looked_runs.close, tasks=edited(looked_runs, slice(0, 290)), family="custom")
    assert validated(looked_runs, "custom") == []


def test_rows_that_no_column_tells_apart_say_the_same(looked_runs: LookedRuns) -> None:
    looked_runs.validate(looked_runs.close)
    looked_runs.engine({"close": 1.0})
    looked_runs.validate(looked_runs.close, tasks=edited(looked_runs, slice(0, 290)))
    shown = {
        (row["model"], row["checkpoint"], row["gpu"], row.get("suite"), row.get("documents")): row["verdict"]
        for row in table(looked_runs)
    }
    verdicts = [row["verdict"] for row in table(looked_runs)]
    assert len(verdicts) == 2
    assert set(verdicts) == set(shown.values())
