"""What a verdict belongs to, and whose verdict stands where a question was asked more than once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from warehouse.load import load_bundles
from warehouse.query import query
from warehouse.rows import verdict_key


@pytest.mark.usefixtures("begun")
def test_a_repeat_is_a_drift_check_and_does_not_decide_again(place: Any, three: Any) -> None:
    baseline, _, candidate = three
    lucky = replace(
        candidate, run_id="run-nvfp4-again", wrong={}, started_at=candidate.started_at + timedelta(days=1)
    )
    place.write(baseline, candidate, lucky)
    load_bundles(place.warehouse, place.bundles)
    table = query(
        place.warehouse,
        "SELECT DISTINCT run_id, verdict, quality_delta, verdict_run_id FROM validated_table "
        "WHERE precision = 'nvfp4' AND use = 'all'",
    ).to_pylist()
    assert table == [
        {
            "run_id": "run-nvfp4-again",
            "verdict": "REJECTED",
            "quality_delta": pytest.approx(-0.3),
            "verdict_run_id": "run-nvfp4",
        }
    ], "the last run is shown, under the verdict of the first that was declared"
    own = query(
        place.warehouse, "SELECT verdict FROM verdicts WHERE run_id = 'run-nvfp4-again' AND use = 'all'"
    )
    assert own.to_pylist() == [{"verdict": "VALIDATED"}]


def test_what_a_verdict_belongs_to(three: Any, manifest_of: Any) -> None:
    key = verdict_key(manifest_of(three[1]))
    assert verdict_key(manifest_of(replace(three[1], run_id="again", gpu_count=2))) == key, "GPUs may differ"
    for change in (
        {"engine_version": "0.26.0"},
        {"checkpoint": "another"},
        {"arguments": {"kv-cache-dtype": "fp8"}},
        {"policy": three[1].policy.model_copy(update={"alpha": 0.01})},
        {"tasks": {"sums": three[1].tasks["sums"]}},
        {"baseline": replace(three[0], checkpoint="another baseline")},
    ):
        assert verdict_key(manifest_of(replace(three[1], **change))) != key, change


def test_which_of_a_hosts_gpus_it_was_is_no_part_of_it(three: Any, manifest_of: Any) -> None:
    """As bundles have it that were written when the variable was part of a run."""
    manifest = manifest_of(three[1])

    def key(**environment: str) -> str:
        serving = manifest.inputs.serving | {"environment": environment}
        return verdict_key(
            manifest.model_copy(update={"inputs": manifest.inputs.model_copy(update={"serving": serving})})
        )

    assert key(CUDA_VISIBLE_DEVICES="0") == key(CUDA_VISIBLE_DEVICES="1") == key()
    assert key(OMP_NUM_THREADS="1") != key()


@pytest.mark.usefixtures("begun")
def test_the_kv_cache_that_was_served_is_shown(place: Any, three: Any) -> None:
    place.write(three[0], replace(three[0], run_id="run-kv", arguments={"kv-cache-dtype": "fp8"}))
    load_bundles(place.warehouse, place.bundles)
    rows = query(place.warehouse, "SELECT run_id, kv_cache_dtype FROM runs ORDER BY ALL").to_pylist()
    assert [row["kv_cache_dtype"] for row in rows] == ["auto", "fp8"]


@pytest.mark.usefixtures("begun")
def test_a_run_that_continues_another_takes_its_place(place: Any, three: Any) -> None:
    baseline, candidate, _ = three
    short_baseline = replace(baseline, run_id="run-bf16-30", documents=30)
    short = replace(candidate, run_id="run-fp8-30", baseline=short_baseline, documents=30)
    longer = replace(
        candidate,
        run_id="run-fp8-on",
        baseline=baseline,
        continues="run-fp8-30",
        fingerprint="another",
        started_at=candidate.started_at + timedelta(hours=1),
    )
    place.write(short_baseline, baseline, short, longer)
    load_bundles(place.warehouse, place.bundles)
    rows = query(
        place.warehouse,
        "SELECT DISTINCT run_id, verdict, verdict_run_id FROM validated_table "
        "WHERE precision = 'fp8' AND use = 'all'",
    ).to_pylist()
    assert rows == [{"run_id": "run-fp8-on", "verdict": "VALIDATED", "verdict_run_id": "run-fp8-on"}]
    first = query(
        place.warehouse,
        "SELECT verdict, decided_by FROM verdicts WHERE run_id = 'run-fp8-30' AND use = 'all'",
    )
    assert first.to_pylist() == [{"verdict": "INCONCLUSIVE", "decided_by": "run-fp8-on"}]
