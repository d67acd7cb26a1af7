"""The contract's table: its columns, its key, its costs, and a reason for all it doesn't know."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantgate.model.enums import Family, KernelMode, Validity, Verdict
from tests.support.sample_rows import policy_of
from warehouse.configuration import CONFIGS
from warehouse.load import load_bundles
from warehouse.query import query
from warehouse.report.render import render
from warehouse.report.summary import summary_table

CONTRACT = """
    model checkpoint revision baseline precision weight_format kv_cache_dtype kernel kernel_mode
    weights gpu sm_arch mig_slice gpu_count engine engine_version workload isl osl operating_point
    concurrency provider region price_kind usd_per_hour price_as_of output_tok_s output_tok_s_ci_low
    output_tok_s_ci_high usd_per_mtok_output usd_per_mtok_output_ci_low usd_per_mtok_output_ci_high
    usd_per_mtok_total usd_per_mtok_goodput ttft_p50_ms ttft_p99_ms tpot_p50_ms tpot_p99_ms
    joules_per_token pct_of_bound kv_cache_tokens speedup_vs_baseline use policy verdict worst_task
    quality_delta quality_delta_ci_low quality_delta_ci_high flip_rate evidence validity
    validity_reasons null_reasons measured_at stale run_id
"""
COLUMNS = CONTRACT.split()
KEY = ("run_id", "workload", "operating_point", "provider", "region", "price_kind", "use")


@pytest.fixture(scope="module")
def odd(module_place: Any, three: Any, spec: Any) -> Any:
    """A warehouse of every kind of run: parts missing, without a price, on a slice, failed, quarantined."""
    baseline = three[0]
    module_place.write(
        *three,
        spec("run-no-load", "fp8", baseline=baseline, checkpoint="no-load", points={}),
        spec("run-no-quality", "fp8", baseline=baseline, checkpoint="no-quality", tasks={}),
        spec("run-unknown-gpu", gpu="rtx-6000"),
        spec("run-slice", mig_slice="1g.10gb"),
        spec("run-failed", "fp8", baseline=baseline, checkpoint="failed", completed=False),
        spec(
            "run-client-bound",
            "fp8",
            baseline=baseline,
            checkpoint="bound",
            point_validity=Validity.QUARANTINED,
        ),
        replace(three[1], run_id="run-other-engine", checkpoint="other-engine", engine_version="0.26.0"),
        replace(three[1], run_id="run-emulated", checkpoint="emulated", kernel_mode=KernelMode.EMULATED),
        replace(three[2], run_id="run-weight-only", checkpoint="wo", kernel_mode=KernelMode.WEIGHT_ONLY),
        replace(three[1], run_id="run-silent", checkpoint="silent", names_kernels=False),
        spec("run-orphan", "fp8", baseline=spec("run-gone"), checkpoint="orphan"),
        replace(baseline, run_id="run-bf16-again", started_at=baseline.started_at + timedelta(days=1)),
    )
    report = load_bundles(module_place.warehouse, module_place.bundles)
    assert report.problems == ()
    return module_place


@pytest.fixture(scope="module")
def odd_rows(odd: Any) -> list[dict[str, Any]]:
    """Every row of that warehouse's table."""
    return query(odd.warehouse, "FROM validated_table").to_pylist()


def one(warehouse: Path, sql: str) -> dict[str, Any]:
    (row,) = query(warehouse, sql).to_pylist()
    return dict(row)


def pick(rows: list[dict[str, Any]], run_id: str, kind: str = "on_demand") -> dict[str, Any]:
    """A run's row at 8 requests in flight, for all uses."""
    key = (run_id, "c8", kind, "all")
    (row,) = (r for r in rows if (r["run_id"], r["operating_point"], r["price_kind"], r["use"]) == key)
    return row


def test_the_columns_are_the_contract_s_in_its_order(odd_rows: list[dict[str, Any]]) -> None:
    names = list(odd_rows[0])
    assert names[: len(COLUMNS)] == COLUMNS
    assert names[len(COLUMNS) :] == [
        "stale_reasons",
        "verdict_run_id",
        "suite",
        "tasks",
        "documents",
        "margin",
        "policy_fingerprint",
        "declared_at",
        "baseline_revision",
        "looks_used",
        "tries",
        "serving_arguments",
        "alarms",
        "baseline_precision",
    ]


