"""Controls: figures counted once at load, alarms where they are due, and no verdict that an alarm changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from scipy.stats import beta, binomtest

from quantgate.judge.stats.tango import tango_interval
from quantgate.model.enums import Family
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from warehouse.configuration import CONFIGS, read_configuration
from warehouse.load import load_bundles
from warehouse.query import query
from warehouse.report.render import render
from warehouse.report.summary import summary_table

Edit = Callable[[dict[str, Any]], None]
MATH = {"sums": Family.MATH}


def rows(place: Any, columns: str = "*", where: str = "true") -> list[dict[str, Any]]:
    return query(place.warehouse, f"SELECT {columns} FROM controls WHERE {where}").to_pylist()


def alarms(place: Any, run: str) -> list[str]:
    return [code for row in rows(place, "alarms", f"run_id = '{run}'") for code in row["alarms"]]


def edited(documents: range, **values: Any) -> Edit:
    """Set values of some documents' rows."""

    def edit(row: dict[str, Any]) -> None:
        if int(row["doc_id"]) in documents:
            row.update(values)

    return edit


def flipped(*documents: int) -> Edit:
    """Turn the scores of some documents."""

    def edit(row: dict[str, Any]) -> None:
        if int(row["doc_id"]) in documents:
            row.update(score=1 - row["score"], responses='[["otherwise"]]')

    return edit


ALL = range(100)
CANDIDATES: dict[str, tuple[Edit | None, list[str]]] = {
    "sound": (None, []),
    "longer": (edited(ALL, output_tokens=4), ["output_length"]),
    "shorter": (edited(ALL, output_tokens=2), ["output_length"]),
    "longer-by-9.7-percent": (edited(range(29), output_tokens=4), []),
    "longer-by-10.3-percent": (edited(range(31), output_tokens=4), ["output_length"]),
    "two-cut-off": (edited(range(2), finish_reason="length"), ["cap_hits"]),
    "one-cut-off": (edited(range(1), finish_reason="length"), []),
    "two-empty": (edited(range(2), responses='[["\\n ", ""]]'), ["empty_answers"]),
    "one-empty": (edited(range(1), responses='[[""]]'), []),
    "choices": (edited(ALL, responses="[[[-14.0, true]], [[-6.5, false]]]"), []),
    "not-a-number": (edited(range(5), score=math.nan), ["nan_scores"]),
    "perfect": (edited(ALL, score=1.0), ["perfect_score", "implausible_gain"]),
    "four-better": (edited(range(31), score=1.0), []),  # chance would do
}
"""Candidates of one baseline, which answers each in three tokens and gets every tenth of 100 wrong: alarms."""


def words(row: dict[str, Any]) -> None:
    """Of the second answers two turn wrong and one right, and two more say the same in other words."""
    flipped(1, 2, 10)(row)
    edited(range(11, 13), responses='[["otherwise"]]')(row)


BASELINES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "steady": ({"again": 50}, []),
    "cut-off": ({"edit": edited(range(11), finish_reason="length")}, ["cap_hits"]),
    "in-other-words": ({"again": 50, "edit_again": words}, []),
    "noisy": ({"again": 50, "edit_again": flipped(*range(0, 50, 5))}, ["aa_noise"]),
    "flips-at-times": ({"again": 50, "edit_again": flipped(0, 10, 20, 1, 2, 3)}, []),
    "moves": ({"documents": 2000, "again": 200, "edit_again": edited(range(1, 10), score=0.0)}, ["aa_noise"]),
    "halves": (
        {"edit": edited(ALL, score=0.5), "again": 50, "edit_again": edited(range(4), score=0.75)},
        [],
    ),
}


