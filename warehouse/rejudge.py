"""Judge stored runs under another policy: the verdicts are marked post hoc and never replace the declared ones.

docs/decisions/0011-post-hoc-verdicts.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from quantgate.bundles.manifest import Manifest
from quantgate.bundles.store import BundleStore
from quantgate.model.config.policy import Policy
from quantgate.model.errors import ConfigError, QuantgateError
from quantgate.model.yaml_file import Strict, choose
from warehouse.configuration import CONFIGS, add_policy
from warehouse.database import transaction, writing
from warehouse.judge_runs import JudgedRows, judge_rows
from warehouse.load import load_bundles
from warehouse.query import read_only
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
        ) AS judged_before
    FROM store.runs c
    ORDER BY c.baseline_run_id, run_order(c.declared_order, c.started_at, c.run_id)
"""


class JudgeReport(Strict):
    """The result of judging stored runs under another policy."""

    policy: str
    policy_fingerprint: str
    judged: tuple[str, ...] = Field(description="Runs that got post-hoc verdicts now.")
    judged_before: tuple[str, ...] = Field(description="Runs that had post-hoc verdicts already.")
    declared: tuple[str, ...] = Field(description="Runs that declared this policy themselves.")
    problems: tuple[str, ...] = Field(description="One line for each run or bundle that was skipped.")


@dataclass(frozen=True)
class _Candidate:
    """A stored run, and what the warehouse has of it under the policy."""

    run_id: str
    baseline_run_id: str | None
    has_quality: bool
    declared: bool
    judged_before: bool


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

    New bundles are loaded first. Samples are read from the bundles, checked as in a load, and judged as the loader
    judges them. The next state replaces the warehouse as in a load: readers go on, and a kill leaves the old state
    or the new one. Runs judged under the same policy before keep their verdicts.

    Args:
        warehouse: the DuckDB file.
        bundles: folder or fsspec URL of the bundles.
        policy_name: the policy's name.
        policy: what to judge under; its fingerprint distinguishes it from others of its name.
        run_id: the candidate to judge; all of them if empty.
        configs: folder of the configuration, for the load.
        wait_s: how long to wait for another writer, seconds.

    Raises:
        ConfigError: ``run_id`` names no run, or one that can't be judged: a baseline, a run without quality, or
            tasks that the policy doesn't cover. Without ``run_id`` such a run is a line of ``problems``.
        RunError: a bundle is damaged or missing, or another writer is in progress.
    """
    loaded = load_bundles(warehouse, bundles, configs=configs, wait_s=wait_s)
    store = BundleStore(bundles)
    with exclusive(warehouse, wait_s):
        remove_leftovers(warehouse)
        candidates = _candidates(warehouse, policy_name, policy)
        if run_id is not None:
            candidates = [_chosen(candidates, run_id)]
        candidates = [c for c in candidates if c.baseline_run_id is not None and c.has_quality]
        new = [c for c in candidates if not c.declared and not c.judged_before]
        judged = _judge(store, new, policy_name, policy)
        errors = [_of_run(failed_id, error) for failed_id, error in judged.errors.items()]
        if run_id is not None and errors:
            raise errors[0]
        if judged.run_ids:
            with next_state(warehouse) as path:
                _write(path, policy_name, policy, judged)
    return JudgeReport(
        policy=policy_name,
        policy_fingerprint=policy.fingerprint(),
        judged=tuple(judged.run_ids),
        judged_before=tuple(c.run_id for c in candidates if c.judged_before),
        declared=tuple(c.run_id for c in candidates if c.declared),
        problems=(*loaded.problems, *map(str, errors)),
    )


def _candidates(warehouse: Path, policy_name: str, policy: Policy) -> list[_Candidate]:
    with read_only(warehouse) as connection:
        rows = connection.execute(
            _CANDIDATES, {"policy": policy_name, "fingerprint": policy.fingerprint()}
        ).fetchall()
    return [_Candidate(*row) for row in rows]


def _chosen(candidates: list[_Candidate], run_id: str) -> _Candidate:
    """Return the candidate of that run id; refuse one that can't be judged."""
    chosen: _Candidate = choose({c.run_id: c for c in candidates}, run_id, "--run")
    if chosen.baseline_run_id is None:
        raise ConfigError(
            "it is a baseline: there is nothing to compare it with",
            where=f"run {run_id}",
            hint="Name a candidate's run; `quantgate status` lists them.",
        )
    if not chosen.has_quality:
        raise ConfigError(
            "no quality was measured", where=f"run {run_id}", hint="Name a run that measured a suite."
        )
    return chosen


def _judge(store: BundleStore, candidates: list[_Candidate], policy_name: str, policy: Policy) -> JudgedRows:
    """Judge each candidate as if both runs had declared the policy.

    So runs whose only difference is the declared policy are comparable. A task that stopped early under its own
    policy is not decided under a policy that would have stopped it at another document.
    """

    def declare(manifest: Manifest) -> Manifest:
        return manifest.model_copy(update={"policy_name": policy_name, "policy": policy})

    pairs = [(c.run_id, c.baseline_run_id) for c in candidates if c.baseline_run_id is not None]
    return judge_rows(store, pairs, declare)


def _of_run(run_id: str, error: QuantgateError) -> QuantgateError:
    """Return the error with the run in front of where it is."""
    where = f"run {run_id}, {error.where}" if error.where else f"run {run_id}"
    return type(error)(error.what, where=where, hint=error.hint)


def _write(path: Path, policy_name: str, policy: Policy, judged: JudgedRows) -> None:
    with writing(path) as connection, transaction(connection):
        add_policy(connection, policy_name, policy)
        judged.insert(connection, "post_hoc_")
