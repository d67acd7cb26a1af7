"""Runs that can't be paired: whole bundles loaded into a warehouse, each with one thing on a side that differs."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.planning.request import ModelConfig
from quantgate.bundles.schema import SAMPLES
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import load_yaml
from warehouse.load import load_bundles
from warehouse.query import query

Manifest = dict[str, Any]
Rows = list[dict[str, Any]]


def edit_manifest(folder: Path, edit: Callable[[Manifest], None]) -> None:
    """Change a bundle's manifest as it lies there."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_text())
    edit(manifest)
    file.write_text(json.dumps(manifest))


def edit_samples(folder: Path, edit: Callable[[Rows], Rows]) -> None:
    """Change a bundle's samples, with the checksum that its manifest holds."""
    file = folder / "samples.parquet"
    table = pa.Table.from_pylist(edit(pq.read_table(file).to_pylist()), schema=SAMPLES)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    data = buffer.getvalue()
    file.write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data), "rows": table.num_rows}
    edit_manifest(folder, lambda manifest: manifest["files"].update({"samples.parquet": entry}))


Case = tuple[str, str]
"""What differs, and on which side."""


def verdicts(place: Any, *run_ids: str) -> dict[str, dict[str, tuple[str, str]]]:
    """Verdict and reason of runs by use, as a user reads them, after one load."""
    report = load_bundles(place.warehouse, place.bundles)
    assert report.problems == ()
    assert set(run_ids) <= set(report.judged)
    found: dict[str, dict[str, tuple[str, str]]] = {run_id: {} for run_id in run_ids}
    for row in query(place.warehouse, "SELECT run_id, use, verdict, reason FROM verdicts").to_pylist():
        if row["run_id"] in found:
            found[row["run_id"]][row["use"]] = (row["verdict"], row["reason"])
    return found


def of_inputs(name: str, value: Any) -> Callable[[Manifest], None]:
    return lambda manifest: manifest["inputs"].update({name: value})


def of_hardware(**values: Any) -> Callable[[Manifest], None]:
    def edit(manifest: Manifest) -> None:
        manifest["hardware"].update(values)
        manifest["inputs"].update(values)

    return edit


def of_task(**values: Any) -> Callable[[Manifest], None]:
    return lambda manifest: manifest["tasks"][0].update(values)


def second_start(manifest: Manifest) -> None:
    """The run's second part ran on a newer engine."""
    first = manifest["engine_starts"][0]
    later = first | {"engine_start_id": "start-2", "engine_version": "0.26.0"}
    manifest["engine_starts"].append(later)
    manifest["tasks"][1]["engine_start_id"] = "start-2"


def other_policy(manifest: Manifest) -> None:
    manifest["policy"]["alpha"] = 0.01


RUNS: dict[str, tuple[Callable[[Manifest], None], str]] = {
    "engine": (
        of_inputs("engine", "sglang"),
        "engine differs: baseline {0}, candidate {1}|sglang 0.25.1|vllm 0.25.1",
    ),
    "engine version": (
        of_inputs("engine_version", "0.26.0"),
        "engine differs: baseline {0}, candidate {1}|vllm 0.26.0|vllm 0.25.1",
    ),
    "engine versions within a run": (second_start, "the {2}'s parts ran on different engine versions"),
    "GPU architecture": (
        of_hardware(sm_arch="sm_100"),
        "GPU architecture differs: baseline {0}, candidate {1}|sm_100|sm_90",
    ),
    "task version": (of_task(version="2"), "task sums: version differs: baseline {0}, candidate {1}|2|1"),
    "metric": (of_task(metric="f1"), "task sums: metric differs: baseline {0}, candidate {1}|f1|exact_match"),
    "filter": (
        of_task(filter="strict"),
        "task sums: filter differs: baseline {0}, candidate {1}|strict|none",
    ),
    "policy": (other_policy, "policy differs: baseline 'toys' ("),
    "dummy weights": (
        lambda manifest: manifest["checkpoint"].update({"weights": "dummy"}),
        "the {2}'s weights are random",
    ),
    "chat template on one side": (
        of_inputs("suite", {"tasks": ["sums", "cloze"], "chat_template": True}),
        "the suites differ in chat_template",
    ),
    "limit": (of_inputs("suite", {"tasks": ["sums", "cloze"], "limit": 50}), "the suites differ in limit"),
}
"""What differs between two runs, and the reason: its two values are the edited side's and the other's."""


def with_first(**changes: Any) -> Callable[[Rows], Rows]:
    """The first sample of the task sums changed."""
    return lambda rows: [rows[0] | changes, *rows[1:]]


SAMPLED: dict[str, tuple[Callable[[Rows], Rows], str]] = {
    "prompts": (with_first(prompt_hash="x"), "the prompt differs on 1 of 100 documents"),
    "documents": (with_first(doc_hash="x"), "the document differs on 1 of 100 documents"),
    "targets": (with_first(target_hash="x"), "the target differs on 1 of 100 documents"),
    "metrics": (with_first(metric="f1"), "the metric differs on 1 of 100 documents"),
    "clusters": (with_first(cluster="law"), "the cluster differs on 1 of 100 documents"),
    "no number": (with_first(score=float("nan")), "the {0}'s score is not a number on 1 document"),
    "no fraction": (with_first(score=-0.5), "the {0}'s score is not from 0 to 1 on 1 document"),
    "missing documents": (
        lambda rows: rows[3:],
        "3 documents without a pair ({1} only in the baseline, {2} only in the candidate)",
    ),
}
"""What differs between samples of the task sums, and the reason."""

