"""History under another policy: beside the declared verdicts, never instead of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantgate.model.config.policy import FamilyPolicy, Policy
from quantgate.model.enums import Family
from quantgate.model.errors import ConfigError
from warehouse.load import load_bundles
from warehouse.query import query
from warehouse.rejudge import JudgeReport, rejudge
from warehouse.report.render import render

WIDE = Policy(
    description="Margins so wide that thirty points are nothing.",
    alpha=0.05,
    planned_power=0.8,
    stale_after_days=90,
    families={family: FamilyPolicy(margin=0.5, min_documents=50) for family in Family},
    uses={"all": (), "sums": (Family.MATH,)},
)
DECLARED = "FROM verdicts WHERE declared = 'declared'"


def judged(place: Any, policy: Policy = WIDE, name: str = "wide", **options: Any) -> JudgeReport:
    return rejudge(place.warehouse, place.bundles, name, policy, **options)


def everything(place: Any) -> str:
    """What must not move: declared verdicts, their tasks, the table and the claims."""
    return "\n".join(
        render(query(place.warehouse, sql), "csv")
        for sql in (
            DECLARED,
            "FROM quality_delta WHERE declared = 'declared' ORDER BY ALL",
            "FROM validated_table_at('2026-06-01')",
            "FROM claims ORDER BY ALL",
        )
    )


def post_hoc(place: Any) -> dict[tuple[str, str], str]:
    rows = query(place.warehouse, "FROM verdicts WHERE declared = 'post_hoc'").to_pylist()
    assert {(row["policy"], row["policy_fingerprint"]) for row in rows} == {("wide", WIDE.fingerprint())}
    assert all(row["decided_by"] == row["run_id"] and row["verdict_key"] is None for row in rows)
    return {(row["run_id"], row["use"]): row["verdict"] for row in rows}


@pytest.mark.usefixtures("begun")
def test_post_hoc_verdicts_stand_beside_the_declared_ones(place: Any, three: Any) -> None:
    place.write(*three)
    load_bundles(place.warehouse, place.bundles)
    before = everything(place)
    report = judged(place)
    assert (report.judged, report.judged_before, report.declared) == (("run-fp8", "run-nvfp4"), (), ())
    assert report.problems == ()
    assert post_hoc(place) == {
        (run, use): "VALIDATED" for run in ("run-fp8", "run-nvfp4") for use in ("all", "sums")
    }
    assert everything(place) == before, "declared verdicts, table and claims are as they were"
    declared = query(place.warehouse, f"{DECLARED} AND run_id = 'run-nvfp4' AND use = 'all'").to_pylist()
    assert [row["verdict"] for row in declared] == ["REJECTED"]
    tasks = query(
        place.warehouse,
        "SELECT declared, policy, margin, outcome FROM quality_delta "
        "WHERE run_id = 'run-nvfp4' AND task = 'sums' AND use = 'all' ORDER BY declared",
    ).to_pylist()
    assert tasks == [
        {"declared": "declared", "policy": "toys", "margin": 0.1, "outcome": "fail"},
        {"declared": "post_hoc", "policy": "wide", "margin": 0.5, "outcome": "pass"},
    ]
    once = query(
        place.warehouse,
        "SELECT DISTINCT declared, quality_delta_corrected = quality_delta AS same FROM quality_delta ORDER BY ALL",
    ).to_pylist()
    assert once == [{"declared": "declared", "same": True}, {"declared": "post_hoc", "same": True}]


@pytest.mark.usefixtures("begun")
def test_judging_again_changes_nothing_adds_what_came_since_and_can_be_repeated(
    place: Any, three: Any
) -> None:
    place.write(*three[:2])
    assert judged(place).judged == ("run-fp8",), "new bundles are loaded first"
    content, inode = place.warehouse.read_bytes(), place.warehouse.stat().st_ino
    report = judged(place)
    assert (report.judged, report.judged_before) == ((), ("run-fp8",))
    assert (place.warehouse.read_bytes(), place.warehouse.stat().st_ino) == (content, inode)
    place.write(three[2])
    report = judged(place)
    assert (report.judged, report.judged_before) == (("run-nvfp4",), ("run-fp8",))
    doubled = query(
        place.warehouse,
        "SELECT run_id, use, policy, policy_fingerprint FROM verdicts GROUP BY ALL HAVING count(*) > 1",
    )
    assert doubled.num_rows == 0
    assert not [path for path in place.path.iterdir() if ".next-" in path.name]
    sql = "FROM quality_delta WHERE declared = 'post_hoc' ORDER BY ALL"
    first = render(query(place.warehouse, sql), "csv")
    place.warehouse.unlink()
    judged(place)
    assert render(query(place.warehouse, sql), "csv") == first, "a rebuilt warehouse, the same command"


@pytest.mark.usefixtures("begun")
def test_the_policy_that_a_run_declared_is_not_judged_twice(place: Any, three: Any) -> None:
    place.write(*three)
    report = judged(place, three[0].policy, "toys")
    assert (report.judged, report.declared) == ((), ("run-fp8", "run-nvfp4"))
    stricter = three[0].policy.model_copy(update={"alpha": 0.01})
    assert judged(place, stricter, "toys").judged == ("run-fp8", "run-nvfp4"), "same name, other content"
    rows = query(
        place.warehouse, "SELECT DISTINCT policy, alpha FROM policies WHERE policy = 'toys' ORDER BY alpha"
    )
    assert rows.to_pylist() == [{"policy": "toys", "alpha": 0.01}, {"policy": "toys", "alpha": 0.05}]


@pytest.mark.usefixtures("begun")
def test_runs_that_declared_different_policies_are_comparable_under_one(place: Any, three: Any) -> None:
    other = replace(three[1], policy=three[1].policy.model_copy(update={"alpha": 0.01}))
    place.write(three[0], other)
    load_bundles(place.warehouse, place.bundles)
    declared = query(
        place.warehouse, f"SELECT DISTINCT verdict, reason FROM ({DECLARED}) WHERE NOT verdict = 'BASELINE'"
    )
    assert [row["verdict"] for row in declared.to_pylist()] == ["NOT_COMPARABLE"]
    judged(place)
    assert set(post_hoc(place).values()) == {"VALIDATED"}


@pytest.mark.usefixtures("begun")
def test_one_run(place: Any, three: Any) -> None:
    place.write(*three, replace(three[1], run_id="run-idle", tasks={}))
    assert judged(place, run_id="run-nvfp4").judged == ("run-nvfp4",)
    assert {run for run, _ in post_hoc(place)} == {"run-nvfp4"}
    for run_id, refusal in (
        ("run-nvfp5", "--run: nothing is called 'run-nvfp5'. Did you mean 'run-nvfp4'?"),
        ("run-bf16", "run run-bf16: it is a baseline: there is nothing to compare it with."),
        ("run-idle", "run run-idle: no quality was measured."),
    ):
        with pytest.raises(ConfigError) as error:
            judged(place, run_id=run_id)
        assert str(error.value).startswith(refusal)


@pytest.mark.usefixtures("begun")
def test_what_a_policy_cannot_judge_or_find_is_one_line_each(place: Any, three: Any) -> None:
    poems = replace(three[0], run_id="run-poems", tasks={"poems": Family.KNOWLEDGE}, policy=WIDE)
    reading = replace(three[1], run_id="run-reading", tasks=poems.tasks, policy=WIDE, baseline=poems)
    place.write(*three, poems, reading)
    load_bundles(place.warehouse, place.bundles)
    shutil.rmtree(Path(place.bundles) / "run-nvfp4")
    narrow = WIDE.model_copy(
        update={"families": {f: WIDE.families[f] for f in (Family.MATH, Family.CONVERSATION)}}
    )
    report = judged(place, narrow)
    assert report.judged == ("run-fp8",)
    no_bundle, no_margin = sorted(line for line in report.problems if line.startswith("run run-"))
    assert no_bundle.startswith("run run-nvfp4, bundle run-nvfp4: manifest.json is missing.")
    assert no_margin.startswith(
        "run run-reading, policy wide: no margin for family 'knowledge', which task poems"
    )
    with pytest.raises(ConfigError, match="no margin for family 'knowledge'"):
        judged(place, narrow, run_id="run-reading")
