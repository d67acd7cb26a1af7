"""Show how one validation ended: as a line for its state, and as a page in Markdown with one column a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from quantgate.model.enums import Verdict
from quantgate.model.secrets import redact
from quantgate.model.text import in_markdown, inert
from warehouse.query import read_only
from warehouse.report.blocks import Block, markdown, markdown_line
from warehouse.report.render import NULL
from warehouse.report.summary import blocks_of, delta_of, headline_of, labels_of, money_of, points_of

Row = dict[str, Any]
WIDE = frozenset({"evidence", "TTFT ms", "tasks/n", "flips", "family"})
"""Columns that have no room beside the others on a page of Prefect's UI."""


def verdict_line(rows: Sequence[Row]) -> str:
    """Return the verdicts in a line: ``VALIDATED for all: fp8 (+0.10 [-0.17, +0.45] points)``.

    Args:
        rows: of the validated table, of the runs of one validation; a run may have several.

    Returns:
        The line; empty where no candidate has a verdict.
    """
    if not rows:
        return ""
    use = headline_of(rows)
    by_run = {row["run_id"]: row for row in rows if row["use"] == use and row["verdict"] != Verdict.BASELINE}
    by_verdict: dict[str, list[str]] = {}
    for row in by_run.values():
        delta = delta_of(row)
        points = "" if delta == NULL else f" ({delta} points)"
        by_verdict.setdefault(row["verdict"], []).append(f"{row['precision']}{points}")
    order = list(Verdict)
    return inert(
        "; ".join(
            f"{verdict} for {use}: {', '.join(sorted(by_verdict[verdict]))}"
            for verdict in sorted(by_verdict, key=lambda name: order.index(Verdict(name)))
        )
    )


def verdict_page(
    warehouse: Path, as_of: datetime, run_ids: Sequence[str], bundles_url: str, links: Mapping[str, str]
) -> str:
    """Return the page of one validation: verdicts first, then what they rest on, then the whole table.

    Args:
        warehouse: the DuckDB file.
        as_of: the time (UTC) whose prices are used.
        run_ids: its runs.
        bundles_url: the folder or URL of the bundles.
        links: addresses to list at the end, by what they show.

    Raises:
        ConfigError: the warehouse doesn't exist.
        RunError: it can't be read.
    """
    with read_only(warehouse) as connection:
        points = points_of(connection, as_of, run_ids)
        details = [markdown(_narrow(block)) for block in blocks_of(connection, as_of, run_ids)]
    if not points:
        return "The warehouse has none of these runs."
    use = headline_of(points)
    shown = [row for row in points if row["use"] == use]
    first = f"**{in_markdown(verdict_line(points))}**"
    return "\n\n".join([first, _checkpoints(shown), _places(shown, bundles_url, links), *details])


def _checkpoints(rows: Sequence[Row]) -> str:
    """Return the table of the checkpoints, baseline first, each at the operating point where a token costs least."""
    best: dict[str, Row] = {}
    for row in rows:
        known = best.get(row["run_id"])
        if known is None or _rank(row) < _rank(known):
            best[row["run_id"]] = row
    labels = labels_of(rows)
    level = f"{100 * (1 - 2 * rows[0]['alpha']):g} %"
    lines: list[tuple[str, Callable[[Row], str]]] = [
        (f"Δ points [{level}]", delta_of),
        ("USD per 1M output tokens", lambda row: _at(row, row["usd_per_mtok_output"], money_of)),
        ("Output tokens/s", lambda row: _at(row, row["output_tok_s"], "{:,.0f}".format)),
        ("Worst task", lambda row: row["worst_task"] or NULL),
        ("Tasks", lambda row: str(len(row["tasks"] or [])) if row["documents"] else NULL),
        ("Documents", lambda row: f"{row['documents']:,}" if row["documents"] else NULL),
        ("Kernel", lambda row: row["kernel_mode"] or NULL),
        ("GPU", lambda row: f"{row['gpu_count']} × {row['gpu']}"),
    ]
    columns = list(best.values())
    verdicts = " | ".join(f"**{in_markdown(row['verdict'])}**" for row in columns)
    table = [
        markdown_line(["", *(labels[row["run_id"]] for row in columns)]),
        "|---" * (len(columns) + 1) + "|",
        f"| Verdict | {verdicts} |",
    ]
    table += [markdown_line([name, *(cell(row) for row in columns)]) for name, cell in lines]
    first = rows[0]
    heading = f"{first['model']}, suite {first['suite'] or NULL}, policy {first['policy']}"
    return "\n".join([f"## {in_markdown(heading)}", "", *table])


def _rank(row: Row) -> tuple[bool, float, float]:
    """Return what the cheapest operating point has least of, or the fastest where none has a cost."""
    usd = row["usd_per_mtok_output"]
    return usd is None, usd or 0.0, -(row["output_tok_s"] or 0.0)


def _at(row: Row, value: float | None, write: Callable[[float], str]) -> str:
    return NULL if value is None else f"{write(value)} at {row['operating_point']}"


def _places(rows: Sequence[Row], bundles_url: str, links: Mapping[str, str]) -> str:
    """Return the links, and each checkpoint with its bundle."""
    labels = labels_of(rows)
    lines = [f"- [{name}]({address})" for name, address in links.items()]
    for run_id, row in {row["run_id"]: row for row in rows}.items():
        bundle = inert(redact(f"{bundles_url.rstrip('/')}/{run_id}"))
        written = f"[{bundle}]({quote(bundle, safe=':/')})" if bundle.startswith("http") else f"`{bundle}`"
        lines.append(f"- {in_markdown(labels[run_id])}: {in_markdown(row['checkpoint'])}, bundle {written}")
    return "\n".join(lines)


def _narrow(block: Block) -> Block:
    """Return a block without the columns that a browser would cut off; the first table and the notes have them."""
    kept = [index for index, name in enumerate(block.names) if name not in WIDE]
    return replace(
        block,
        names=tuple(block.names[index] for index in kept),
        rows=tuple(tuple(row[index] for index in kept) for row in block.rows),
        right=tuple(block.right[index] for index in kept),
    )