SIDES = ("baseline", "candidate")


@pytest.fixture(scope="module")
def found(module_place: Any, spec: Any) -> dict[Case, dict[str, tuple[str, str]]]:
    """A pair of runs for every case, in one warehouse."""
    runs = {}
    for number, case in enumerate((what, side) for side in SIDES for what in (*RUNS, *SAMPLED)):
        what, side = case
        baseline = spec(f"run-bf16-{number}")
        candidate = spec(f"run-fp8-{number}", "fp8", baseline=baseline)
        module_place.write(baseline, candidate)
        folder = module_place.bundles / (baseline if side == "baseline" else candidate).run_id
        if what in RUNS:
            edit_manifest(folder, RUNS[what][0])
        else:
            edit_samples(folder, SAMPLED[what][0])
        runs[case] = candidate.run_id
    by_run = verdicts(module_place, *runs.values())
    return {case: by_run[run_id] for case, run_id in runs.items()}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("what", RUNS)
def test_what_differs_between_two_runs_is_the_reason(found, what, side):
    template, *values = RUNS[what][1].split("|")
    there_and_here = values if side == "baseline" else values[::-1]
    assert set(found[what, side]) == {"all", "math", "conversation"}
    for verdict, reason in found[what, side].values():
        assert verdict == "NOT_COMPARABLE"
        assert reason.startswith(template.format(*(there_and_here or ["", ""]), side))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("what", SAMPLED)
def test_samples_that_do_not_pair_spoil_the_uses_of_their_task_only(found, what, side):
    counts = (0, 3) if side == "baseline" else (3, 0)
    reason = f"task sums: {SAMPLED[what][1].format(side, *counts)}"
    for use in ("all", "math"):
        assert found[what, side][use] == ("NOT_COMPARABLE", reason)
    assert found[what, side]["conversation"][0] == "VALIDATED"


def test_a_baseline_of_another_revision_or_without_a_task_or_other_prompts(place, spec):
    """One load of three pairs: the last as if a chat template had been applied on one side and nobody had said so."""
    for name in ("revision", "task", "template"):
        baseline = spec(f"run-bf16-{name}")
        place.write(baseline, spec(f"run-{name}", "fp8", baseline=baseline))
    edit_manifest(
        place.bundles / "run-revision",
        lambda manifest: manifest["baseline"].update({"revision": "sha256:other"}),
    )
    lacking = place.bundles / "run-bf16-task"
    edit_samples(lacking, lambda rows: [row for row in rows if row["task"] == "cloze"])
    edit_manifest(lacking, lambda manifest: manifest["tasks"].pop(0))
    edit_samples(
        place.bundles / "run-template",
        lambda rows: [row | {"prompt_hash": f"<user>{row['prompt_hash']}"} for row in rows],
    )
    found = verdicts(place, "run-revision", "run-task", "run-template")
    assert {verdict for uses in found.values() for verdict, _ in uses.values()} == {"NOT_COMPARABLE"}
    assert found["run-revision"]["all"][1].startswith("declared against baseline sha256:other, not sha256:")
    assert found["run-task"]["all"][1] == "the baseline did not run task sums"
    assert found["run-template"]["all"][1] == "; ".join(
        f"task {task}: the prompt differs on 100 of 100 documents" for task in ("sums", "cloze")
    )


def test_a_large_baseline_on_two_gpus_pairs_with_its_candidate_on_one(place, spec):
    model = load_yaml(ROOT / "configs" / "models" / "llama-3.1-70b.yaml", ModelConfig)
    bf16, fp8 = model.baseline.source, model.candidates[0].source
    assert (bf16, fp8) == ("meta-llama/Llama-3.1-70B-Instruct", "nvidia/Llama-3.1-70B-Instruct-FP8")
    baseline = spec("run-70b-bf16", checkpoint=bf16, gpu_count=2)
    candidate = spec("run-70b-fp8", "fp8", checkpoint=fp8, baseline=baseline, gpu_count=1)
    place.write(baseline, candidate)
    manifests = [
        json.loads((place.bundles / run / "manifest.json").read_text())
        for run in ("run-70b-bf16", "run-70b-fp8")
    ]
    assert [m["inputs"]["serving"]["arguments"]["tensor-parallel-size"] for m in manifests] == [2, 1]
    found = verdicts(place, "run-70b-fp8")["run-70b-fp8"]
    assert {use: verdict for use, (verdict, _) in found.items()} == dict.fromkeys(
        ("all", "math", "conversation"), "VALIDATED"
    )
    counts = query(
        place.warehouse,
        "SELECT precision, gpu_count, verdict FROM validated_table WHERE use = 'all' AND concurrency = 1",
    )
    rows = {(row["precision"], row["gpu_count"], row["verdict"]) for row in counts.to_pylist()}
    assert rows == {("bf16", 2, "BASELINE"), ("fp8", 1, "VALIDATED")}
