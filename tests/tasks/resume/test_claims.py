"""What is said before another question is asked about a claim, end to end on the stub engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from quantgate.bundles.store import BundleStore
from quantgate.model.home import Home
from tests.support.looked_runs import Killed, LookedRuns, looked_runs, with_other_weights

__all__ = ["looked_runs"]


def copied(looked_runs: LookedRuns, name: str, keep: float = 1.0, start: float = 0.0) -> str:
    """A copy of the task's file under another name, without its last documents, or its first."""
    lines = Path(looked_runs.tasks).read_text().splitlines(keepends=True)
    file = looked_runs.folder / f"{name}.jsonl"
    file.write_text("".join(lines[int(start * len(lines)) : int(keep * len(lines))]))
    return str(file)


def standing(looked_runs: LookedRuns, run_id: str) -> str:
    return str(looked_runs.verdicts()[run_id]["standing"])


def test_a_copy_with_fewer_documents_cannot_validate_what_was_inconclusive(looked_runs: LookedRuns) -> None:
    (_, first) = looked_runs.validate(looked_runs.close)
    assert standing(looked_runs, first.run_id) == "INCONCLUSIVE"
    looked_runs.engine({"close": 1.0})  # now it would pass
    looked_runs.lines.clear()
    (_, second) = looked_runs.validate(looked_runs.close, tasks=copied(looked_runs, "shorter", 0.9))
    assert any("can't raise it" in line for line in looked_runs.lines), looked_runs.lines
    verdicts = looked_runs.verdicts()
    assert verdicts[second.run_id]["verdict"] == "VALIDATED"
    assert verdicts[second.run_id]["standing"] == "INCONCLUSIVE"
    assert verdicts[second.run_id]["decided_by"] == first.run_id
    assert verdicts[second.run_id]["tries"] == 2


def test_a_nearly_equal_checkpoint_is_the_same_candidate(looked_runs: LookedRuns) -> None:
    (_, first) = looked_runs.validate(looked_runs.close)
    twin = Path(shutil.copytree(looked_runs.close, looked_runs.folder / "twin" / "good"))
    file = next(twin.glob("*.safetensors"))
    raw = bytearray(file.read_bytes())
    raw[-8:] = b"\x01" * 8
    file.write_bytes(raw)
    (_, second) = looked_runs.validate(str(twin), tasks=copied(looked_runs, "shorter", 0.9))
    assert second.checkpoint.weights_sha256 != first.checkpoint.weights_sha256
    assert second.checkpoint.related_weights == first.checkpoint.weights_sha256
    assert standing(looked_runs, second.run_id) == "INCONCLUSIVE"