def test_a_quantized_baseline_s_precision_is_shown(place: Any, spec: Any) -> None:
    baseline = spec("run-fp8", "fp8")
    place.write(baseline, spec("run-nvfp4", "nvfp4", baseline=baseline))
    assert load_bundles(place.warehouse, place.bundles).problems == ()
    rows = query(
        place.warehouse, "SELECT DISTINCT run_id, baseline_precision FROM validated_table"
    ).to_pylist()
    assert {row["run_id"]: row["baseline_precision"] for row in rows} == {
        "run-fp8": "fp8",
        "run-nvfp4": "fp8",
    }
    printed = summary_table(place.warehouse, width=140)
    assert "VALIDATED against FP8" in printed
    assert "BASELINE against" not in printed


def test_a_baseline_of_16_bits_is_not_mentioned(odd: Any) -> None:
    assert "against BF16" not in summary_table(odd.warehouse, width=140)


def test_the_key_is_unique(odd_rows: list[dict[str, Any]]) -> None:
    keys = Counter(tuple(row[name] for name in KEY) for row in odd_rows)
    assert len(keys) > 60
    assert [key for key, count in keys.items() if count > 1] == []


def test_all_that_is_not_known_has_a_reason_and_nothing_else_has(odd_rows: list[dict[str, Any]]) -> None:
    for row in odd_rows:
        reasons = dict(row["null_reasons"])
        assert {name for name, value in row.items() if value is None} == set(reasons), row["run_id"]
        assert all(reasons.values())


@pytest.mark.parametrize(
    ("run_id", "column", "code"),
    [
        ("run-no-load", "operating_point", "no_throughput"),
        ("run-no-load", "usd_per_mtok_output", "no_throughput"),
        ("run-no-quality", "quality_delta", "no_quality"),
        ("run-unknown-gpu", "usd_per_hour", "no_price"),
        ("run-unknown-gpu", "usd_per_mtok_output", "no_price"),
        ("run-slice", "usd_per_hour", "mig_unpriced"),
        ("run-failed", "output_tok_s", "no_completed_requests"),
        ("run-failed", "ttft_p50_ms", "no_completed_requests"),
        ("run-orphan", "quality_delta", "not_comparable"),
        ("run-orphan", "speedup_vs_baseline", "no_baseline_point"),
        ("run-client-bound", "speedup_vs_baseline", "quarantined"),
        ("run-nvfp4", "speedup_vs_baseline", "emulated_no_speed"),
        ("run-emulated", "speedup_vs_baseline", "emulated_no_speed"),
        ("run-other-engine", "speedup_vs_baseline", "not_comparable"),
        ("run-other-engine", "quality_delta", "not_comparable"),
        ("run-nvfp4", "pct_of_bound", "emulated_no_speed"),
        ("run-fp8", "pct_of_bound", "no_bounds"),
        ("run-fp8", "output_tok_s_ci_low", "single_repeat"),
        ("run-fp8", "usd_per_mtok_goodput", "no_slo"),
        ("run-fp8", "joules_per_token", "no_telemetry"),
        ("run-fp8", "mig_slice", "not_applicable"),
        ("run-bf16-again", "worst_task", "not_applicable"),
        ("run-bf16-again", "kernel", "no_kernel_named"),
        ("run-silent", "kernel_mode", "unknown_kernel"),
        ("run-silent", "speedup_vs_baseline", "unknown_kernel"),
        ("run-silent", "pct_of_bound", "unknown_kernel"),
    ],
)
def test_reasons(odd_rows: list[dict[str, Any]], run_id: str, column: str, code: str) -> None:
    rows = [row for row in odd_rows if row["run_id"] == run_id]
    assert rows
    assert {(row[column], dict(row["null_reasons"])[column]) for row in rows} == {(None, code)}


