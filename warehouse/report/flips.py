"""Find documents whose score changed, in the view ``flips``, and show them as text."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.cells import cell_len

from quantgate.model.bounded import parse_json
from quantgate.model.text import inert
from quantgate.model.yaml_file import choose
from warehouse.query import query
from warehouse.report.blocks import WIDTH, fit

_INDENT = 12
_ROOM = WIDTH - _INDENT
_PROMPT_LINES = 3
_CUT = "…"

_NAMES = """
    SELECT DISTINCT run_id, checkpoint, NULL AS task FROM runs WHERE NOT is_baseline
    UNION ALL
    SELECT DISTINCT NULL, NULL, task FROM store.run_tasks
"""
_CHOSEN = """
    FROM flips
    WHERE ((latest AND $run_id IS NULL) OR run_id = $run_id) AND ($checkpoint IS NULL OR checkpoint = $checkpoint)
        AND ($task IS NULL OR task = $task) AND ($direction IS NULL OR direction = $direction)
"""
_ORDER = "ORDER BY model, run_id, task, direction = 'better', TRY_CAST(doc_id AS BIGINT), doc_id, doc_repeat, filter"


def find_flips(
    warehouse: Path,
    *,
    run_id: str | None = None,
    checkpoint: str | None = None,
    task: str | None = None,
    direction: str | None = None,
    limit: int | None = None,
) -> tuple[pa.Table, int]:
    """Return rows of the view ``flips``, of repeated runs the latest's; within a task, worse ones come first.

    Args:
        warehouse: the DuckDB file.
        run_id: only of this candidate's run, whether it is the latest or not.
        checkpoint: only of runs of this candidate.
        task: only of this task.
        direction: only ``worse`` or ``better``.
        limit: maximum number of rows.

    Returns:
        The rows, and their number without the limit.

    Raises:
        ConfigError: the run, candidate, task or warehouse doesn't exist.
    """
    names = query(warehouse, _NAMES).to_pylist()
    for option, column, name in (
        ("--run", "run_id", run_id),
        ("--candidate", "checkpoint", checkpoint),
        ("--task", "task", task),
    ):
        if name is not None:
            choose({row[column]: row for row in names if row[column] is not None}, name, option)
    values = {"run_id": run_id, "checkpoint": checkpoint, "task": task, "direction": direction}
    total = int(query(warehouse, f"SELECT count(*) AS n {_CHOSEN}", values).column("n")[0].as_py())
    rows = query(warehouse, f"SELECT * {_CHOSEN} {_ORDER} LIMIT $limit", {**values, "limit": limit})
    return rows, total


def flip_text(row: dict[str, Any]) -> str:
    """Return a flip as a block of at most `WIDTH` columns; long answers are cut around their first difference."""
    repeat = f", repeat {row['doc_repeat']}" if row["doc_repeat"] else ""
    heading = f"{row['direction']}: {row['task']}, document {row['doc_id']}{repeat}, {row['checkpoint']}"
    answers = around_difference(row["baseline_answer"], row["candidate_answer"], _ROOM)
    generated = _both_generated(row)
    lines = [
        fit(inert(heading), WIDTH),
        *_prompt(row["prompt"]),
        _line("target", fit(inert(row["target"]), _ROOM)),
    ]
    for number, side in enumerate(("baseline", "candidate")):
        lines.append(_line(side, answers[number]))
        if generated is not None:
            lines.append(_line("  said", generated[number]))
    lines.append(_line("score", f"{_score(row, 'baseline')} → {_score(row, 'candidate')}"))
    return "\n".join(lines)


def around_difference(baseline: str, candidate: str, room: int) -> tuple[str, str]:
    """Cut two texts to one line of at most ``room`` columns each, around their first difference."""
    first, second = inert(baseline), inert(candidate)
    if max(cell_len(first), cell_len(second)) <= room:
        return first, second
    same = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    begin = max(0, same - room // 3)
    return _window(first, begin, room), _window(second, begin, room)


def _window(text: str, begin: int, room: int) -> str:
    return fit((_CUT + text[begin + 1 :]) if begin else text, room)


def _line(label: str, text: str) -> str:
    return f"{label:<{_INDENT}}{text}".rstrip()


def _prompt(prompt: str | None) -> list[str]:
    """Return the end of the prompt, which has the question."""
    if prompt is None:
        return [_line("prompt", "not stored")]
    wrapped = [
        fit(line, _ROOM)
        for paragraph in prompt.splitlines()
        for line in textwrap.wrap(inert(paragraph), _ROOM - 2, break_on_hyphens=False)
    ]
    shown = wrapped[-_PROMPT_LINES:] or [""]
    if len(wrapped) > len(shown):
        shown[0] = fit(f"{_CUT} {shown[0]}", _ROOM)
    return [_line("" if number else "prompt", line) for number, line in enumerate(shown)]


def _both_generated(row: dict[str, Any]) -> tuple[str, str] | None:
    """Return the texts generated before any filter; None for choices, or if they equal the answers."""
    baseline, candidate = (_generated(row[f"{side}_responses"]) for side in ("baseline", "candidate"))
    if baseline is None or candidate is None:
        return None
    if (baseline, candidate) == (row["baseline_answer"].strip(), row["candidate_answer"].strip()):
        return None
    return around_difference(baseline, candidate, _ROOM)


def _generated(responses: str) -> str | None:
    node: Any = parse_json(responses)
    while isinstance(node, list) and len(node) == 1:
        node = node[0]
    return node.strip() if isinstance(node, str) else None


def _score(row: dict[str, Any], side: str) -> str:
    details = [
        str(row[f"{side}_finish_reason"] or ""),
        f"{row[f'{side}_output_tokens']} tokens" if row[f"{side}_output_tokens"] is not None else "",
    ]
    shown = ", ".join(detail for detail in details if detail)
    return f"{row[f'{side}_score']:g}" + (f" ({shown})" if shown else "")
