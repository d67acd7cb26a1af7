"""What earlier runs of its candidates' questions ask of a validation, looked at before anything is measured.

What could decide nothing is refused before it costs anything, and a baseline goes on with the answers
that its candidates' chains were judged against.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from flows import looks
from flows.continuing import (
    Pursuit,
    Scores,
    judged_against,
    other_setting,
    pursue,
    refuse_elsewhere,
    scores,
)
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.home import Home
from quantgate.model.records import Manifest, RunPlan
from quantgate.model.tables import SAMPLES_FILE
from tasks import bundle, shared_parts
from tasks.staging import Staging, same_engine, staged
from warehouse.bundles import BundleStore
from warehouse.rows import verdict_key


class _Needed(NamedTuple):
    """What a candidate's run needs of its baseline to go on from an earlier one."""

    plan: RunPlan
    pursuit: Pursuit
    against: Manifest
    """The baseline's run that the earlier one was judged against."""
    scores: Scores


def look_ahead(plans: Sequence[RunPlan], home: Home, *, fresh: bool) -> frozenset[str]:
    """Refuse what could decide nothing, and tell from which bundles the baseline must not take its answers.

    Args:
        plans: the baseline's first; which of its runs the candidates name is of no account.
        home: whose bundles and staging.
        fresh: whether everything is measured anew.

    Returns:
        Bundles of the baseline with other answers than those that the candidates' chains were judged against.

    Raises:
        ConfigError: a candidate's question is on its way where this run can't go on with it, or ``--full`` comes
            after looks at it.
    """
    baseline, *candidates = plans
    for plan in candidates:
        _refuse_full(plan, home)
    if fresh or baseline.suite is None or not baseline.policy.looks:
        return frozenset()
    every, store = list(bundle.manifests(home.bundles)), BundleStore(home.bundles)
    needed = [found for plan in candidates if (found := _needed(plan, every, store))]
    if not needed:
        return frozenset()
    there = _held(baseline, every, store)
    kept = there
    for one in sorted(needed, key=lambda one: not one.pursuit.is_open):
        if there and not _same_kernels(there[-1][0], one.against):
            continue  # its engine chooses other kernels by now, and its answers would not join those
        agreeing = [held for held in kept if _agrees(baseline, one, *held)]
        if _covers(baseline, one, [manifest for manifest, _ in agreeing]):
            kept = agreeing
        elif one.pursuit.is_open:
            raise _unlike(baseline, one)
    return frozenset(one.run_id for one, _ in there) - {one.run_id for one, _ in kept}


def is_passed_over(plan: RunPlan, known: Manifest, place: str) -> bool:
    """Whether a run that was measured already is a check beside the chain that decides, which can go on.

    Args:
        plan: a run's.
        known: the bundle with its fingerprint.
        place: folder or fsspec URL of the bundles.
    """
    if plan.baseline is None or known.baseline is None or not plan.policy.looks:
        return False
    every, store = list(bundle.manifests(place)), BundleStore(place)
    if not _is_beside(known, every):
        return False
    try:
        found = pursue(plan, every, store)
        if found is None or not found.is_open or found.elsewhere:
            return False
        tip = found.chain.tip
        if known in found.chain.runs or verdict_key(known) != verdict_key(tip):
            return False
        assert tip.baseline is not None
        return _same_kernels(
            *(store.read_manifest(one.baseline.run_id) for one in (known, tip) if one.baseline)
        )
    except RunError:
        return False


def _is_beside(known: Manifest, every: Sequence[Manifest]) -> bool:
    """Whether a run continues none, though there were earlier ones of its question."""
    key = verdict_key(known)
    return known.continues is None and any(
        one.started_at < known.started_at and verdict_key(one) == key for one in every
    )


def _needed(plan: RunPlan, every: Sequence[Manifest], store: BundleStore) -> _Needed | None:
    """What a candidate's run needs to go on, or to measure another load; None where it needs nothing."""
    fingerprint = plan.inputs.fingerprint()
    known = next((one for one in reversed(every) if one.fingerprint == fingerprint), None)
    if known and not _is_beside(known, every):
        return None
    try:
        found = pursue(plan, every, store)
        if found is None or found.answered or (known and not found.is_open):
            return None
        if found.elsewhere:
            if known is None:
                refuse_elsewhere(plan, found)
            return None
        tip = found.chain.tip
        assert tip.baseline is not None
        return _Needed(plan, found, store.read_manifest(tip.baseline.run_id), judged_against(store, tip))
    except RunError:
        return None  # it is told when the candidate's turn comes