def test_names_files_and_comments_make_no_other_content(looked_runs: LookedRuns) -> None:
    folder = Path(shutil.copytree(looked_runs.good, looked_runs.folder / "renamed" / "other-name"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_comment": "mine"}, indent=4))
    (_, first) = looked_runs.validate(looked_runs.good)
    (_, second) = looked_runs.validate(str(folder))
    assert second.checkpoint.revision != first.checkpoint.revision
    assert second.checkpoint.weights_sha256 == first.checkpoint.weights_sha256
    rows = looked_runs.verdicts()
    assert rows[first.run_id]["verdict_key"] == rows[second.run_id]["verdict_key"]


def test_a_killed_run_is_declared_before_its_first_answer(looked_runs: LookedRuns) -> None:
    looked_runs.kill_before = (
        1  # the baseline's answers are there, the candidate's first are about to be asked
    )
    with pytest.raises(Killed):
        looked_runs.validate(looked_runs.good)
    (declared,) = BundleStore(Home.current().bundles).declarations()
    assert declared.question.checkpoint == "quantgate-demo-BF16"
    assert not declared.scored


def test_a_run_killed_after_a_look_holds_the_claim(looked_runs: LookedRuns) -> None:
    looked_runs.kill_before = 2
    with pytest.raises(Killed):
        looked_runs.validate(looked_runs.close)
    (declared,) = BundleStore(Home.current().bundles).declarations()
    assert declared.scored
    shutil.rmtree(Home.current().staging)  # nobody can finish it
    looked_runs.kill_before = None
    looked_runs.engine({"close": 1.0})
    (_, second) = looked_runs.validate(looked_runs.close, tasks=copied(looked_runs, "shorter", 0.9))
    row = looked_runs.verdicts()[second.run_id]
    assert (row["verdict"], row["standing"]) == ("VALIDATED", "INCONCLUSIVE")
    assert "never finished" in row["standing_reason"]


def damaged_copy(looked_runs: LookedRuns) -> str:
    """The baseline with other weights, in a folder that is named as it is; the stub answers worse from there."""
    folder = Path(shutil.copytree(looked_runs.baseline, looked_runs.folder / "copy" / "quantgate-demo-BF16"))
    with_other_weights(folder, "damaged")
    return str(folder)


def test_a_damaged_copy_of_the_baseline_cannot_validate_what_was_rejected(looked_runs: LookedRuns) -> None:
    (_, first) = looked_runs.validate(looked_runs.bad)
    assert standing(looked_runs, first.run_id) == "REJECTED"
    copy = damaged_copy(looked_runs)
    looked_runs.engine({"quantgate-demo-BF16": 0.3})  # worse than the candidate, which passes now
    looked_runs.lines.clear()
    (_, second) = looked_runs.validate(looked_runs.bad, baseline=copy)
    assert any("against another baseline, quantgate-demo-BF16" in line for line in looked_runs.lines)
    row = looked_runs.verdicts()[second.run_id]
    assert (row["verdict"], row["standing"], row["tries"]) == ("VALIDATED", "REJECTED", 2)
    assert row["decided_by"] == first.run_id
    assert row["standing_reason"].startswith("another baseline was tried first: quantgate-demo-BF16 (run ")


def test_a_copied_candidate_is_known_again_under_another_baseline(looked_runs: LookedRuns) -> None:
    (_, first) = looked_runs.validate(looked_runs.bad)
    twin = Path(shutil.copytree(looked_runs.bad, looked_runs.folder / "twin" / "bad"))
    file = next(twin.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-8] + b"\x01" * 8)
    looked_runs.engine({"quantgate-demo-BF16": 0.3})
    (_, second) = looked_runs.validate(str(twin), baseline=damaged_copy(looked_runs))
    assert second.checkpoint.related_weights == first.checkpoint.weights_sha256
    assert standing(looked_runs, second.run_id) == "REJECTED"


def test_a_copy_of_the_task_under_other_names_is_never_another_chance(looked_runs: LookedRuns) -> None:
    (_, first) = looked_runs.validate(looked_runs.close)
    assert standing(looked_runs, first.run_id) == "INCONCLUSIVE"
    looked_runs.engine({"close": 1.0})  # now it would pass
    for number in range(3):
        renamed = Path(copied(looked_runs, f"sums-{number}"))
        lines = [json.loads(line) for line in renamed.read_text().splitlines()]
        changed = [line | {"id": f"other-{index}"} for index, line in enumerate(reversed(lines))]
        renamed.write_text("".join(json.dumps(line) + "\n" for line in changed))
        done = looked_runs.validate(looked_runs.close, tasks=str(renamed))
        rows = looked_runs.verdicts()
        assert {rows[run.run_id]["standing"] for run in done[1:]} == {"INCONCLUSIVE"}
    assert {row["standing"] for row in rows.values()} == {"BASELINE", "INCONCLUSIVE"}


@pytest.mark.parametrize(
    ("start", "question", "stands"), [(0.6, 2, "VALIDATED"), (0.5, 1, "INCONCLUSIVE")], ids=["new", "seen"]
)
def test_a_reserve_pays_for_new_documents_alone(
    looked_runs: LookedRuns, start: float, question: int, stands: str
) -> None:
    looked_runs.policy = looked_runs.policy.model_copy(update={"reserve": 0.8})
    (_, first) = looked_runs.validate(looked_runs.close, tasks=copied(looked_runs, "some", 0.6))
    assert standing(looked_runs, first.run_id) == "INCONCLUSIVE"
    looked_runs.engine({"close": 1.0})
    looked_runs.lines.clear()
    (_, second) = looked_runs.validate(looked_runs.close, tasks=copied(looked_runs, "others", 1.0, start))
    row = looked_runs.verdicts()[second.run_id]
    assert (second.question, row["verdict"], row["standing"]) == (question, "VALIDATED", stands)
    reserved = [line for line in looked_runs.lines if "from the policy's reserve" in line]
    assert bool(reserved) == (question > 1), looked_runs.lines
