"""Stored runs judged again under another policy: beside what they declared, marked post hoc, never instead of it.

docs/decisions/0011-post-hoc-verdicts.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import duckdb
from pydantic import Field

from quantgate.bundles.manifest import Manifest
from quantgate.bundles.store import BundleStore
from quantgate.model.config.policy import Policy
from quantgate.model.errors import ConfigError, QuantgateError
from quantgate.model.yaml_file import Strict, choose
from warehouse.configuration import CONFIGS, add_policy
from warehouse.database import insert_rows
from warehouse.judge_runs import judge_stored
from warehouse.load import load_bundles
from warehouse.query import read_only
from warehouse.rows import Row, task_verdict_rows, verdict_rows
from warehouse.swap import exclusive, next_state, remove_leftovers

_CANDIDATES = """
    SELECT
        c.run_id,
        c.baseline_run_id,
        EXISTS (SELECT 1 FROM store.run_tasks t WHERE t.run_id = c.run_id) AS has_quality,
        c.policy = $policy AND c.policy_fingerprint = $fingerprint AS declared,
        EXISTS (
            SELECT 1 FROM store.post_hoc_verdicts v
            WHERE v.run_id = c.run_id AND v.policy = $policy AND v.policy_fingerprint = $fingerprint
        ) AS known
    FROM store.runs c
    ORDER BY c.baseline_run_id, run_order(c.declared_order, c.started_at, c.run_id)
"""


class JudgeReport(Strict):
    """What judging history under a policy did."""

    policy: str
    policy_fingerprint: str
    judged: tuple[str, ...] = Field(description="Runs that got post-hoc verdicts now.")
    known: tuple[str, ...] = Field(description="Runs that had them already.")
    declared: tuple[str, ...] = Field(description="Runs that declared this very policy: nothing to add.")
    problems: tuple[str, ...] = Field(description="One line for each run or bundle that was left out.")


@dataclass(frozen=True)
class _Candidate:
    """A stored run, and where it stands with the policy."""

    run_id: str
    baseline_run_id: str | None
    has_quality: bool
    declared: bool
    known: bool


@dataclass
class _Found:
    """Rows to be stored, and what went wrong on the way."""

    verdicts: list[Row] = field(default_factory=list)
    task_verdicts: list[Row] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)
    errors: list[QuantgateError] = field(default_factory=list)


def rejudge(
    warehouse: Path,
    bundles: str | Path,
    policy_name: str,
    policy: Policy,
    *,
    run_id: str | None = None,
    configs: Path = CONFIGS,
    wait_s: float = 600,
) -> JudgeReport:
    """Judge stored candidates under a policy that they did not declare.

    New bundles are loaded first. The samples come from the bundles, which are checked as at a load, and go
    through the loader's own judge; the result is swapped in like a load's, so readers go on and a kill leaves
    the old state or the new one. What was judged under the same policy before is left as it is.

    Args:
        warehouse: the DuckDB file.
        bundles: folder or fsspec URL that holds the bundles.
        policy_name: the policy's name.
        policy: what to judge under; told from others of its name by its fingerprint.
        run_id: the one candidate to judge; every one if empty.
        configs: the folder of the configuration, for the load.
        wait_s: how long to wait for another writer, seconds.

    Raises:
        ConfigError: no such run, it can't be judged (a baseline, or no quality was measured), or the policy
            can't judge its tasks. With every run asked for, a run that the policy can't judge is a problem line.
        RunError: its bundle or its baseline's is damaged or gone, or another writer goes on.
    """
    loaded = load_bundles(warehouse, bundles, configs=configs, wait_s=wait_s)
    store = BundleStore(bundles)
    with exclusive(warehouse, wait_s):
        remove_leftovers(warehouse)
        candidates = _candidates(warehouse, policy_name, policy)
        if run_id is not None:
            candidates = [_chosen(candidates, run_id)]
        candidates = [c for c in candidates if c.baseline_run_id is not None and c.has_quality]
        new = [c for c in candidates if not c.declared and not c.known]
        found = _judge(store, new, policy_name, policy)
        if run_id is not None and found.errors:
            raise found.errors[0]
        if found.judged:
            with next_state(warehouse) as path:
                _write(path, policy_name, policy, found)
    return JudgeReport(
        policy=policy_name,
        policy_fingerprint=policy.fingerprint(),
        judged=tuple(found.judged),
        known=tuple(c.run_id for c in candidates if c.known),
        declared=tuple(c.run_id for c in candidates if c.declared),
        problems=(*loaded.problems, *map(str, found.errors)),
    )


def _candidates(warehouse: Path, policy_name: str, policy: Policy) -> list[_Candidate]:
    with read_only(warehouse) as connection:
        rows = connection.execute(
            _CANDIDATES, {"policy": policy_name, "fingerprint": policy.fingerprint()}
        ).fetchall()
    return [_Candidate(*row) for row in rows]


def _chosen(candidates: list[_Candidate], run_id: str) -> _Candidate:
    """The candidate of that name, if it can be judged at all."""
    chosen: _Candidate = choose({c.run_id: c for c in candidates}, run_id, "--run")
    if chosen.baseline_run_id is None:
        raise ConfigError(
            "it is a baseline: there is nothing to hold it against",
            where=f"run {run_id}",
            hint="Name a candidate's run; `quantgate status` lists them.",
        )
    if not chosen.has_quality:
        raise ConfigError(
            "no quality was measured", where=f"run {run_id}", hint="Name a run that measured a suite."
        )
    return chosen


def _judge(store: BundleStore, candidates: list[_Candidate], policy_name: str, policy: Policy) -> _Found:
    """Judge each as if both runs had declared the policy.

    Two runs that declared different policies, and were not comparable for that alone, are comparable here. A task
    that stopped early under its own policy is not decided under one that would have stopped it elsewhere.
    """

    def declare(manifest: Manifest) -> Manifest:
        return manifest.model_copy(update={"policy_name": policy_name, "policy": policy})

    found = _Found()
    pairs = [(c.run_id, c.baseline_run_id) for c in candidates if c.baseline_run_id is not None]
    for judged in judge_stored(store, pairs, declare):
        if judged.manifest is None:
            error = judged.error
            assert error is not None
            found.errors.append(type(error)(error.what, where=_where(judged.run_id, error), hint=error.hint))
            continue
        found.verdicts += verdict_rows(judged.manifest, judged.baseline_run_id, judged.verdicts)
        found.task_verdicts += task_verdict_rows(judged.manifest, judged.baseline_run_id, judged.verdicts)
        found.judged.append(judged.run_id)
    return found


def _where(run_id: str, error: QuantgateError) -> str:
    return f"run {run_id}, {error.where}" if error.where else f"run {run_id}"


def _write(path: Path, policy_name: str, policy: Policy, found: _Found) -> None:
    connection = duckdb.connect(str(path))
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("BEGIN")
        add_policy(connection, policy_name, policy)
        insert_rows(connection, "post_hoc_verdicts", found.verdicts)
        insert_rows(connection, "post_hoc_task_verdicts", found.task_verdicts)
        connection.execute("COMMIT")
        connection.execute("CHECKPOINT")
    finally:
        connection.close()
