"""``quantgate judge``: history under another policy, beside what was declared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantgate.model.home import Home

if TYPE_CHECKING:
    from warehouse.rejudge import JudgeReport

_VERDICTS = """
    SELECT p.run_id, p.checkpoint, p.precision, p.gpu, p.use, d.policy AS declared_policy, d.verdict AS declared,
        p.verdict, p.worst_task, p.quality_delta AS delta, p.quality_delta_ci_low AS low,
        p.quality_delta_ci_high AS high, p.reason
    FROM verdicts p
    LEFT JOIN verdicts d ON d.run_id = p.run_id AND d.use = p.use AND d.declared = 'declared'
    WHERE p.declared = 'post_hoc' AND p.policy = $policy AND p.policy_fingerprint = $fingerprint
        AND list_contains($run_ids, p.run_id)
    ORDER BY p.model, p.measured_at, p.run_id, p.use <> 'all', p.use
"""

_STANDS = (
    "The declared verdict stands: a policy that is chosen with the results in view promises nothing about its "
    "error rate."
)


@click.command("judge")
@click.option("--policy", required=True, metavar="NAME", help="The policy to judge under.")
@click.option(
    "--policy-file",
    type=click.Path(path_type=Path),
    help="A file like configs/policy.yaml that has it, instead of that one.",
)
@click.option("--run", "run_id", metavar="RUN_ID", help="One candidate's run; all of them if left out.")
def command(policy: str, policy_file: Path | None, run_id: str | None) -> int:
    """Judge stored runs under another policy than they declared, from their samples; nothing is measured.

    These verdicts are post hoc: they stand beside the declared ones in the views verdicts and quality_delta
    (column declared), while validated_table goes on showing what was declared. Judging again changes nothing.

    Example: quantgate judge --policy standard
    """
    from quantgate.model.config import load_policy
    from warehouse.rejudge import rejudge

    home = Home.current()
    report = rejudge(home.warehouse, home.bundles, policy, load_policy(policy, policy_file), run_id=run_id)
    if report.judged or report.known:
        click.echo(_table(home.warehouse, report) + "\n")
    click.echo(
        f"{len(report.judged)} judged under '{policy}' ({report.policy_fingerprint[:12]}), "
        f"{len(report.known)} judged before, {len(report.declared)} declared it themselves"
    )
    for problem in report.problems:
        click.echo(f"quantgate: left out: {problem}", err=True)
    return 1 if report.problems else 0


def _table(warehouse: Path, report: JudgeReport) -> str:
    """The post-hoc verdicts beside the declared ones."""
    from warehouse.layout import Block, plain
    from warehouse.query import query
    from warehouse.render import NULL

    values = {
        "policy": report.policy,
        "fingerprint": report.policy_fingerprint,
        "run_ids": [*report.judged, *report.known],
    }
    rows = query(warehouse, _VERDICTS, values).to_pylist()
    held_back = [
        f"{row['checkpoint']}, {row['use']}: {row['reason']}." for row in rows if row["use"] == "all"
    ]
    return plain(
        Block(
            heading=f"Post hoc, under policy '{report.policy}'",
            names=("checkpoint", "GPU", "use", "declared", "post hoc", "worst task", "Δ points"),
            rows=tuple(
                (
                    row["checkpoint"],
                    row["gpu"],
                    row["use"],
                    f"{row['declared']} ({row['declared_policy']})" if row["declared"] else NULL,
                    row["verdict"],
                    row["worst_task"] or NULL,
                    _delta(row),
                )
                for row in rows
            ),
            right=(False, False, False, False, False, False, True),
            notes=(
                *held_back,
                _STANDS,
            ),
            droppable=("GPU", "worst task"),
        )
    )


def _delta(row: dict[str, Any]) -> str:
    from warehouse.render import NULL

    if row["delta"] is None:
        return NULL
    return f"{100 * row['delta']:+.2f} [{100 * row['low']:.2f}, {100 * row['high']:.2f}]"
