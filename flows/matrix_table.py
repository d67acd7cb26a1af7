"""The matrix as a table for people: a terminal's, or Markdown for an artifact."""

from __future__ import annotations

from collections.abc import Sequence

from flows.cells import Cell, Plan, State
from warehouse.render import NULL, aligned

COLUMNS = ("pool", "model", "precision", "state", "GPUs", "GPU-hours", "USD", "basis")
NUMERIC = (False, False, False, False, True, True, True, False)


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return NULL
    return f"{value:,.{digits}f}" if value == 0 or value >= 10**-digits / 2 else f"<{10**-digits:.{digits}f}"


def _cells(cell: Cell) -> list[str]:
    runs = cell.state is State.RUN
    return [
        cell.pool,
        cell.model,
        f"{cell.precision or NULL}{' *' if cell.is_baseline else ''}",
        cell.state.value,
        NULL if cell.gpus is None else str(cell.gpus),
        _number(cell.gpu_hours, 2) if runs else "",
        _number(cell.usd, 2) if runs else "",
        cell.basis if runs else "",
    ]


def _reasons(cells: Sequence[Cell]) -> list[str]:
    """Why, a line a reason: the same one for several cells stands once."""
    told: dict[str, list[str]] = {}
    for cell in cells:
        for reason in (cell.reason, cell.no_usd if cell.state is State.RUN else ""):
            if reason:
                told.setdefault(reason, []).append(f"{cell.pool} {cell.model} {cell.precision}")
    return [f"{', '.join(who)}: {reason}" for reason, who in told.items()]


def totals(plan: Plan) -> str:
    """What is to be run, in one sentence: GPU-hours and USD, and how many runs have none."""
    due = plan.due
    if not due:
        return "Nothing is to be run."
    hours = sum(cell.gpu_hours or 0 for cell in due)
    usd = sum(cell.usd or 0 for cell in due)
    unknown = sum(cell.usd is None for cell in due)
    more = f", and {unknown} whose cost isn't known" if unknown else ""
    limit = f" of a budget of {plan.budget_usd:,.2f}" if plan.budget_usd else ""
    return (
        f"{len(due)} of {len(plan.cells)} to be run: about {_number(hours, 2)} GPU-hours, "
        f"{_number(usd, 2)} USD{limit}{more}; downloads not counted."
    )


def text_of(plan: Plan) -> str:
    """The plan as an aligned table, with reasons and totals below it."""
    if not plan.cells:
        return "No model has a checkpoint for this choice."
    reasons = [f"  {line}" for line in _reasons(plan.cells)]
    return "\n".join(
        [
            aligned(COLUMNS, [_cells(cell) for cell in plan.cells], NUMERIC),
            "* baseline",
            *reasons,
            totals(plan),
        ]
    )


def markdown_of(plan: Plan, outcomes: dict[tuple[str, str], str] | None = None) -> str:
    """The plan as Markdown.

    Args:
        plan: what was planned.
        outcomes: what became of a unit's run, by pool and model; before any has ended, None.
    """
    columns = [*COLUMNS, "outcome", "why"]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for cell in plan.cells:
        outcome = (outcomes or {}).get((cell.pool, cell.model), "") if cell.state is State.RUN else "skipped"
        why = cell.reason or (cell.no_usd if cell.state is State.RUN else "")
        cells = [*_cells(cell), outcome, why]
        lines.append(f"| {' | '.join(text.replace('|', chr(92) + '|') for text in cells)} |")
    return "\n".join([*lines, "", totals(plan)])
