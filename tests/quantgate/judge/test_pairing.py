from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from quantgate.bundles.identity import comparable
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.schema import SAMPLES
from quantgate.judge.judge import judge
from quantgate.judge.pairing import Pairs, Unmeasured, Unpaired, pair_task
from quantgate.model.config.suites import SuiteTask
from quantgate.model.enums import Family, Verdict, Weights
from tests.support.sample_rows import sample_row

TASK = SuiteTask(task="sums", family=Family.MATH)


def row(number: int, **changes: Any) -> dict[str, Any]:
    return sample_row("sums", number, number % 2) | changes


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SAMPLES)


BASELINE = [row(number) for number in range(10)]


def candidate(*, first: dict[str, Any] | None = None, count: int = 10, start: int = 0) -> pa.Table:
    """The baseline's own samples with the first changed."""
    rows = [row(number) for number in range(start, count)]
    return table([rows[0] | (first or {}), *rows[1:]])


def test_pairs_are_matched_by_document_whatever_their_order():
    shuffled = table([row(number, score=float(number == 3)) for number in (4, 1, 9, 3, 0, 2, 8, 7, 6, 5)])
    pairs = pair_task(table(BASELINE), shuffled, TASK)
    assert isinstance(pairs, Pairs)
    assert sorted(zip(pairs.baseline.tolist(), pairs.candidate.tolist(), strict=True)) == [
        *[(0.0, 0.0)] * 5,
        *[(1.0, 0.0)] * 4,
        (1.0, 1.0),
    ]


def test_documents_that_are_the_same_are_numbered():
    twice = [row(0, doc_repeat=repeat, score=float(repeat)) for repeat in (0, 1)]
    pairs = pair_task(table(twice), table(twice[::-1]), TASK)
    assert np.array_equal(pairs.baseline, pairs.candidate)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (candidate(count=7), "3 documents without a pair (3 only in the baseline, 0 only in the candidate)"),
        (candidate(count=11), "1 document without a pair (0 only in the baseline, 1 only in the candidate)"),
        (
            candidate(count=12, start=2),
            "4 documents without a pair (2 only in the baseline, 2 only in the candidate)",
        ),
        (
            candidate(first={"doc_repeat": 1}),
            "2 documents without a pair (1 only in the baseline, 1 only in the candidate)",
        ),
        (candidate(first={"prompt_hash": "x"}), "the prompt differs on 1 of 10 documents"),
        (candidate(first={"doc_hash": "x"}), "the document differs on 1 of 10 documents"),
        (candidate(first={"target_hash": "x"}), "the target differs on 1 of 10 documents"),
        (candidate(first={"metric": "f1"}), "the metric differs on 1 of 10 documents"),
        (candidate(first={"score": float("nan")}), "the candidate's score is not a number on 1 document"),
        (candidate(first={"score": 1.5}), "the candidate's score is not from 0 to 1 on 1 document"),
        (
            candidate(first={"filter": "strict"}),
            "the candidate's samples have the filters none, strict: name one",
        ),
        (candidate(first={"doc_id": "d5"}), "1 document twice in the candidate's samples"),
    ],
)
def test_what_does_not_pair_is_named_with_its_number(other, reason):
    assert pair_task(table(BASELINE), other, TASK) == Unpaired(f"task sums: {reason}")


def test_the_baselines_own_faults_are_named_too():
    broken = candidate(first={"score": float("inf")})
    assert pair_task(broken, table(BASELINE), TASK) == Unpaired(
        "task sums: the baseline's score is not a number on 1 document"
    )
    assert pair_task(table([]), table(BASELINE), TASK).reason.startswith(
        "task sums: 10 documents without a pair"
    )


def test_a_task_without_samples_is_unmeasured():
    assert pair_task(table(BASELINE), table([]), TASK) == Unmeasured("sums")


