"""Write the matrix as a table: for a terminal, or as Markdown for an artifact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa

from flows.planning.cells import Cell, CellState, Plan, run_name
from warehouse.report.blocks import WIDTH, Block, markdown_line, plain, wrapped
from warehouse.report.render import NULL

COLUMNS = ("pool", "model", "precision", "state", "GPUs", "GPU-hours", "USD", "basis")
_TEXT = ("pool", "gpu", "model", "precision", "checkpoint", "revision")
ROWS = pa.schema(
    [
        *((name, pa.string()) for name in _TEXT),
        ("is_baseline", pa.bool_()),
        ("state", pa.string()),
        ("reason", pa.string()),
        ("gpu_count", pa.int32()),
        ("gpu_hours", pa.float64()),
        ("usd", pa.float64()),
        ("basis", pa.string()),
        ("gpu_hours_low", pa.float64()),
        ("usd_low", pa.float64()),
    ]
)
DROPPABLE = ("basis", "GPUs")
"""Columns that a narrow terminal leaves out."""
SUBTOTALS = ("of", "name", "runs", "GPU-hours", "USD", "known")
NUMERIC = (False, False, False, False, True, True, True, False)


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return NULL
    return f"{value:,.{digits}f}" if value == 0 or value >= 10**-digits / 2 else f"<{10**-digits:.{digits}f}"


def _range(low: float | None, high: float | None, digits: int) -> str:
    """Return both ends of a figure; one where they read the same."""
    ends = dict.fromkeys((_number(high if low is None else low, digits), _number(high, digits)))
    return "–".join(ends)


def _cells(cell: Cell) -> tuple[str, ...]:
    runs = cell.state is CellState.RUN
    return (
        cell.pool,
        cell.model,
        f"{cell.precision or NULL}{' *' if cell.is_baseline else ''}",
        cell.state.value,
        NULL if cell.gpus is None else str(cell.gpus),
        _range(cell.gpu_hours_low, cell.gpu_hours, 2) if runs else "",
        _range(cell.usd_low, cell.usd, 2) if runs else "",
        cell.basis if runs else "",
    )


def _reasons(cells: Sequence[Cell]) -> list[str]:
    """Return a paragraph for each reason, with all the cells that have it."""
    by_reason: dict[str, dict[str, list[str]]] = {}
    for cell in cells:
        for reason in (cell.reason, cell.no_usd if cell.state is CellState.RUN else ""):
            if reason:
                of_unit = by_reason.setdefault(reason, {}).setdefault(f"{cell.pool} {cell.model}", [])
                of_unit.append(cell.precision or cell.source)
    paragraphs = []
    for reason, units in by_reason.items():
        who = "; ".join(f"{unit} {', '.join(precisions)}" for unit, precisions in units.items())
        paragraphs.append(f"{who}: {reason}")
    return paragraphs


def _lengths(plan: Plan) -> list[str]:
    """Return the paragraphs of each model whose estimates rest on the length of prompts and answers."""
    return [f"{model}: {words}" for model, lengths in plan.lengths.items() for words in lengths]


def totals(plan: Plan) -> str:
    """Sum up in one sentence what is to be run: GPU-hours and USD, and for how many runs they are known."""
    due = plan.due
    if not due:
        return "Nothing is to be run."
    parts = [f"{len(due)} of {len(plan.cells)} to be run"]
    timed = [cell for cell in due if cell.gpu_hours is not None]
    priced = [cell for cell in due if cell.usd is not None]
    if timed:
        parts.append(f"about {_hours(timed)} GPU-hours{_of(timed, due)}")
    if priced:
        budget = f" (budget {plan.budget_usd:,.2f}, held to the high end)" if plan.budget_usd else ""
        parts.append(f"{_usd(priced)} USD{budget}{_of(priced, due)}")
    if not priced:
        parts.append("at a cost that isn't known")
    return f"{', '.join(parts)}. Downloads aren't counted."


def _hours(cells: Sequence[Cell]) -> str:
    """Sum up GPU-hours, low end and high end."""
    return _range(sum(c.gpu_hours_low or 0 for c in cells), sum(c.gpu_hours or 0 for c in cells), 2)


def _usd(cells: Sequence[Cell]) -> str:
    """Sum up USD, low end and high end."""
    return _range(sum(c.usd_low or 0 for c in cells), sum(c.usd or 0 for c in cells), 2)


def _of(some: Sequence[Cell], due: Sequence[Cell]) -> str:
    return f" for {len(some)} of them" if len(some) < len(due) else ""


def rows_of(plan: Plan) -> pa.Table:
    """Return the plan as rows, for CSV and JSON; a figure that isn't known is NULL."""
    rows = [
        vars(cell)  # of these fields, the schema takes those that are columns
        | {
            "checkpoint": cell.source,
            "revision": cell.expected.checkpoint if cell.expected else None,
            "state": cell.state.value,
            "reason": cell.reason or cell.no_usd or None,
            "gpu_count": cell.gpus,
            "basis": cell.basis or None,
        }
        for cell in plan.cells
    ]
    return pa.Table.from_pylist(rows, schema=ROWS)


