"""``quantgate status``: list runs with their verdicts, what is unfinished and how it goes on, what waits for a load."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commands.output import say
from commands.verb import Verb
from quantgate.model.home import Home

if TYPE_CHECKING:
    from quantgate.bundles.staging import Staging

_RUNS = """
    WITH asked AS (SELECT run_id, list(task ORDER BY task) AS names FROM store.run_tasks GROUP BY run_id),
    judged AS (
        SELECT run_id, any_value(verdict) AS verdict, bool_or(stale) AS stale
        FROM validated_table WHERE use = 'all' GROUP BY run_id
    ),
    listed AS (
        SELECT r.measured_at, r.model, r.gpu, r.suite, r.policy, r.checkpoint, r.precision, r.documents, r.validity,
               r.run_id, coalesce(v.verdict, '–') AS verdict, v.stale,
               coalesce(a.names, []) AS tasks
        FROM runs r LEFT JOIN judged v USING (run_id) LEFT JOIN asked a USING (run_id)
    )
    SELECT *, strftime(measured_at, '%Y-%m-%d %H:%M') AS measured FROM listed
    ORDER BY min(measured_at) OVER (PARTITION BY model, gpu, suite, tasks, policy), model, gpu, suite, tasks, policy,
        measured_at, run_id
"""
_MOST_TASKS = 4
"""Tasks that are named; of more the first, and their number."""


def _tasks(names: Sequence[str]) -> str:
    """Name tasks: all, or the first and how many more there are."""
    if len(names) <= _MOST_TASKS:
        return ", ".join(names)
    return f"{', '.join(names[:_MOST_TASKS])} and {len(names) - _MOST_TASKS} more"


def _measured(suite: str | None, tasks: Sequence[str]) -> str:
    return f"suite {suite} ({_tasks(tasks)})" if tasks else "no quality"


def _age(row: dict[str, Any]) -> str:
    """Say if a run can be used: a later one of the same has its row in validated_table, and a stale one is old."""
    if row["validity"] != "valid":
        return str(row["validity"])
    return "repeated" if row["stale"] is None else "stale" if row["stale"] else "fresh"


def _runs(home: Home) -> Iterator[str]:
    """Yield a table for the runs of each model, GPU, tasks and policy."""
    from warehouse.query import query
    from warehouse.report.blocks import Column, block_of, plain
    from warehouse.report.summary import amount

    columns = (
        Column("measured", itemgetter("measured")),
        Column("checkpoint", itemgetter("checkpoint")),
        Column("precision", itemgetter("precision")),
        Column("verdict", itemgetter("verdict")),
        Column("tasks/n", amount, right=True),
        Column("age", _age),
        Column("run", itemgetter("run_id")),
    )

    def together(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["model"], row["gpu"], row["suite"], row["tasks"], row["policy"]

    for (model, gpu, suite, tasks, policy), rows in groupby(
        query(home.warehouse, _RUNS).to_pylist(), together
    ):
        heading = f"{model} on {gpu}: {_measured(suite, tasks)}, policy {policy}"
        yield plain(block_of(heading, columns, list(rows), droppable=("measured", "precision")))


def _answered(staging: Staging, state: dict[str, Any]) -> str:
    """Say how many documents are answered, those of interim batches too, of all that the run may ask, where known."""
    from quantgate.bundles.batches import answered

    done, wanted, most = 0, 0, state.get("documents_most")
    is_known = bool(state.get("documents"))
    for task, declared in (state.get("documents") or dict.fromkeys(state.get("tasks", ()))).items():
        documents, available = answered(staging, task)
        available = available or declared
        done += documents
        is_known &= available is not None
        wanted += min(available or 0, most or available or 0)
    total = f" of {wanted:,}" if is_known else ""
    return f" ({done:,}{total} documents)" if done else ""


def _unfinished(home: Home, staging: Staging, state: dict[str, Any]) -> str:
    """Say of a run what it has finished, why it stopped, and the command that goes on with it.

    The staging of an earlier version does not have all of that.
    """
    from quantgate.bundles.staging import RESULT

    failure = staging.failure()
    tasks = len(list(staging.quality_dir.glob(f"*/{RESULT}")))
    levels = len(list(staging.load_dir.glob("c*.json")))
    names = state.get("tasks")
    what = f"{state.get('checkpoint', staging.run_id)} ({state.get('precision', 'unknown')})"
    if names is not None:
        what += f" of {state['model']} on {state['gpu']}, {_measured(state['suite'], names)}, policy {state['policy']}"
    kept = f"{tasks} of {len(names)} tasks" if names is not None else f"{tasks} tasks"
    kept += _answered(staging, state)
    kept += (
        f" and {levels} of {state['levels']} load levels"
        if "levels" in state
        else f" and {levels} load levels"
    )
    outcome = f"failed: {failure['message']}" if failure.get("message") else "unfinished"
    lines = [
        f"{what}, begun {staging.started_at:%Y-%m-%d %H:%M}: {kept} are kept; {outcome}",
        f"  goes on with: {_command(state)}",
        f"  log: {failure.get('log') or home.logs / staging.run_id}",
    ]
    return "\n".join(lines)


def _command(state: dict[str, Any]) -> str:
    """Return the command that goes on with a run, from the folder that it was given in."""
    command, folder = state.get("command"), state.get("folder")
    if not command:
        return "the command that began it (an earlier version did not keep it)"
    return f"cd {shlex.quote(folder)} && {command}" if folder and Path(folder) != Path.cwd() else str(command)


def _left_out(home: Home) -> list[str]:
    """Return the lines of what the last load left out; none before the first load of that version."""
    from quantgate.model.errors import ConfigError
    from warehouse.query import query

    try:
        lines: list[str] = (
            query(home.warehouse, "FROM store.left_out ORDER BY ALL").column("line").to_pylist()
        )
    except ConfigError:
        return []
    return lines


def _waiting(home: Home, left_out: Sequence[str]) -> str | None:
    """Say which finished bundles wait for a load; None where none does. Those that one left out don't."""
    from quantgate.bundles.store import BundleStore
    from quantgate.model.errors import QuantgateError
    from warehouse.query import query

    loaded: set[str] = set()
    if home.warehouse.exists():
        loaded = set(query(home.warehouse, "SELECT run_id FROM runs").column("run_id").to_pylist())
    try:
        store = BundleStore(home.bundles)
        waiting = [
            run
            for run in store.run_ids()
            if run not in loaded and store.is_bundle(run) and not any(run in line for line in left_out)
        ]
    except QuantgateError as error:
        return f"finished bundles can't be listed: {error}"
    if not waiting:
        return None
    count = "1 finished bundle waits" if len(waiting) == 1 else f"{len(waiting)} finished bundles wait"
    return f"{count} for `quantgate load`: {_tasks(waiting)}"