def test_a_declared_filter_picks_its_rows():
    strict = [row(number, filter="strict", score=0.0) for number in range(10)]
    both = table([*BASELINE, *strict])
    pairs = pair_task(both, both, TASK.model_copy(update={"filter": "strict"}))
    assert pairs.baseline.sum() == 0
    assert pairs.baseline.size == 10
    assert "name one" in pair_task(both, both, TASK).reason


def test_what_does_not_pair_is_not_comparable(spec):
    policy = spec("any").policy
    by_use = {
        v.use: v
        for v in judge(table(BASELINE), candidate(first={"score": float("nan")}), "toys", policy, [TASK])
    }
    assert by_use["math"].verdict is Verdict.NOT_COMPARABLE
    assert by_use["math"].reason == "task sums: the candidate's score is not a number on 1 document"
    assert by_use["conversation"].verdict is Verdict.UNVALIDATED, "another use does not depend on that task"


@pytest.fixture
def manifests(place, three) -> tuple[Manifest, Manifest]:
    place.write(*three[:2])
    return tuple(
        Manifest.model_validate_json((place.bundles / run.run_id / "manifest.json").read_text())
        for run in three[:2]
    )


def changed(manifest: Manifest, part: str, **update: Any) -> Manifest:
    """The manifest with one part changed: of its tasks the first."""
    value = getattr(manifest, part)
    first, *rest = value if isinstance(value, tuple) else [value]
    first = first.model_copy(update=update)
    return manifest.model_copy(update={part: (first, *rest) if isinstance(value, tuple) else first})


def test_runs_that_differ_only_in_precision_are_comparable(manifests):
    assert comparable(*manifests) is None


def test_the_number_of_gpus_and_the_kernels_may_differ(manifests):
    baseline, candidate = manifests
    baseline = changed(changed(baseline, "hardware", gpu_count=2), "inputs", gpu_count=2)
    assert comparable(baseline, candidate) is None
    assert baseline.engine_starts[0].kernels != candidate.engine_starts[0].kernels


@pytest.mark.parametrize(
    ("part", "update", "reason"),
    [
        ("inputs", {"engine_version": "9"}, "engine differs: baseline vllm 0.25.1, candidate vllm 9"),
        ("hardware", {"sm_arch": "sm_100"}, "GPU architecture differs: baseline sm_90, candidate sm_100"),
        ("policy", {"alpha": 0.01}, "policy differs: baseline 'toys' ("),
        ("checkpoint", {"weights": Weights.DUMMY}, "the candidate's weights are random"),
        ("baseline", {"revision": "sha256:0"}, "declared against baseline sha256:0, not sha256:"),
        ("inputs", {"suite": {"tasks": ["sums", "cloze"], "limit": 50}}, "the suites differ in limit"),
        ("tasks", {"version": "2"}, "task sums: version differs: baseline 1, candidate 2"),
        ("tasks", {"metric": "f1"}, "task sums: metric differs: baseline exact_match, candidate f1"),
        ("tasks", {"filter": "strict"}, "task sums: filter differs: baseline none, candidate strict"),
        ("tasks", {"family": Family.CODE}, "task sums: family differs: baseline math, candidate code"),
        ("tasks", {"task": "other"}, "the baseline did not run task other"),
    ],
)
def test_what_makes_runs_incomparable_is_named(manifests, part, update, reason):
    baseline, candidate = manifests
    found = comparable(baseline, changed(candidate, part, **update))
    assert found is not None
    assert found.startswith(reason)


def test_a_random_baseline_or_mixed_engines_decide_nothing(manifests):
    baseline, candidate = manifests
    dummy = changed(baseline, "checkpoint", weights=Weights.DUMMY)
    assert comparable(dummy, candidate) == "the baseline's weights are random"
    start = candidate.engine_starts[0]
    mixed = candidate.model_copy(
        update={"engine_starts": (start, start.model_copy(update={"engine_version": "0.26.0"}))}
    )
    assert comparable(baseline, mixed) == "the candidate's parts ran on different engine versions"