def test_verdicts_of_every_kind_of_run(odd_rows: list[dict[str, Any]]) -> None:
    found = {(row["run_id"], row["use"]): row["verdict"] for row in odd_rows}
    every = ("all", "math", "conversation")
    for run_id, verdict in {
        "run-bf16-again": Verdict.BASELINE,
        "run-unknown-gpu": Verdict.BASELINE,
        "run-fp8": Verdict.VALIDATED,
        "run-no-load": Verdict.VALIDATED,
        "run-no-quality": Verdict.UNVALIDATED,
        "run-orphan": Verdict.NOT_COMPARABLE,
    }.items():
        assert [found[run_id, use] for use in every] == [verdict] * 3, run_id
    assert [found["run-nvfp4", use] for use in every] == ["REJECTED", "REJECTED", "VALIDATED"]


def test_what_a_verdict_rests_on(odd_rows: list[dict[str, Any]]) -> None:
    """Each use has the tasks of its families, with the documents that they answered."""
    rests_on = {
        (row["run_id"], row["use"]): (row["suite"], row["tasks"], row["documents"]) for row in odd_rows
    }
    for run_id in ("run-fp8", "run-nvfp4", "run-bf16-again", "run-orphan"):
        assert rests_on[run_id, "all"] == ("toys", ["cloze", "sums"], 200)
        assert rests_on[run_id, "math"] == ("toys", ["sums"], 100)
        assert rests_on[run_id, "conversation"] == ("toys", ["cloze"], 100)
    assert rests_on["run-no-quality", "all"] == (None, [], 0)


@pytest.mark.usefixtures("begun")
def test_a_use_without_its_families(place: Any, three: Any) -> None:
    """`all` of one task shows that it is one; a use none of whose families was measured is UNVALIDATED."""
    tasks = {"sums": three[0].tasks["sums"]}
    policy = policy_of(
        dict.fromkeys((Family.MATH, Family.CONVERSATION), (0.1, 50)),
        uses={"all": (), "chat": (Family.CONVERSATION,), "both": (Family.MATH, Family.CONVERSATION)},
    )
    baseline = replace(three[0], tasks=tasks, policy=policy)
    place.write(baseline, replace(three[1], baseline=baseline, tasks=tasks, policy=policy))
    load_bundles(place.warehouse, place.bundles)
    rows = query(place.warehouse, "FROM verdicts WHERE precision = 'fp8'").to_pylist()
    assert {row["use"]: (row["verdict"], row["reason"]) for row in rows} == {
        "all": ("VALIDATED", "shown within the margin on sums"),
        "chat": ("UNVALIDATED", "not measured: family conversation"),
        "both": ("INCONCLUSIVE", "not measured: family conversation"),
    }
    shown = query(
        place.warehouse, "SELECT DISTINCT use, tasks, documents FROM validated_table WHERE precision = 'fp8'"
    )
    assert {row["use"]: (row["tasks"], row["documents"]) for row in shown.to_pylist()} == {
        "all": (["sums"], 100),
        "chat": ([], 0),
        "both": (["sums"], 100),
    }


def test_the_last_run_of_a_fingerprint_is_shown_and_all_are_in_runs(
    odd: Any, odd_rows: list[dict[str, Any]]
) -> None:
    assert {row["run_id"] for row in odd_rows if row["precision"] == "bf16" and row["gpu"] == "h100"} == {
        "run-bf16-again",
        "run-slice",
    }
    runs = query(
        odd.warehouse, "SELECT run_id, latest FROM runs WHERE run_id LIKE 'run-bf16%' ORDER BY ALL"
    ).to_pylist()
    assert runs == [{"run_id": "run-bf16", "latest": False}, {"run_id": "run-bf16-again", "latest": True}]


def test_a_quarantined_point_is_marked(odd_rows: list[dict[str, Any]]) -> None:
    row = pick(odd_rows, "run-client-bound")
    assert (row["validity"], row["validity_reasons"]) == ("quarantined", ["client_bound"])