_CHANGED = """
    SELECT checkpoint, run_id, string_agg(use, ', ' ORDER BY use) AS uses, before, after, reason
    FROM changed_verdicts
    GROUP BY ALL ORDER BY checkpoint, run_id
"""


def _changed(home: Home) -> list[str]:
    """Say which verdicts an update changed, and why; none before the first load of that version."""
    from quantgate.model.errors import ConfigError
    from warehouse.query import query

    try:
        changed = query(home.warehouse, _CHANGED).to_pylist()
    except ConfigError:
        return []
    return [
        f"{row['checkpoint']}: run {row['run_id']} for {row['uses']}: stood {row['before']} and stands {row['after']} "
        f"since an update: {row['reason']}"
        for row in changed
    ]


@click.command("status", cls=Verb, short_help="List measured, unfinished and failed runs.")
def command() -> int:
    """List the runs of the warehouse by model, tasks and policy, with verdict and age, and what is unfinished.

    An unfinished or failed run is listed with its finished parts, the documents that it has answered, its log, and the
    command that goes on with it.
    Finished bundles that no load has brought into the warehouse yet are named, what the last load left out and why, and
    verdicts that an update changed.
    """
    from quantgate.bundles.staging import unfinished

    home = Home.current()
    if home.warehouse.exists():
        runs = "\n\n".join(_runs(home))
        say(f"runs in {home.warehouse} (logs: {home.logs}/RUN_ID)\n\n{runs}\n")
        for line in _changed(home):
            say(line)
    else:
        say(f"no runs yet in {home.path}")
    left_out = _left_out(home) if home.warehouse.exists() else []
    for line in left_out:
        say(f"left out of the warehouse: {line}")
    if waiting := _waiting(home, left_out):
        say(waiting)
    lines = [_unfinished(home, staging, state) for staging, state in unfinished(home)]
    say("\n".join(lines) or "nothing is unfinished")
    return 0
