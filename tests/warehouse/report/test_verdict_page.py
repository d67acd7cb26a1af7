"""How one validation ended: a line, and a page that a browser shows without cutting a table off."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.written_runs import BASELINE, FP8, NVFP4
from warehouse.report.verdict_page import verdict_line, verdict_page

AS_OF = datetime(2026, 6, 1, tzinfo=UTC)


def row(run_id: str, precision: str, verdict: str, delta: float | None, use: str = "all") -> dict[str, Any]:
    interval = (None, None) if delta is None else (delta - 0.01, delta + 0.02)
    low, high = interval
    return {
        "run_id": run_id,
        "precision": precision,
        "verdict": verdict,
        "use": use,
        "quality_delta": delta,
        "quality_delta_ci_low": low,
        "quality_delta_ci_high": high,
    }


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([], ""),
        ([row("b", "bf16", "BASELINE", None)], ""),
        (
            [row("f", "fp8", "VALIDATED", -0.001), row("f", "fp8", "VALIDATED", -0.001)],
            "VALIDATED for all: fp8 (-0.10 [-1.10, +1.90] points)",
        ),
        (
            [row("n", "nvfp4", "REJECTED", -0.08), row("f", "fp8", "VALIDATED", 0.0)],
            (
                "VALIDATED for all: fp8 (+0.00 [-1.00, +2.00] points); "
                "REJECTED for all: nvfp4 (-8.00 [-9.00, -6.00] points)"
            ),
        ),
        ([row("f", "fp8", "UNVALIDATED", None, "chat")], "UNVALIDATED for chat: fp8"),
        (
            [row("f", "fp8", "REJECTED", -0.08, "math"), row("f", "fp8", "INCONCLUSIVE", None)],
            "INCONCLUSIVE for all: fp8",
        ),
    ],
)
def test_the_line_groups_candidates_by_their_verdict(rows: list[dict[str, Any]], line: str) -> None:
    assert verdict_line(rows) == line


def page_of(place: Any, *run_ids: str) -> str:
    links = {"The whole table": "http://server/runs/flow-run/1"}
    return verdict_page(place.warehouse, AS_OF, run_ids, "s3://bucket/bundles/", links)


def test_the_page_has_verdict_delta_and_cost_first(loaded: Any) -> None:
    page = page_of(loaded, BASELINE.run_id, FP8.run_id, NVFP4.run_id)
    line, heading, table, places, *details = page.split("\n\n")
    assert line.startswith("**VALIDATED for all: fp8 (")
    assert "REJECTED for all: nvfp4 (" in line
    assert heading.startswith("## ")
    names = [row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()[2:]]
    assert names[:3] == ["Verdict", "Δ points [90 %]", "USD per 1M output tokens"]
    assert names[4:7] == ["Worst task", "Tasks", "Documents"]
    assert table.splitlines()[0] == "|  | bf16 | fp8 | nvfp4 |"
    assert table.splitlines()[2] == "| Verdict | **BASELINE** | **VALIDATED** | **REJECTED** |"
    assert "- [The whole table](http://server/runs/flow-run/1)" in places
    for spec in (BASELINE, FP8, NVFP4):
        assert f"`s3://bucket/bundles/{spec.run_id}`" in places
    assert any("per task" in part for part in details)


def test_every_row_of_a_table_has_its_columns_and_none_is_too_wide(loaded: Any) -> None:
    page = page_of(loaded, BASELINE.run_id, FP8.run_id, NVFP4.run_id)
    for part in page.split("\n\n"):
        rows = [line for line in part.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1
        assert all(row.count("|") <= 9 for row in rows)
    assert "evidence |" not in page


def test_runs_that_are_not_loaded_have_no_page(loaded: Any) -> None:
    assert page_of(loaded, "no-such-run") == "The warehouse has none of these runs."