def test_costs_as_computed_by_hand(odd_rows: list[dict[str, Any]]) -> None:
    row = pick(odd_rows, "run-fp8")
    assert row["usd_per_hour"] == 2.01
    assert str(row["price_as_of"]) == "2026-03-20"
    assert row["output_tok_s"] == 800
    assert row["usd_per_mtok_output"] == pytest.approx(2.01 / (800 * 3600) * 1e6, rel=1e-12)
    assert row["usd_per_mtok_output"] == pytest.approx(0.697917, abs=1e-6)
    assert row["usd_per_mtok_total"] == pytest.approx(2.01 / (2400 * 3600) * 1e6, rel=1e-12)
    assert row["speedup_vs_baseline"] == 2.0
    assert row["kernel"] == "CutlassFP8ScaledMMLinearKernel"
    assert row["kv_cache_tokens"] == 20_000
    spot = pick(odd_rows, "run-fp8", kind="spot")
    assert spot["usd_per_mtok_output"] == pytest.approx(0.99 / (800 * 3600) * 1e6, rel=1e-12)
    emulated = pick(odd_rows, "run-nvfp4")
    assert emulated["usd_per_mtok_output"] == pytest.approx(2.01 / (200 * 3600) * 1e6, rel=1e-12), (
        "priced and marked"
    )
    assert (emulated["kernel_mode"], emulated["speedup_vs_baseline"]) == ("emulated", None)
    assert pick(odd_rows, "run-silent")["usd_per_mtok_output"] == row["usd_per_mtok_output"], (
        "priced, unmarked"
    )


@pytest.mark.parametrize(
    ("usd_per_hour", "tok_s", "usd"),
    [
        (2.01, 3066, 0.182),
        (0.99, 3066, 0.090),
        (4.54, 4374, 0.288),
        (6.03, 6972, 0.240),
        (6.03, 12841, 0.130),
    ],
)
def test_the_formula_gives_the_guide_s_figures(
    odd: Any, usd_per_hour: float, tok_s: float, usd: float
) -> None:
    found = one(
        odd.warehouse, f"SELECT usd_per_mtok({usd_per_hour}, {tok_s}) AS usd, usd_per_mtok(1, 0) AS nothing"
    )
    assert found["usd"] == pytest.approx(usd, abs=5e-4)
    assert found["nothing"] is None


def test_offers_are_scaled_to_the_run_s_gpus_and_its_own_count_goes_first(place: Any, spec: Any) -> None:
    place.write(spec("run-2", gpu_count=2), spec("run-8", gpu_count=8))
    offers = [
        {"provider": "p", "gpu": "h100", "gpu_count": 1, "price_kind": "on_demand", "usd_per_hour": 2.0},
        {"provider": "p", "gpu": "h100", "gpu_count": 8, "price_kind": "on_demand", "usd_per_hour": 12.0},
    ]
    load_bundles(place.warehouse, place.bundles, configs=configs_with(place.path, offers))
    rows = query(
        place.warehouse, "SELECT DISTINCT run_id, usd_per_hour FROM validated_table ORDER BY run_id"
    ).to_pylist()
    assert rows == [{"run_id": "run-2", "usd_per_hour": 4.0}, {"run_id": "run-8", "usd_per_hour": 12.0}]


def configs_with(folder: Path, offers: list[dict[str, Any]]) -> Path:
    """The project's configuration with other prices."""
    configs = folder / "configs"
    configs.mkdir(exist_ok=True)
    for name in ("gpus.yaml", "policy.yaml"):
        shutil.copy(CONFIGS / name, configs / name)
    dated = [{"valid_from": "2026-01-01", "source": "test", **offer} for offer in offers]
    (configs / "prices.yaml").write_text(yaml.safe_dump({"prices": dated}).replace("'", ""))
    return configs


def test_a_price_from_a_day_on_leaves_the_answers_before_it(place: Any, three: Any) -> None:
    place.write(*three)
    old = {
        "provider": "p",
        "gpu": "h100",
        "price_kind": "on_demand",
        "usd_per_hour": 2.0,
        "valid_to": "2026-12-01",
    }
    new = {**old, "usd_per_hour": 1.0, "valid_from": "2026-06-01"}
    load_bundles(place.warehouse, place.bundles, configs=configs_with(place.path, [old]))
    before = "FROM validated_table_at('2026-05-31 23:59:59.999999Z')"
    answer = render(query(place.warehouse, before), "csv")
    report = load_bundles(place.warehouse, place.bundles, configs=configs_with(place.path, [old, new]))
    assert (report.loaded, report.swapped) == ((), True)
    assert render(query(place.warehouse, before), "csv") == answer
    moments = {
        "2025-12-31 23:59:59Z": None,
        "2026-01-01 00:00:00Z": 2.0,
        "2026-05-31 23:59:59.999999Z": 2.0,
        "2026-06-01 00:00:00Z": 1.0,
        "2026-11-30 23:00:00Z": 1.0,
        "2026-12-01 00:00:00Z": None,
    }
    for moment, usd_per_hour in moments.items():
        rows = query(place.warehouse, f"SELECT usd_per_hour FROM cost_per_token_at('{moment}')").to_pylist()
        assert rows == [{"usd_per_hour": usd_per_hour}] * 6, moment


