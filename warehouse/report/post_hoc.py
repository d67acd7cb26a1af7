"""Show post-hoc verdicts beside the declared ones."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any

from warehouse.query import query
from warehouse.rejudge import JudgeReport
from warehouse.report.blocks import WIDTH, Column, block_of, plain
from warehouse.report.render import NULL
from warehouse.report.summary import amount, delta_of

_VERDICTS = """
    SELECT p.run_id, p.checkpoint, p.precision, p.gpu, p.use, d.policy AS declared_policy, d.verdict AS declared,
        p.verdict, p.worst_task, p.quality_delta, p.quality_delta_ci_low,
        p.quality_delta_ci_high, p.reason, p.suite, coalesce(t.tasks, []) AS tasks, t.documents
    FROM verdicts p
    LEFT JOIN (
        SELECT run_id, use, policy, policy_fingerprint, list(task) AS tasks, sum(pairs)::BIGINT AS documents
        FROM quality_delta WHERE declared = 'post_hoc' GROUP BY ALL
    ) t USING (run_id, use, policy, policy_fingerprint)
    LEFT JOIN verdicts d ON d.run_id = p.run_id AND d.use = p.use AND d.declared = 'declared'
    WHERE p.declared = 'post_hoc' AND p.policy = $policy AND p.policy_fingerprint = $fingerprint
        AND list_contains($run_ids, p.run_id)
    ORDER BY p.model, p.measured_at, p.run_id, p.use <> 'all', p.use
"""

_DECLARED_REMAINS = (
    "The declared verdict remains in force: a policy that is chosen after seeing the results guarantees no error "
    "rate."
)


def post_hoc_table(warehouse: Path, report: JudgeReport, *, width: int = WIDTH) -> str:
    """Return the post-hoc verdicts of a report beside the declared ones, as text for a terminal.

    Args:
        warehouse: the DuckDB file.
        report: names the policy and the runs to show.
        width: columns of the terminal.
    """
    values = {
        "policy": report.policy,
        "fingerprint": report.policy_fingerprint,
        "run_ids": [*report.judged, *report.judged_before],
    }
    rows = query(warehouse, _VERDICTS, values).to_pylist()
    reasons = [f"{row['checkpoint']}, {row['use']}: {row['reason']}." for row in rows if row["use"] == "all"]
    by_precision = len({row["precision"] for row in rows}) == len({row["run_id"] for row in rows})
    name = "precision" if by_precision and width < WIDTH else "checkpoint"
    return plain(
        block_of(
            f"Post hoc, under policy '{report.policy}'",
            (
                Column(name, itemgetter(name)),
                Column("GPU", itemgetter("gpu")),
                Column("use", itemgetter("use")),
                Column("declared", _declared if width >= WIDTH else lambda row: row["declared"] or NULL),
                *_COLUMNS,
            ),
            rows,
            notes=(*reasons, _DECLARED_REMAINS),
            droppable=("GPU", "worst task", "tasks/n"),
        ),
        width,
    )


def _declared(row: dict[str, Any]) -> str:
    return f"{row['declared']} ({row['declared_policy']})" if row["declared"] else NULL


_COLUMNS = (
    Column("post hoc", itemgetter("verdict")),
    Column("tasks/n", amount, right=True),
    Column("worst task", lambda row: row["worst_task"] or NULL),
    Column("Δ points", delta_of, right=True),
)
