"""docs/claims.md: the guide's claims against the evidence, generated from the view ``claims``.

``python -m docs.pages.claims`` writes it from the configuration alone, without any run: what a fresh checkout
knows. ``quantgate sql "FROM claims"`` says the same of a warehouse with runs.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from quantgate.model.home import ROOT
from warehouse.configuration import configured_in_memory
from warehouse.database import Connection
from warehouse.report.render import NULL

PAGE = ROOT / "docs" / "claims.md"
_HEADINGS = {
    "contradicted": "Contradicted",
    "supported": "Supported",
    "no_evidence": "Without evidence that settles them",
}
_INTRODUCTION = """\
# The guide's claims, held against evidence

Generated from the view `claims` by `python -m docs.pages.claims`; a test compares. It shows what a fresh checkout
knows, without any run of yours: `quantgate sql "FROM claims"` recomputes it from what your warehouse holds, and
measured runs decide a claim where there are any. `configs/claims.yaml` declares each claim's range and what bears on
it; the view `claim_values` lists every value. Evidence is published (others measured it), or estimated (it follows from
the formulas of `memory_fit` and `bounds`, or from the guide's own figures). Costs are at the guide's prices.
"""
_SQL = """
    SELECT c.*
    FROM claims c
    JOIN store.claims s USING (claim_id)
    ORDER BY list_position($order, c.status), s.position
"""


def claims_page(connection: Connection) -> str:
    """The page as markdown, from a warehouse's view."""
    rows = connection.sql(_SQL, params={"order": list(_HEADINGS)}).to_arrow_table().to_pylist()
    parts = [_INTRODUCTION, _counts(rows)]
    for status, members in groupby(rows, key=lambda row: str(row["status"])):
        parts.append(f"## {_HEADINGS[status]}\n")
        parts.append("| claim | claimed | found | evidence | what bears on it |\n|---|---|---|---|---|")
        parts.extend(_line(row) for row in members)
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _counts(rows: list[dict[str, Any]]) -> str:
    counts = {status: sum(row["status"] == status for row in rows) for status in _HEADINGS}
    return (
        f"Of {len(rows)} claims {counts['contradicted']} are contradicted, {counts['supported']} supported, and "
        f"{counts['no_evidence']} have no evidence that settles them.\n"
    )


def _line(row: dict[str, Any]) -> str:
    notes = "; ".join(text for text in (row["bears_on"], row["condition"]) if text)
    cells = (
        row["claim"],
        f"{row['claimed']} ({row['rule']})",
        _found(row),
        row["evidence"] or NULL,
        notes or NULL,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _found(row: dict[str, Any]) -> str:
    if row["values"] is None:
        return NULL
    least, middle, greatest = (_number(row[name]) for name in ("value_min", "value_median", "value_max"))
    if least == greatest:
        return f"{middle} {row['unit']}"
    return f"{least} to {greatest} {row['unit']}, median {middle} ({row['values']} values)"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    PAGE.write_text(claims_page(configured_in_memory()), encoding="utf-8")
