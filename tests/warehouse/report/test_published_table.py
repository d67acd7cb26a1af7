"""The table below a report's own rows: published figures, labelled and apart."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.paper import paper_connection
from warehouse.database import Connection
from warehouse.query import query
from warehouse.report import blocks
from warehouse.report.published_table import published_block
from warehouse.report.summary import summary_table

AS_OF = datetime(2026, 6, 1, tzinfo=UTC)
HEADING = "For comparison, not measured here: what others published for these GPUs, at maximum load"


@pytest.fixture
def paper() -> Iterator[Connection]:
    with paper_connection() as connection:
        yield connection


def test_what_the_guide_s_gpus_would_cost(paper: Connection) -> None:
    block = published_block(paper, AS_OF)
    assert block is not None
    cells = {(row[0], row[1], row[2]): row[3:] for row in block.rows}
    assert cells["llama2-70b", "b200", "nvfp4"] == (
        "0.132",
        "–",
        "12,690",
        "12",
        "mlperf v5.1, TensorRT",
        "published",
    )
    assert cells["llama2-70b", "h100", "fp8"][:2] == ("0.143", "0.071")
    assert cells["llama2-70b", "h200", "fp8"][:2] == ("0.289", "0.113")
    assert cells["llama3.1-8b", "l40s", "fp8"][:2] == ("0.154", "0.069")
    assert {row[-1] for row in block.rows} == {"published"}
    assert "the lowest of spheron, of 2026-03-20" in " ".join(block.notes)
    assert max(map(len, blocks.plain(block).splitlines())) <= 100


def test_before_any_offer_it_has_no_cost(paper: Connection) -> None:
    block = published_block(paper, datetime(2026, 3, 19, tzinfo=UTC))
    assert block is not None
    assert {(row[3], row[4]) for row in block.rows} == {("–", "–")}
    assert "no valid offer" in " ".join(block.notes)


def test_it_stands_last_and_apart(loaded: Any) -> None:
    text = summary_table(loaded.warehouse, AS_OF)
    own, heading, published = text.partition(HEADING)
    assert heading
    assert "fp8 per task" in own
    assert "mlperf" not in own
    assert summary_table(loaded.warehouse, AS_OF, published=False) == own.strip()
    assert " measured" not in published.split("Results of tuned stacks")[0]
    assert query(loaded.warehouse, "SELECT DISTINCT evidence FROM validated_table").to_pylist() == [
        {"evidence": "measured"}
    ]


def test_without_published_evidence_there_is_no_table(paper: Connection) -> None:
    paper.execute("DELETE FROM store.published_throughput")
    assert published_block(paper, AS_OF) is None
