"""``quantgate judge``: history under another policy, beside what was declared."""

from __future__ import annotations

from pathlib import Path

import click

from quantgate.model.home import Home


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
    from quantgate.model.config.policy import load_policy
    from warehouse.rejudge import post_hoc_table, rejudge

    home = Home.current()
    report = rejudge(home.warehouse, home.bundles, policy, load_policy(policy, policy_file), run_id=run_id)
    if report.judged or report.known:
        click.echo(post_hoc_table(home.warehouse, report) + "\n")
    click.echo(
        f"{len(report.judged)} judged under '{policy}' ({report.policy_fingerprint[:12]}), "
        f"{len(report.known)} judged before, {len(report.declared)} declared it themselves"
    )
    for problem in report.problems:
        click.echo(f"quantgate: left out: {problem}", err=True)
    return 1 if report.problems else 0
