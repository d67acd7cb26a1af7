"""The guide's cost table and ratios, out of SQL over stored inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.paper import paper_connection
from warehouse.database import Connection
from warehouse.report.render import render


@pytest.fixture
def paper() -> Iterator[Connection]:
    """A warehouse that holds the configuration only."""
    with paper_connection() as connection:
        yield connection


def costs(connection: Connection) -> dict[str, float]:
    return dict(connection.execute("SELECT config, usd_per_mtok FROM reference_costs").fetchall())


def ratios(connection: Connection) -> dict[str, float]:
    return dict(connection.execute("SELECT ratio, value FROM reference_ratios").fetchall())


@pytest.mark.parametrize(
    ("config", "usd", "tolerance"),
    [
        ("H100 FP8 on-demand", 0.182, 0.0005),
        ("H100 FP8 spot", 0.090, 0.0005),
        ("H200 FP8 on-demand", 0.288, 0.0005),
        ("H200 FP8 spot", 0.113, 0.0005),
        ("B200 FP8 on-demand", 0.240, 0.0005),
        ("B200 FP4 on-demand", 0.130, 0.0005),
        ("L40S 8B FP16 batch 8", 0.75, 0.005),
    ],
)
def test_the_guide_s_costs(paper: Connection, config: str, usd: float, tolerance: float) -> None:
    assert costs(paper)[config] == pytest.approx(usd, abs=tolerance)


@pytest.mark.parametrize(
    ("ratio", "value", "tolerance"),
    [
        ("H200 to H100 throughput", 1.43, 0.005),
        ("B200 to H200 throughput", 2.9, 0.05),
        ("H100 to L40S bandwidth", 3.9, 0.05),
        ("H200 to H100 bandwidth", 1.43, 0.005),
        ("H200 to H100 memory", 1.76, 0.005),
        ("NVLink 4 to PCIe Gen4", 14, 0.5),
        ("B300 to B200 FP4 compute", 1.56, 0.005),
        ("B200 to H100 FP8 compute", 2.274, 0.0005),
        ("B200 to H100 price", 3, 0.05),
        ("H200 price to match H100", 2.87, 0.005),
    ],
)
def test_the_guide_s_ratios(paper: Connection, ratio: str, value: float, tolerance: float) -> None:
    assert ratios(paper)[ratio] == pytest.approx(value, abs=tolerance)


def test_every_stated_figure_agrees_with_the_computed_one(paper: Connection) -> None:
    sql = """
        SELECT count(*) FROM (
            SELECT usd_per_mtok AS value, guide FROM reference_costs UNION ALL SELECT value, guide FROM reference_ratios
        ) WHERE guide IS NOT NULL AND abs(value / guide - 1) > 0.015
    """
    assert paper.execute(sql).fetchall() == [(0,)]


def test_what_is_scaled_is_an_estimate_and_across_precisions_is_marked(paper: Connection) -> None:
    sql = "SELECT config FROM reference_costs WHERE evidence = 'estimated'"
    assert paper.execute(sql).fetchall() == [("B200 FP8 on-demand",)]
    sql = "SELECT note FROM reference_ratios WHERE ratio = 'B200 to H200 throughput'"
    assert paper.execute(sql).fetchall() == [("across rounds and precisions: v5.1 FP4 to v5.0 FP8",)]
    sql = "SELECT tok_s FROM reference_costs WHERE config = 'B200 FP8 on-demand'"
    assert paper.execute(sql).fetchone() == (pytest.approx(24524.9 / 8 * 4500 / 1979),)


CHANGES = [
    (
        "UPDATE store.price_offers SET usd_per_hour = 4 WHERE gpu = 'h200' AND price_kind = 'on_demand'",
        {"H200 FP8 on-demand"},
        set(),
    ),
    (
        "UPDATE store.price_offers SET usd_per_hour = 3 WHERE gpu = 'h100' AND price_kind = 'on_demand'",
        {"H100 FP8 on-demand"},
        {"B200 to H100 price", "H200 price to match H100"},
    ),
    (
        "UPDATE store.published_throughput SET output_tok_s = 30000 WHERE entry = 'v4.1-0043' AND model = 'llama2-70b'",
        {"H100 FP8 on-demand", "H100 FP8 spot", "B200 FP8 on-demand"},
        {"H200 to H100 throughput", "H200 price to match H100"},
    ),
    (
        "UPDATE store.gpus SET dense_fp8_tflops = 5000 WHERE gpu = 'b200'",
        {"B200 FP8 on-demand"},
        {"B200 to H100 FP8 compute"},
    ),
    ("UPDATE store.gpus SET vram_gb = 150 WHERE gpu = 'h200'", set(), {"H200 to H100 memory"}),
    ("UPDATE store.gpus SET bandwidth_gb_s = 900 WHERE gpu = 'l40s'", set(), {"H100 to L40S bandwidth"}),
    (
        "UPDATE store.gpus SET bandwidth_gb_s = 3000 WHERE gpu = 'h100'",
        set(),
        {"H100 to L40S bandwidth", "H200 to H100 bandwidth"},
    ),
    ("UPDATE store.gpus SET interconnect_gb_s = 128 WHERE gpu = 'l40s'", set(), {"NVLink 4 to PCIe Gen4"}),
]


@pytest.mark.parametrize(("change", "changed_costs", "changed_ratios"), CHANGES)
def test_one_input_changes_exactly_what_depends_on_it(
    paper: Connection, change: str, changed_costs: set[str], changed_ratios: set[str]
) -> None:
    before: tuple[dict[str, Any], dict[str, Any]] = (costs(paper), ratios(paper))
    paper.execute(change)
    after = (costs(paper), ratios(paper))
    assert {name for name in after[0] if after[0][name] != before[0][name]} == changed_costs
    assert {name for name in after[1] if after[1][name] != before[1][name]} == changed_ratios


def test_a_later_price_does_not_reach_back(paper: Connection) -> None:
    before = costs(paper), ratios(paper)
    paper.execute(
        "INSERT INTO store.price_offers BY NAME "
        "SELECT * REPLACE (9.99 AS usd_per_hour, DATE '2026-03-21' AS valid_from) "
        "FROM store.price_offers WHERE provider = 'spheron'"
    )
    assert (costs(paper), ratios(paper)) == before


def test_it_reads_well_in_a_terminal(paper: Connection) -> None:
    for view in ("reference_costs", "reference_ratios"):
        lines = render(paper.sql(f"SELECT * FROM {view}").to_arrow_table()).splitlines()
        assert max(map(len, lines)) <= 100
