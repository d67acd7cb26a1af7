"""docs/claims.md: the guide's claims against the evidence, generated from the view ``claims``.

``python -m docs.pages.claims`` writes it from the configuration alone, without any run. ``quantgate sql "FROM claims"``
shows the same for a warehouse with runs.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import Any

from docs.pages.page import fill
from quantgate.model.home import ROOT
from warehouse.configuration import configured_in_memory
from warehouse.database import Connection, fetch
from warehouse.report.render import NULL

PAGE = ROOT / "docs" / "claims.md"
_STATUSES = ["contradicted", "supported", "no_evidence"]
"""In the order of their sections."""
_SQL = """
    SELECT c.*
    FROM claims c
    JOIN store.claims s USING (claim_id)
    ORDER BY list_position($order, c.status), s.position
"""


def claims_page(connection: Connection) -> str:
    """Return the page as Markdown, from a warehouse's view."""
    rows = fetch(connection, _SQL, order=_STATUSES)
    return fill(
        "claims",
        counts={status: sum(row["status"] == status for row in rows) for status in _STATUSES},
        sections=[
            (status, [_cells(row) for row in members])
            for status, members in groupby(rows, key=itemgetter("status"))
        ],
    )


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    notes = "; ".join(text for text in (row["bears_on"], row["condition"]) if text)
    return (
        row["claim"],
        f"{row['claimed']} ({row['rule']})",
        _values(row),
        row["evidence"] or NULL,
        notes or NULL,
    )


def _values(row: dict[str, Any]) -> str:
    if row["values"] is None:
        return NULL
    least, greatest = _number(row["value_min"]), _number(row["value_max"])
    if least == greatest:
        return f"{least} {row['unit']}"
    text = f"{least} to {greatest} {row['unit']}"
    if row["value_median"] is not None:
        text += f", median {_number(row['value_median'])} ({row['values']} values)"
    if row["interval_low"] is not None:
        text += f", intervals {_number(row['interval_low'])} to {_number(row['interval_high'])}"
    return text


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    PAGE.write_text(claims_page(configured_in_memory()), encoding="utf-8")
