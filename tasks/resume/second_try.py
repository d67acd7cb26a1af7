"""Refuse to begin a question anew while an unfinished run of it has had an interim look: alpha would be spent twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from quantgate.bundles import batches
from quantgate.bundles.history import RunHistory
from quantgate.bundles.identity import comparison_id, run_fingerprint
from quantgate.bundles.order import counts_as_fresh
from quantgate.bundles.staging import Staging, unfinished
from quantgate.model.errors import ConfigError
from quantgate.model.home import Home
from quantgate.model.records import RunPlan
from tasks.resume.interim_looks import is_full


class Unfinished(NamedTuple):
    """A run in progress on this host, as its staging shows it."""

    fingerprint: str
    run_id: str
    begun: bool
    """True if a document was asked, or inherited."""
    comparison: str | None = None
    """Id of a candidate's comparison key, under a policy with interim looks."""
    judged_tasks: frozenset[str] = frozenset()
    """Tasks that had an interim look of this run's own."""
    continues: str | None = None
    limit: int | None = None
    workload: str | None = None
    declared_order: int = 0


def unfinished_runs(home: Home) -> list[Unfinished]:
    """Read the runs in progress from a home's staging."""
    return [
        Unfinished(
            fingerprint=staging.path.name,
            run_id=staging.run_id,
            begun=batches.begun(staging),
            comparison=state.get("question"),
            judged_tasks=_judged_tasks(staging),
            continues=batches.continues(staging),
            limit=state.get("limit"),
            workload=state.get("workload"),
            declared_order=staging.declared_order,
        )
        for staging, state in unfinished(home)
    ]


def _judged_tasks(staging: Staging) -> frozenset[str]:
    inherited = 1 if batches.continues(staging) else 0
    tasks = {folder.name for folder in batches.batches_dir(staging).glob("[!.]*") if folder.is_dir()}
    judged = {task for task in tasks if len(batches.finished(staging, task)) > inherited}
    return frozenset(judged | {folder.name for folder in staging.quality_dir.glob("[!.]*")})


def second_try(
    plan: RunPlan, runs: Sequence[Unfinished], history: RunHistory, *, fresh_after: int | None
) -> ConfigError | None:
    """Return why a candidate's run is refused as a second try; None where it isn't one.

    Args:
        plan: the candidate's.
        runs: the runs in progress on this host.
        history: finished runs; where one has asked the question, a run that continues none is a check of it.
        fresh_after: runs declared after this number go on, others are measured anew; None: all go on
    """
    comparison, fingerprint = comparison_id(plan), run_fingerprint(plan.inputs)
    names = {task.task for task in plan.suite.tasks}
    for run in runs:
        goes_on = counts_as_fresh(run.declared_order, fresh_after)
        if (run.fingerprint == fingerprint and goes_on) or run.comparison != comparison:
            continue
        if names.isdisjoint(run.judged_tasks) or (run.continues is None and history.asking(comparison)):
            continue
        way = _way_on(plan, run, fresh=fresh_after is not None)
        return ConfigError(
            f"run {run.run_id} of the same question is unfinished and has had interim looks; to begin anew "
            "would be a second try",
            where=plan.checkpoint.name,
            hint=f"Finish it first: the same command{way} goes on with it.",
        )
    return None


def _way_on(plan: RunPlan, run: Unfinished, *, fresh: bool) -> str:
    """Say in what the command that goes on with a run differs from that of a plan."""
    ways = ["without --full"] * is_full(plan) + ["without --fresh"] * fresh
    if run.limit != plan.suite.limit:
        ways.append(f"with --limit {run.limit}" if run.limit else "without --limit")
    if run.workload and run.workload != plan.workload.name:
        ways.append(f"with --workload {run.workload}")
    return f" {' and '.join(ways)}" if ways else ""
