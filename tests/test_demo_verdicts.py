"""The demo's verdicts, computed anew from its sample rows by other means than the judge's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy.stats import binom, multinomial

from quantgate.model.config.policy import load_policy
from tests.support.demo_bundles import BUNDLES, manifests, warehouse
from warehouse.query import query

ALPHA, MARGIN = 0.05, 0.02


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warehouse(tmp_path_factory.mktemp("demo"))


def score(b: np.ndarray, c: np.ndarray, n: int, loss: float) -> np.ndarray:
    """Tango's score statistic of delta = -loss, from its definition: the constrained MLE by its quadratic."""
    d = -loss
    linear = -b - c + (2 * n - c + b) * d
    q21 = (np.sqrt(linear**2 - 8 * n * (-b * d * (1 - d))) - linear) / (4 * n)
    variance = n * (2 * q21 + d * (1 - d))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, (c - b - n * d) / np.sqrt(variance), np.inf)


def p_value(b: int, c: int, n: int, *, inferior: bool) -> float:
    """Enumerate every outcome that can matter, over a grid of the flip rate from 2 % to 18 %."""
    most = int(binom.isf(1e-12, n, 0.12))
    grid_b, grid_c = np.meshgrid(np.arange(most), np.arange(most), indexing="ij")
    statistic = score(grid_b.astype(float), grid_c.astype(float), n, MARGIN)
    observed = score(np.array(float(b)), np.array(float(c)), n, MARGIN)
    extreme = statistic <= observed + 1e-9 if inferior else statistic >= observed - 1e-9
    worst = 0.0
    for better in np.linspace(0, 0.08, 17):
        chances = [better + MARGIN, better, 1 - 2 * better - MARGIN]
        outcomes = np.stack(
            [grid_b[extreme], grid_c[extreme], n - grid_b[extreme] - grid_c[extreme]], axis=-1
        )
        outcomes = outcomes[outcomes[:, 2] >= 0]
        worst = max(worst, float(multinomial.pmf(outcomes, n, chances).sum()))
    return worst


def paired(candidate_run: str, baseline_run: str) -> dict[str, tuple[int, int, int]]:
    """Worse, better and all documents of each task, by a plain merge of the Parquet files."""
    columns = ["task", "doc_id", "doc_repeat", "prompt_hash", "target_hash", "score"]
    tables = [
        pq.read_table(BUNDLES / run / "samples.parquet", columns=columns)
        for run in (baseline_run, candidate_run)
    ]
    baseline, candidate = (table.to_pandas() for table in tables)
    both = pd.merge(baseline, candidate, on=columns[:-1], validate="one_to_one", suffixes=("_b", "_c"))
    assert len(both) == len(baseline) == len(candidate)
    return {
        str(task): (
            int(((rows.score_b == 1) & (rows.score_c == 0)).sum()),
            int(((rows.score_b == 0) & (rows.score_c == 1)).sum()),
            len(rows),
        )
        for task, rows in both.groupby("task")
    }


def test_the_policy_is_the_one_that_was_declared() -> None:
    policy = load_policy("demo")
    assert policy.alpha == ALPHA
    assert {entry.margin for entry in policy.families.values()} == {MARGIN}
    assert all(manifest.policy == policy for manifest in manifests())


def test_every_verdict_is_what_an_enumeration_gives(database: Path) -> None:
    baseline, *candidates = manifests()
    shown = query(
        database, "SELECT DISTINCT run_id, verdict FROM validated_table WHERE use = 'all'"
    ).to_pylist()
    verdicts = {row["run_id"]: row["verdict"] for row in shown}
    assert verdicts[baseline.run_id] == "BASELINE"
    assert len(candidates) == 2
    for candidate in candidates:
        counts = paired(candidate.run_id, baseline.run_id)
        assert sorted(counts) == ["qg_demo_arithmetic", "qg_demo_chain", "qg_demo_cloze"]
        assert all(n >= 1000 for _, _, n in counts.values())
        fine = [p_value(*count, inferior=False) for count in counts.values()]
        poor = sorted(p_value(*count, inferior=True) for count in counts.values())
        expected = "INCONCLUSIVE"
        if any(p * (len(poor) - rank) <= ALPHA for rank, p in enumerate(poor[:1])):
            expected = "REJECTED"
        elif max(fine) <= ALPHA:
            expected = "VALIDATED"
        assert all(abs(p - ALPHA) > 0.002 for p in [*fine, poor[0] * len(poor)]), "too near to be told apart"
        assert verdicts[candidate.run_id] == expected


def test_the_figures_of_each_task(database: Path) -> None:
    baseline = manifests()[0]
    rows = query(database, "SELECT * FROM quality_delta WHERE use = 'all'").to_pylist()
    assert len(rows) == 6
    for row in rows:
        worse, better, n = paired(row["run_id"], baseline.run_id)[row["task"]]
        assert (row["worse"], row["better"], row["pairs"]) == (worse, better, n)
        assert row["quality_delta"] == pytest.approx((better - worse) / n)
        assert row["flip_rate"] == pytest.approx((better + worse) / n)
        assert row["quality_delta_ci_low"] < row["quality_delta"] < row["quality_delta_ci_high"]


def test_the_key_of_the_table_is_unique(database: Path) -> None:
    key = "run_id, workload, operating_point, provider, region, price_kind, use"
    doubled = query(database, f"SELECT {key}, count(*) FROM validated_table GROUP BY ALL HAVING count(*) > 1")
    assert doubled.num_rows == 0
    counts = query(
        database, "SELECT count(*) AS n, count(DISTINCT operating_point) AS points FROM validated_table"
    )
    assert counts.to_pylist() == [{"n": 3 * 3 * 4, "points": 3}]


def test_cost_follows_from_the_stored_price(database: Path) -> None:
    rows = query(database, "SELECT * FROM validated_table").to_pylist()
    for row in rows:
        assert row["usd_per_mtok_output"] == pytest.approx(
            row["usd_per_hour"] / (row["output_tok_s"] * 3600) * 1e6
        )
        assert row["provider"] == "assumed"
        assert row["speedup_vs_baseline"] == (1.0 if row["verdict"] == "BASELINE" else None)
        assert row["kernel_mode"] == ("native" if row["verdict"] == "BASELINE" else "emulated")