@pytest.fixture(scope="module")
def many(module_place: Any, three: Any) -> Any:
    """A home with all of them, loaded once."""
    baseline = replace(three[0], tasks=MATH)
    specs = [baseline]
    for name, (edit, _) in CANDIDATES.items():
        specs.append(
            replace(three[1], run_id=name, fingerprint=name, baseline=baseline, tasks=MATH, edit=edit)
        )
    for name, (changes, _) in BASELINES.items():
        specs.append(replace(baseline, run_id=name, fingerprint=name, **changes))
    for name in ("steady", "flips-at-times"):
        beside = next(spec for spec in specs if spec.run_id == name)
        edit = CANDIDATES["perfect"][0]
        specs.append(replace(three[1], run_id=f"perfect-{name}", baseline=beside, tasks=MATH, edit=edit))
    module_place.write(*specs)
    assert load_bundles(module_place.warehouse, module_place.bundles).problems == ()
    return module_place


def test_a_sound_pair_has_figures_and_no_alarm(many: Any) -> None:
    (baseline,), (candidate,) = rows(many, where="run_id = 'run-bf16'"), rows(many, where="run_id = 'sound'")
    for row in (baseline, candidate):
        assert (row["task"], row["family"], row["documents"], row["mean_score"]) == ("sums", "math", 100, 0.9)
        assert (row["output_tokens_mean"], row["cap_hit_rate"], row["empty_rate"]) == (3, 0, 0)
        assert (row["nan_scores"], row["alarms"], row["alarm_texts"]) == (0, [], [])
        assert dict(row["null_reasons"])["aa_documents"] == "not_measured"
    assert candidate["output_length_ratio"] == 1
    assert baseline["output_length_ratio"] is None
    assert dict(baseline["null_reasons"])["output_length_ratio"] == "not_applicable"


@pytest.mark.parametrize(
    ("run", "expected"),
    [(name, expected) for found in (CANDIDATES, BASELINES) for name, (_, expected) in found.items()],
)
def test_alarms(many: Any, run: str, expected: list[str]) -> None:
    (row,) = rows(many, where=f"run_id = '{run}'")
    assert row["alarms"] == expected
    assert len(row["alarm_texts"]) == len(expected)
    assert all(text and len(text) < 130 for text in row["alarm_texts"])


def test_the_second_answers_give_the_noise_floor(many: Any) -> None:
    (row,) = rows(many, where="run_id = 'in-other-words'")
    assert (row["aa_documents"], row["aa_flips"], row["aa_flip_rate"]) == (50, 3, 0.06)
    assert row["aa_changed_responses"] == 0.1
    assert row["aa_delta"] == pytest.approx(-1 / 50)
    assert (row["aa_delta_ci_low"], row["aa_delta_ci_high"]) == tango_interval(2, 1, 50, 0.05)
    assert row["aa_flip_rate_upper"] == pytest.approx(beta.ppf(0.95, 4, 47))
    # Planned at delta 0: n = rho (z_alpha + z_beta)^2 / margin^2, solved for the margin of 100 documents.
    assert row["aa_resolution"] == pytest.approx(math.sqrt(0.06 / 100) * (1.644854 + 0.841621), rel=1e-6)


def test_noise_that_hides_the_margin(many: Any) -> None:
    (row,) = rows(many, where="run_id = 'noisy'")
    assert row["aa_flips"] == 10
    assert row["aa_resolution"] > 0.1, "the policy's margin"
    assert row["alarm_texts"][0].startswith(
        "10 of 50 answers flip over a restart: 100 documents can't resolve"
    )


def test_a_score_that_moves_over_a_restart(many: Any) -> None:
    (row,) = rows(many, where="run_id = 'moves'")
    assert binomtest(9, 9).pvalue < 0.01
    assert (row["aa_flips"], row["aa_delta"]) == (9, pytest.approx(-0.045))
    assert row["aa_resolution"] < 0.1
    assert row["alarm_texts"] == ["the score moves by -4.50 points over a restart (p 0.0039)"]


def test_a_gain_within_the_noise_is_none(many: Any) -> None:
    """Ten right answers more are implausible beside a baseline that never flips, and not beside one that does."""
    assert "implausible_gain" in alarms(many, "perfect-steady")
    assert "implausible_gain" not in alarms(many, "perfect-flips-at-times")
    (row,) = rows(many, where="run_id = 'perfect-flips-at-times'")
    assert (row["aa_documents"], row["aa_flips"]) == (50, 6), "its baseline's"


