"""What a verdict belongs to, and whose verdict stands where a question was asked more than once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from quantgate.bundles.identity import verdict_key
from quantgate.model.served import served_precision
from tests.support.loaded_homes import Place
from tests.support.written_runs import BASELINE, FP8, START
from warehouse.load import load_bundles
from warehouse.query import query
from warehouse.report.flips import find_flips


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


@pytest.mark.usefixtures("begun")
def test_answers_of_repeated_and_continued_runs_count_once(place: Any, three: Any) -> None:
    """Of a repeat the last run is the latest, of a continued run the one that goes on from it."""
    baseline, fp8, nvfp4 = three
    later = nvfp4.started_at + timedelta(days=1)
    place.write(*three, replace(nvfp4, run_id="run-nvfp4-again", started_at=later))
    place.write(replace(fp8, run_id="run-fp8-more", started_at=later, continues=fp8.run_id))
    load_bundles(place.warehouse, place.bundles)
    for view in ("flips", "samples"):
        sql = f"SELECT DISTINCT run_id, latest FROM {view} WHERE precision IN ('fp8', 'nvfp4')"
        latest = {row["run_id"]: row["latest"] for row in query(place.warehouse, sql).to_pylist()}
        assert not latest.pop(nvfp4.run_id)
        assert latest.pop("run-nvfp4-again")
        assert latest in ({fp8.run_id: False, "run-fp8-more": True}, {}), view
    total = query(place.warehouse, "SELECT count(*) AS n FROM flips WHERE precision = 'nvfp4' AND latest")
    assert total.to_pylist() == [{"n": find_flips(place.warehouse, run_id=nvfp4.run_id)[1]}]
    rows, shown = find_flips(place.warehouse, checkpoint=nvfp4.checkpoint)
    assert set(rows.column("run_id").to_pylist()) == {"run-nvfp4-again"}
    assert shown == rows.num_rows
    points = query(
        place.warehouse, "SELECT count(*) AS n FROM throughput_points WHERE latest AND precision = 'nvfp4'"
    )
    assert points.to_pylist() == [{"n": 2}]
    assert (
        baseline.run_id
        in query(place.warehouse, "SELECT run_id FROM samples WHERE latest").column("run_id").to_pylist()
    )


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
    assert key(OMP_NUM_THREADS="1") == key(), "threads change no answer"


@pytest.mark.usefixtures("begun")
def test_what_was_served_is_shown_beside_what_is_stored(place: Any, three: Any) -> None:
    arguments = {"kv-cache-dtype": "fp8", "dtype": "float16"}
    place.write(three[0], replace(three[0], run_id="run-other", arguments=arguments))
    load_bundles(place.warehouse, place.bundles)
    wanted = (
        "SELECT declared_kv_cache_dtype, kv_cache_dtype, precision, served_precision FROM runs ORDER BY ALL"
    )
    rows = [tuple(row.values()) for row in query(place.warehouse, wanted).to_pylist()]
    assert rows == [("auto", "auto", "bf16", "bf16"), ("auto", "fp8", "bf16", "fp16")]


@pytest.mark.usefixtures("begun")
def test_one_rule_says_in_which_precision_weights_are_served(place: Any, three: Any) -> None:
    place.write(three[0])
    load_bundles(place.warehouse, place.bundles)
    dtypes = [None, "auto", "half", "float16", "bfloat16", "float", "float32", "odd"]
    pairs = [
        (stored, dtype) for stored in ("bf16", "fp16", "fp32", "fp8", "nvfp4", "mixed") for dtype in dtypes
    ]
    rows = query(
        place.warehouse,
        "SELECT served_precision(stored, dtype) AS served "
        "FROM (SELECT unnest($stored) AS stored, unnest($dtype) AS dtype)",
        {"stored": [stored for stored, _ in pairs], "dtype": [dtype for _, dtype in pairs]},
    )
    expected = [served_precision(stored, {"dtype": dtype} if dtype else {}) for stored, dtype in pairs]
    assert rows.column("served").to_pylist() == expected


@pytest.mark.usefixtures("begun")
def going_on(run: Any, continues: str, **changes: Any) -> Any:
    """A run that goes on from an earlier one, an hour later."""
    later = {"started_at": run.started_at + timedelta(hours=1), "fingerprint": "another"}
    return replace(run, run_id="run-fp8-on", continues=continues, **later, **changes)


def test_a_run_that_continues_another_takes_its_place(place: Any, three: Any) -> None:
    baseline, candidate, _ = three
    short_baseline = replace(baseline, run_id="run-bf16-30", documents=30)
    short = replace(candidate, run_id="run-fp8-30", baseline=short_baseline, documents=30)
    longer = going_on(candidate, "run-fp8-30", baseline=baseline)
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


def test_a_run_whose_load_levels_no_later_one_has_stays_in_the_table_under_the_chains_verdict(
    place: Any, three: Any
) -> None:
    baseline, candidate, _ = three
    first = replace(candidate, points={1: 100.0, 8: 400.0})
    hour = timedelta(hours=1)
    other_load = replace(
        first,
        run_id="run-fp8-load",
        continues=first.run_id,
        points={2: 180.0},
        fingerprint="another",
        started_at=first.started_at + hour,
    )
    again = replace(
        first,
        run_id="run-fp8-on",
        continues="run-fp8-load",
        fingerprint="a third",
        started_at=first.started_at + 2 * hour,
    )

    def shown() -> set[tuple[str, int]]:
        rows = query(
            place.warehouse,
            "SELECT DISTINCT run_id, concurrency, verdict FROM validated_table WHERE precision = 'fp8' AND use = 'all'",
        ).to_pylist()
        assert {row["verdict"] for row in rows} == {"VALIDATED"}
        return {(row["run_id"], row["concurrency"]) for row in rows}

    place.write(baseline, first, other_load)
    load_bundles(place.warehouse, place.bundles)
    assert shown() == {("run-fp8", 1), ("run-fp8", 8), ("run-fp8-load", 2)}
    place.write(again)
    load_bundles(place.warehouse, place.bundles)
    assert shown() == {("run-fp8-load", 2), ("run-fp8-on", 1), ("run-fp8-on", 8)}


def test_a_use_that_is_decided_keeps_its_verdict_while_the_chain_goes_on(place: Any, three: Any) -> None:
    """`sums` is worse at first and not in the end; `cloze` takes all documents. Each use has its first decision."""
    baseline, candidate, _ = three
    short_baseline = replace(baseline, run_id="run-bf16-60", documents=60)
    short = replace(
        candidate,
        run_id="run-fp8-60",
        baseline=short_baseline,
        documents=60,
        wrong={"sums": range(1, 30, 2), "cloze": (1, 2, 3)},
    )
    longer = going_on(candidate, "run-fp8-60", baseline=baseline, wrong={})
    place.write(short_baseline, baseline, short, longer)
    load_bundles(place.warehouse, place.bundles)
    rows = query(
        place.warehouse,
        "SELECT run_id, use, verdict, decided_by FROM verdicts WHERE precision = 'fp8' ORDER BY ALL",
    ).to_pylist()
    assert [(row["run_id"], row["use"], row["verdict"], row["decided_by"]) for row in rows] == [
        ("run-fp8-60", "all", "REJECTED", "run-fp8-60"),
        ("run-fp8-60", "conversation", "INCONCLUSIVE", "run-fp8-on"),
        ("run-fp8-60", "math", "REJECTED", "run-fp8-60"),
        ("run-fp8-on", "all", "VALIDATED", "run-fp8-60"),
        ("run-fp8-on", "conversation", "VALIDATED", "run-fp8-on"),
        ("run-fp8-on", "math", "VALIDATED", "run-fp8-60"),
    ]


def test_a_load_level_that_two_runs_hold_counts_once(place: Place) -> None:
    """Under another policy c1 is reused and c8 measured anew; a third run reuses both of what was measured."""
    later = START + timedelta(days=1)
    again = replace(
        FP8, run_id="fp8-again", fingerprint="again", started_at=later, reused={"load c1": "run-fp8"}
    )
    third = replace(
        again,
        run_id="fp8-third",
        fingerprint="third",
        started_at=later + timedelta(days=1),
        reused={"load c1": "run-fp8", "load c8": "fp8-again"},
    )
    place.write(BASELINE, FP8, again, third)
    assert load_bundles(place.warehouse, place.bundles).problems == ()
    found = query(
        place.warehouse,
        "SELECT run_id, operating_point, reused_from, latest FROM throughput_points WHERE precision = 'fp8' "
        "ORDER BY run_id, concurrency",
    )
    assert [tuple(row.values()) for row in found.to_pylist()] == [
        ("fp8-again", "c1", "run-fp8", False),
        ("fp8-again", "c8", None, False),
        ("fp8-third", "c1", "run-fp8", True),
        ("fp8-third", "c8", "fp8-again", True),
        ("run-fp8", "c1", None, False),
        ("run-fp8", "c8", None, True),
    ]
    shown = query(
        place.warehouse,
        "SELECT DISTINCT run_id, operating_point FROM validated_table WHERE precision = 'fp8'",
    )
    assert shown.num_rows == 6, "each run's row has the load of its checkpoint"
    costs = query(
        place.warehouse,
        "SELECT DISTINCT run_id, operating_point FROM cost_per_token WHERE latest AND precision = 'fp8'",
    )
    assert costs.num_rows == 3