def test_age_makes_stale_and_a_declared_end_does_not(place: Any, three: Any) -> None:
    place.write(*three[:2])  # measured on 2026-04-01 under a policy of 90 days
    offer = {"provider": "p", "gpu": "h100", "price_kind": "on_demand", "usd_per_hour": 2.0}
    sql = (
        "SELECT DISTINCT run_id, stale, stale_reasons FROM validated_table_at('{}') WHERE run_id = 'run-fp8'"
    )
    load_bundles(place.warehouse, place.bundles, configs=configs_with(place.path, [offer]))
    assert one(place.warehouse, sql.format("2026-04-02"))["stale_reasons"] == ["price"]
    assert one(place.warehouse, sql.format("2026-07-02"))["stale_reasons"] == [
        "measurement",
        "verdict",
        "price",
    ]
    dated = configs_with(place.path, [{**offer, "valid_to": "2030-01-01"}])
    load_bundles(place.warehouse, place.bundles, configs=dated)
    assert one(place.warehouse, sql.format("2026-04-02")) == {
        "run_id": "run-fp8",
        "stale": False,
        "stale_reasons": [],
    }


def test_weight_only_speed_is_real_speed(odd_rows: list[dict[str, Any]]) -> None:
    assert pick(odd_rows, "run-weight-only")["speedup_vs_baseline"] == 0.5


@pytest.mark.parametrize(
    ("view", "columns"),
    [
        (
            "cost_per_token",
            "run_id, operating_point, provider, price_kind, usd_per_mtok_output, price_source",
        ),
        ("quality_delta", "run_id, use, task, family, margin, pairs, quality_delta, outcome"),
        ("verdicts", "run_id, use, verdict, reason, decided_by, sm_arch, kernel"),
        ("throughput_points", "run_id, operating_point, output_tok_s, e2el_p99_ms, kernel_mode"),
        ("samples", "run_id, task, doc_id, score, prompt, precision"),
        ("flips", "run_id, task, doc_id, direction, baseline_answer, candidate_answer, prompt"),
        ("policies", "policy, policy_fingerprint, family, margin, in_use, current"),
        ("runs", "run_id, checkpoint, engine_version, documents, load_points, latest"),
        ("prices", "provider, gpu, price_kind, usd_per_hour, usd_per_gpu_hour, valid_from, current"),
        ("gpus", "gpu, name, sm_arch, vram_gb, bandwidth_gb_s, dense_fp8_tflops, source"),
    ],
)
def test_every_view_answers(odd: Any, view: str, columns: str) -> None:
    assert query(odd.warehouse, f"SELECT {columns} FROM {view}").num_rows > 0


def test_flips_are_the_paired_documents_that_changed(odd: Any) -> None:
    row = one(
        odd.warehouse,
        "SELECT run_id, task, direction, count(*) AS n FROM flips "
        "WHERE run_id IN ('run-fp8', 'run-nvfp4') GROUP BY ALL",
    )
    assert row == {"run_id": "run-nvfp4", "task": "sums", "direction": "worse", "n": 30}
    first = one(odd.warehouse, "FROM flips WHERE run_id = 'run-nvfp4' AND doc_id = '1'")
    assert (first["baseline_answer"], first["candidate_answer"], first["prompt"]) == (
        "1",
        "?",
        "PROMPT SUMS 1",
    )


def test_the_policy_a_run_declared_stays_beside_the_current_ones(odd: Any) -> None:
    rows = query(odd.warehouse, "SELECT DISTINCT policy, current FROM policies ORDER BY ALL").to_pylist()
    assert rows == [
        {"policy": "demo", "current": True},
        {"policy": "standard", "current": True},
        {"policy": "toys", "current": False},
    ]
    uses = one(odd.warehouse, "SELECT in_use FROM policies WHERE policy = 'toys' AND family = 'math'")
    assert uses == {"in_use": ["all", "math"]}