def test_scores_between_0_and_1_have_a_noise_floor_too(many: Any) -> None:
    (row,) = rows(many, where="run_id = 'halves'")
    assert (row["aa_flips"], row["aa_delta"]) == (4, pytest.approx(0.02))
    assert row["aa_delta_ci_low"] < 0.02 < row["aa_delta_ci_high"]
    mean_square = 4 * 0.25**2 / 50
    assert row["aa_resolution"] == pytest.approx(
        math.sqrt(mean_square / 100) * (1.644854 + 0.841621), rel=1e-6
    )


def test_it_reads_well_in_100_columns(many: Any) -> None:
    shown = query(
        many.warehouse,
        "SELECT precision, task, documents, output_length_ratio AS length, aa_flips, aa_documents, alarms "
        "FROM controls",
    )
    assert max(map(len, render(shown).splitlines())) <= 100
    rules = query(many.warehouse, "SELECT code, threshold, meaning, source FROM alarm_rules").to_pylist()
    raised = {code for found in (CANDIDATES, BASELINES) for _, codes in found.values() for code in codes}
    assert {row["code"] for row in rules} == raised | {"below_published", "kl_high", "nan_logprobs"}
    assert all(0 <= row["threshold"] <= 20 and row["meaning"] and row["source"] for row in rules)
    page = (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8")
    assert all(f"`{row['code']}`" in page for row in rules)


def test_a_report_shows_noise_and_alarms(many: Any) -> None:
    asked = ["in-other-words", "noisy", "sound", "shorter", "not-a-number"]
    text = summary_table(many.warehouse, run_ids=asked)
    assert max(map(len, text.splitlines())) <= 100
    flat = " ".join(text.split())
    assert (
        "A/A: bf16 #1 against itself over a restart of its engine: of 50 answers 3 changed their score, "
        "5 changed at all." in flat
    )
    assert "Alarm aa_noise, bf16 #2, sums: 10 of 50 answers flip over a restart" in flat
    assert "Alarm output_length, fp8 #2, sums: answers are 0.67 times as long as the baseline's." in flat
    assert "Alarm nan_scores, fp8 #1, sums: 5 of 100 scores are not a number." in flat
    assert text.count("Alarm ") == 3
    page = summary_table(many.warehouse, run_ids=asked, markdown=True)
    assert page.count("- Alarm ") == 3


@pytest.mark.usefixtures("begun")
def test_scores_that_are_no_numbers_lose_nothing_of_the_run(place: Any, three: Any) -> None:
    """The judge compares no such task; the run, its load and its other task are there all the same."""
    baseline, candidate, _ = three

    def edit(row: dict[str, Any]) -> None:
        if row["task"] == "sums" and int(row["doc_id"]) < 5:
            row["score"] = math.nan

    place.write(baseline, replace(candidate, edit=edit))
    assert load_bundles(place.warehouse, place.bundles).problems == ()
    (row,) = query(
        place.warehouse,
        "SELECT verdict, reason FROM verdicts WHERE run_id = 'run-fp8' AND use = 'math'",
    ).to_pylist()
    assert row["verdict"] == "NOT_COMPARABLE"
    assert "the candidate's score is not a number on 5 documents" in row["reason"]
    figures = rows(place, "task, documents, mean_score, nan_scores, alarms", "run_id = 'run-fp8'")
    assert [(one["task"], one["documents"], one["nan_scores"]) for one in figures] == [
        ("cloze", 100, 0),
        ("sums", 100, 5),
    ]
    assert figures[1]["mean_score"] == pytest.approx(86 / 95)
    counts = query(place.warehouse, "SELECT count(*) AS n FROM throughput_points WHERE run_id = 'run-fp8'")
    assert counts.to_pylist() == [{"n": 2}]


def test_an_alarm_changes_no_verdict(many: Any) -> None:
    """Whatever length, end or words the same scores come with."""
    names = ("sound", "longer", "shorter", "two-cut-off", "two-empty")
    found = query(
        many.warehouse,
        "SELECT DISTINCT use, verdict, quality_delta, worst_task FROM verdicts WHERE use = 'math' AND "
        f"list_contains({list(names)}, run_id)",
    ).to_pylist()
    assert [(row["verdict"], row["quality_delta"]) for row in found] == [("VALIDATED", 0)]


@pytest.mark.usefixtures("begun")
def test_one_that_stopped_early_is_held_against_the_same_documents(place: Any, three: Any) -> None:
    """The baseline's answers to the later documents are longer; they don't count."""

    def placed(row: dict[str, Any]) -> None:
        row["position"] = int(row["doc_id"])
        if row["position"] >= 40:
            row.update(output_tokens=30, finish_reason="length")

    baseline = replace(three[0], tasks=MATH, edit=placed)
    candidate = replace(three[1], baseline=baseline, tasks=MATH, documents=40, edit=placed)
    place.write(baseline, candidate)
    load_bundles(place.warehouse, place.bundles)
    (row,) = rows(place, where="run_id = 'run-fp8'")
    assert (row["documents"], row["output_length_ratio"]) == (40, 1)
    assert (row["cap_hit_rate"], row["baseline_cap_hit_rate"]) == (0, 0)
    unplaced = replace(
        candidate, run_id="run-unplaced", edit=None, started_at=candidate.started_at + timedelta(1)
    )
    other = replace(baseline, run_id="run-other", edit=None)
    place.write(other, replace(unplaced, baseline=other))
    load_bundles(place.warehouse, place.bundles)
    (row,) = rows(place, where="run_id = 'run-unplaced'")
    assert row["output_length_ratio"] is None, "nobody knows which of the baseline's documents these are"
    assert dict(row["null_reasons"])["output_length_ratio"] == "not_comparable"


@pytest.mark.usefixtures("begun")
def test_a_candidate_that_comes_first_is_counted_again_with_its_baseline(place: Any, three: Any) -> None:
    baseline, candidate, _ = three
    place.write(candidate)
    load_bundles(place.warehouse, place.bundles)
    assert {dict(row["null_reasons"])["output_length_ratio"] for row in rows(place)} == {"no_baseline"}
    place.write(baseline)
    load_bundles(place.warehouse, place.bundles)
    found = rows(place, "run_id, task, output_length_ratio")
    assert [(row["run_id"], row["task"]) for row in found] == [
        (run, task) for run in ("run-bf16", "run-fp8") for task in ("cloze", "sums")
    ]
    assert [row["output_length_ratio"] for row in found] == [None, None, 1, 1]


@pytest.mark.usefixtures("begun")
def test_runs_from_before_are_counted_at_the_next_load(place: Any, three: Any) -> None:
    place.write(*three[:2])
    load_bundles(place.warehouse, place.bundles)
    before = rows(place)
    with duckdb.connect(str(place.warehouse)) as connection:  # as a warehouse is just after the migration
        connection.execute("DELETE FROM store.task_controls")
        connection.execute("DELETE FROM store.aa_controls")
    place.write(three[2])
    load_bundles(place.warehouse, place.bundles)
    assert rows(place, where="run_id <> 'run-nvfp4'") == before
    assert len(rows(place, where="run_id = 'run-nvfp4'")) == 2


def configured(folder: Path, *scores: dict[str, Any]) -> Path:
    """The configuration with one model, whose baseline has these published scores."""
    (folder / "models").mkdir(parents=True, exist_ok=True)
    for name in ("gpus.yaml", "prices.yaml", "policy.yaml"):
        (folder / name).write_bytes((CONFIGS / name).read_bytes())
    model = {
        "name": "toy",
        "baseline": {"source": "toy-bf16"},
        "candidates": [{"source": "toy-fp8"}],
        "suite": "quick",
        "workload": "short",
        "policy": "standard",
        "published": [
            {"task": "sums", "metric": "exact_match", "filter": "none", "source": "a card"} | score
            for score in scores
        ],
    }
    (folder / "models" / "toy.yaml").write_text(yaml.safe_dump(model))
    return folder


@pytest.mark.usefixtures("begun")
def test_a_published_score_stands_beside_the_baselines(place: Any, three: Any, tmp_path: Path) -> None:
    # 0.9 + 1.645 √(0.9 · 0.1 / 100) + 0.03 = 0.979
    published = {"far above": 0.99, "within reach": 0.97, "below": 0.6, "other settings": 0.99}
    tasks = dict.fromkeys([*published, "unpublished"], Family.MATH)
    baseline = replace(three[0], tasks=tasks)
    place.write(baseline, replace(three[1], baseline=baseline, tasks=tasks))
    scores = [{"task": task, "score": score} for task, score in published.items()]
    scores[-1] |= {"comparable": False, "note": "sampled"}
    folder = configured(tmp_path / "configs", *scores)
    load_bundles(place.warehouse, place.bundles, configs=folder)
    found = rows(place, "task, published_score, published_note, alarms", "is_baseline")
    assert {row["task"]: row["published_score"] for row in found} == published | {"unpublished": None}
    assert {row["task"]: row["alarms"] for row in found if row["alarms"]} == {
        "far above": ["below_published"]
    }
    assert {row["published_note"] for row in found} == {None, "sampled"}
    beside = rows(place, "task, published_score, alarms", "NOT is_baseline")
    assert {row["task"]: row["published_score"] for row in beside} == published | {"unpublished": None}
    assert not any(row["alarms"] for row in beside)
    load_bundles(place.warehouse, place.bundles, configs=configured(folder))
    assert {row["published_score"] for row in rows(place)} == {None}, "replaced with the configuration"


@pytest.mark.usefixtures("begun")
def test_scores_of_the_stored_evidence_stand_beside_those_checkpoints(place: Any, three: Any) -> None:
    """quality-by-precision.csv has two runs of each BF16 checkpoint, on lm-eval's own tasks."""
    tasks = {"gsm8k": Family.MATH, "mmlu_pro": Family.MATH}

    def edit(row: dict[str, Any]) -> None:
        filters = {"gsm8k": "flexible-extract", "mmlu_pro": "custom-extract"}
        row.update(filter=filters[row["task"]])

    baseline = replace(three[0], tasks=tasks, checkpoint="Qwen/Qwen3.6-27B", edit=edit)
    place.write(baseline)
    load_bundles(place.warehouse, place.bundles)
    columns = "task, mean_score, published_score, published_source, published_note, alarms"
    assert [row["published_score"] for row in rows(place, columns)] == [None, None], (
        "another filter, and version"
    )
    with duckdb.connect(str(place.warehouse)) as connection:
        connection.execute(
            "UPDATE store.run_tasks SET version = if(task = 'gsm8k', '3.0', '2.0'), "
            "filter = if(task = 'gsm8k', 'flexible-extract', 'custom-extract')"
        )
    gsm8k, mmlu_pro = rows(place, columns)
    assert gsm8k["published_score"] == pytest.approx(0.971667)
    assert mmlu_pro["published_score"] == pytest.approx((0.855714 + 0.844286) / 2)
    assert "nvfp4-benchmark" in gsm8k["published_source"]
    assert gsm8k["published_note"] == "lm-eval 0.4.12, vllm 0.22.1, 2 runs"
    assert (gsm8k["mean_score"], gsm8k["alarms"], mmlu_pro["alarms"]) == (0.9, [], [])


def test_a_score_that_is_no_fraction_or_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"published\.0\.score.*less than or equal to 1"):
        read_configuration(configured(tmp_path, {"score": 96.3}))
    with pytest.raises(ConfigError, match="a task, metric and filter are listed twice"):
        read_configuration(configured(tmp_path, {"score": 0.9}, {"score": 0.8}))
