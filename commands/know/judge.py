"""``quantgate judge``: judge stored runs under another policy than the declared one."""

from __future__ import annotations

from pathlib import Path

import click

from commands.outcome import terminal_width
from commands.output import say
from commands.verb import Verb
from quantgate.model.home import Home


@click.command("judge", cls=Verb)
@click.option("--policy", required=True, metavar="NAME", help="Policy to judge under.")
@click.option(
    "--policy-file",
    type=click.Path(path_type=Path),
    help="File that has the policy, in place of configs/policy.yaml.",
)
@click.option(
    "--run", "run_id", metavar="RUN_ID", help="Judge only this run. Default: the runs of all candidates."
)
def command(policy: str, policy_file: Path | None, run_id: str | None) -> int:
    """Judge stored runs under a policy other than their own.

    Nothing is measured. The verdicts are post hoc. The views verdicts and quality_delta list them beside the declared
    verdicts; the column `declared` says which is which. validated_table shows only the declared ones. Judging again
    changes nothing.

    Example: quantgate judge --policy standard
    """
    from quantgate.model.config.policy import load_policy
    from warehouse.rejudge import rejudge
    from warehouse.report.post_hoc import post_hoc_table

    home = Home.current()
    report = rejudge(home.warehouse, home.bundles, policy, load_policy(policy, policy_file), run_id=run_id)
    if report.judged or report.judged_before:
        say(post_hoc_table(home.warehouse, report, width=terminal_width()) + "\n")
    say(
        f"{len(report.judged)} judged under '{policy}' ({report.policy_fingerprint[:12]}), "
        f"{len(report.judged_before)} were judged before, {len(report.declared)} had declared it"
    )
    for problem in report.problems:
        say(f"quantgate: left out: {problem}", err=True)
    return 1 if report.problems else 0