def text_of(plan: Plan, width: int = WIDTH) -> str:
    """Return the plan as an aligned table, with reasons, subtotals and totals below it.

    Args:
        plan: what was planned.
        width: columns of the terminal.
    """
    if not plan.cells:
        lines = ["No model has a checkpoint for this choice."]
    else:
        table = Block("", COLUMNS, tuple(map(_cells, plan.cells)), NUMERIC, droppable=DROPPABLE)
        reasons = (*_reasons(plan.cells), *_lengths(plan))
        notes = [wrapped(n, width, initial_indent="  ", subsequent_indent="    ") for n in reasons]
        lines = [plain(table, width).lstrip("\n"), "* baseline", *notes, *_subtotals(plan, width)]
    lines += [wrapped(f"Gets nothing: {line}", width, subsequent_indent="  ") for line in _idle(plan)]
    due = {cell.pool for cell in plan.due}
    lines += [
        wrapped(
            f"Not checked: memory of pool {name} unknown (memory_gb of its hosts in fleet.yaml)",
            width,
            subsequent_indent="  ",
        )
        for name in plan.unknown_memory
        if name in due
    ]
    return "\n".join([*lines, *([wrapped(totals(plan), width)] if plan.cells else [])])


def _subtotals(plan: Plan, width: int) -> list[str]:
    """Return a table of what is to be run for each model and on each GPU; nothing where nothing is."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for kind in ("model", "gpu"):
        for cell in plan.due:
            groups.setdefault((kind, getattr(cell, kind)), []).append(cell)
    rows = []
    for (kind, name), cells in groups.items():
        timed = [cell for cell in cells if cell.gpu_hours is not None]
        priced = [cell for cell in cells if cell.usd is not None]
        known = [f"GPU-hours of {len(timed)} runs" if len(timed) < len(cells) else ""]
        known += [f"USD of {len(priced)} runs" if len(priced) < len(cells) else ""]
        hours = _hours(timed) if timed else NULL
        usd = _usd(priced) if priced else NULL
        label = "GPU" if kind == "gpu" else kind
        rows.append((label, name, str(len(cells)), hours, usd, ", ".join(filter(None, known))))
    right = (False, False, True, True, True, False)
    return ["", plain(Block("Subtotals", SUBTOTALS, tuple(rows), right), width), ""] if rows else []


def _idle(plan: Plan) -> list[str]:
    """Return a line for each reason why pools get nothing: not planned, or nothing is due there."""
    reasons = dict(plan.left_out)
    for pool in dict.fromkeys(unit.pool for unit in plan.units):
        cells = [cell for cell in plan.cells if cell.pool == pool]
        if not any(cell.state is CellState.RUN for cell in cells):
            states = Counter(cell.state.value for cell in cells)
            what = ", ".join(f"{state}: {count}" for state, count in states.items())
            reasons[pool] = what or "no model has a checkpoint for this choice"
    pools: dict[str, list[str]] = {}
    for pool, reason in reasons.items():
        pools.setdefault(reason, []).append(pool)
    return [f"{', '.join(names)} ({reason})" for reason, names in pools.items()]


def markdown_of(
    plan: Plan, gpu_hours: Mapping[int, float], problems: Mapping[str, str], missing: Mapping[int, str]
) -> str:
    """Return the plan and its outcome as Markdown.

    Args:
        plan: what was planned.
        gpu_hours: of what was measured, by the cell's index among those that were due.
        problems: what went wrong by run ("model on pool"), empty where nothing did; only runs that were started.
        missing: why a run that completed left no bundle here, by the cell's index among those that were due.
    """
    columns = [*COLUMNS, "outcome", "took GPU-hours", "took USD", "why"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    due = 0
    for cell in plan.cells:
        outcome, hours, usd, why = "skipped", "", "", cell.reason
        if cell.state is CellState.RUN:
            measured, lost = gpu_hours.get(due), missing.get(due, "")
            problem = problems.get(run_name(cell.model, cell.pool))
            due += 1
            why = cell.reason or cell.no_usd
            if measured is not None:
                outcome, hours = "measured", _number(measured, 2)
                rate = cell.usd_per_gpu_hour
                usd = NULL if rate is None else _number(measured * rate, 2)
            elif problem is None:
                outcome = "planned"
            elif problem or lost:
                outcome, why = "failed", problem or lost
            else:
                outcome, why = "measured before", "the host had measured it already"
        cells = [*_cells(cell), outcome, hours, usd, why]
        lines.append(markdown_line(cells))
    return "\n".join([*lines, "", totals(plan)])