def _held(
    baseline: RunPlan, every: Sequence[Manifest], store: BundleStore
) -> list[tuple[Manifest, pa.Table]]:
    """The bundles that a baseline may take answers from, with their samples."""
    found = []
    for one in every:
        if shared_parts.is_of_the_same(baseline, one):
            try:
                found.append((one, store.read_table(one, SAMPLES_FILE)))
            except RunError:
                continue  # nothing is taken from it, which is told then
    return found


def _same_kernels(one: Manifest, other: Manifest) -> bool:
    starts = [*one.engine_starts[:1], *other.engine_starts[:1]]
    return all(same_engine(starts[0], start) for start in starts)


def _tasks(baseline: RunPlan, needed: _Needed, manifest: Manifest) -> set[str]:
    """Tasks of a chain that a bundle of the baseline holds too."""
    assert baseline.suite is not None
    held = {task.task for task in baseline.suite.tasks if shared_parts.held(baseline, task, manifest)}
    return held.intersection(needed.scores)


def _agrees(baseline: RunPlan, needed: _Needed, manifest: Manifest, samples: pa.Table) -> bool:
    """Whether a bundle of the baseline holds, of its tasks, the answers that a chain was judged against."""
    found = scores(needed.pursuit.chain.tip, samples)
    return all(found[task] == needed.scores[task] for task in _tasks(baseline, needed, manifest))


def _covers(baseline: RunPlan, needed: _Needed, manifests: Sequence[Manifest]) -> bool:
    """Whether bundles hold every task of a chain."""
    held = [_tasks(baseline, needed, manifest) for manifest in manifests]
    return set().union(*held) >= needed.scores.keys()


def _unlike(baseline: RunPlan, needed: _Needed) -> ConfigError:
    """Why a chain can't go on with the baseline of this validation."""
    run_id, name = needed.pursuit.chain.tip.run_id, needed.plan.checkpoint.name
    if not shared_parts.is_of_the_same(baseline, needed.against):
        return ConfigError(
            f"run {run_id} is INCONCLUSIVE and was judged against the baseline of run {needed.against.run_id}; answers "
            f"from here can't join its, since their {other_setting(baseline, needed.against)} differs, and a run of "
            "its own would decide nothing",
            where=name,
            mend="Measure the baseline as it was then, or this with --fresh, to see whether anything drifts.",
        )
    return ConfigError(
        f"run {run_id}, which it would go on from, was judged against other answers of the baseline than another "
        "candidate's",
        where=name,
        mend="Validate them one by one.",
    )


def _refuse_full(plan: RunPlan, home: Home) -> None:
    """All of alpha at the end is for who has seen nothing.

    Raises:
        ConfigError: a run of the question was judged on its way and stopped before its end.
    """
    if not looks.is_full(plan) or plan.suite is None:
        return
    asked, names = looks.question_id(plan), [task.task for task in plan.suite.tasks]
    for staging, state in staged(home):
        seen = state.get("question") == asked and looks.were_seen(staging, names)
        if seen and not _began_before(plan, staging, home):
            limit = f" and with --limit {state['limit']}" if state.get("limit") else ""
            raise ConfigError(
                f"run {staging.run_id} of the same question was stopped after looks at its answers, so that --full, "
                "with all of alpha at its end, would be a second try",
                where=plan.checkpoint.name,
                mend=f"Without --full{limit} the same command goes on with that run.",
            )


def _began_before(plan: RunPlan, staging: Staging, home: Home) -> bool:
    """Whether a run on its way is a drift check, whose looks decide nothing: a chain of its question began before."""
    try:
        found = pursue(plan, list(bundle.manifests(home.bundles)), BundleStore(home.bundles))
    except RunError:
        return False
    return found is not None and found.chain.runs[0].started_at < staging.started_at
