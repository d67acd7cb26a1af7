"""What earlier runs of its candidates' questions ask of a validation, looked at before anything is measured.

What could decide nothing is refused before it costs anything, a baseline goes on with the answers that its
candidates' chains were judged against, and where no candidate asks for anything it isn't asked either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from quantgate.bundles import batches
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.schema import SAMPLES_FILE
from quantgate.bundles.staging import same_engine, staged
from quantgate.bundles.store import BundleStore
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.home import Home
from quantgate.model.records import RunPlan
from tasks.resume import interim_looks, shared_parts
from tasks.resume.continuation import (
    Pursuit,
    Scores,
    documents_of,
    judged_against,
    other_setting,
    pursue,
    refuse_elsewhere,
    scores,
)
from warehouse.rows import question, verdict_key


class Ahead(NamedTuple):
    """What is known of a validation before anything is measured."""

    refused: Mapping[str, ConfigError]
    """Why a candidate is not measured, by its run's fingerprint."""
    without: frozenset[str] = frozenset()
    """Bundles of the baseline with other answers than those that the candidates' chains were judged against."""
    baseline: Manifest | None = None
    """The baseline's run to hand back, where no candidate has anything to measure."""


class _Needed(NamedTuple):
    """What a candidate's run needs of its baseline to go on from an earlier one."""

    plan: RunPlan
    pursuit: Pursuit
    against: Manifest
    """The baseline's run that the earlier one was judged against."""
    scores: Scores


def look_ahead(plans: Sequence[RunPlan], home: Home, *, fresh: bool) -> Ahead:
    """Refuse what could decide nothing, and tell which answers the baseline's run must have.

    Args:
        plans: the baseline's first; which of its runs the candidates name is of no account.
        home: whose bundles and staging.
        fresh: whether everything is measured anew.

    Returns:
        What to measure, what not and why. A candidate is refused where its question is on its way and this run
        can't go on with it, or where an unfinished run of it was looked at and this one would begin anew.

    Raises:
        ConfigError: every candidate is refused; says why the first one is.
    """
    baseline, *candidates = {plan.inputs.fingerprint(): plan for plan in plans}.values()
    refused: dict[str, ConfigError] = {}
    if baseline.suite is None or not baseline.policy.looks:
        return Ahead(refused)
    every, store = BundleStore(home.bundles).manifests(), BundleStore(home.bundles)
    needed, idle = [], []
    for plan in candidates:
        try:
            _refuse_second_try(plan, home, every, fresh=fresh)
            found = None if fresh else _needed(plan, every, store)
        except ConfigError as error:
            refused[plan.inputs.fingerprint()] = error
            continue
        if isinstance(found, _Needed):
            needed.append(found)
        elif isinstance(found, Manifest):
            idle.append(found)
    without, unlike = _left_out(baseline, needed, every, store)
    refused |= unlike
    if candidates and len(refused) == len(candidates):
        raise next(iter(refused.values()))
    nothing_to_do = len(idle) + len(refused) == len(candidates)
    return Ahead(refused, without, _enough(baseline, idle, every) if nothing_to_do else None)


def _enough(baseline: RunPlan, candidates: Sequence[Manifest], every: Sequence[Manifest]) -> Manifest | None:
    """The largest baseline's run that candidates were judged against, where none has just the documents of this one."""
    if any(one.fingerprint == baseline.inputs.fingerprint() for one in every):
        return None
    names = {one.baseline.run_id for one in candidates if one.baseline}
    alike = [one for one in every if one.run_id in names and shared_parts.is_of_the_same(baseline, one)]
    with_its_load = [one for one in alike if one.inputs.workload == baseline.inputs.workload]
    return max(with_its_load, key=documents_of, default=None)


def _left_out(
    baseline: RunPlan, needed: Sequence[_Needed], every: Sequence[Manifest], store: BundleStore
) -> tuple[frozenset[str], dict[str, ConfigError]]:
    """Bundles that the baseline must not take its answers from, and candidates whose chains can't go on with it."""
    if not needed:
        return frozenset(), {}
    refused: dict[str, ConfigError] = {}
    there = _held(baseline, every, store)
    kept = there
    for one in sorted(needed, key=lambda one: not one.pursuit.is_open):
        if there and not _same_kernels(there[-1][0], one.against):
            continue  # its engine chooses other kernels by now, and its answers would not join those
        agreeing = [held for held in kept if _agrees(baseline, one, *held)]
        if _covers(baseline, one, [manifest for manifest, _ in agreeing]):
            kept = agreeing
        elif one.pursuit.is_open:
            refused[one.plan.inputs.fingerprint()] = _unlike(baseline, one)
    return frozenset(one.run_id for one, _ in there) - {one.run_id for one, _ in kept}, refused


def is_passed_over(plan: RunPlan, known: Manifest, place: str) -> bool:
    """Whether a run that was measured already is a check beside the chain that decides, which can go on.

    Args:
        plan: a run's.
        known: the bundle with its fingerprint.
        place: folder or fsspec URL of the bundles.
    """
    if plan.baseline is None or known.baseline is None or not plan.policy.looks:
        return False
    every, store = BundleStore(place).manifests(), BundleStore(place)
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


def _needed(plan: RunPlan, every: Sequence[Manifest], store: BundleStore) -> _Needed | Manifest | None:
    """What a candidate's run needs to go on, or to measure another load; the run that will be handed back for it.

    None where it is a run of its own.
    """
    fingerprint = plan.inputs.fingerprint()
    known = next((one for one in reversed(every) if one.fingerprint == fingerprint), None)
    if known and not _is_beside(known, every):
        return known
    try:
        found = pursue(plan, every, store)
        if found is None or found.answered or (known and not found.is_open):
            return known or (found.answered if found else None)
        if found.elsewhere:
            if known is None:
                refuse_elsewhere(plan, found)
            return known
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
            hint="Measure the baseline as it was then, or this with --fresh, to see whether anything drifts.",
        )
    return ConfigError(
        f"run {run_id}, which it would go on from, was judged against other answers of the baseline than another "
        "candidate's",
        where=name,
        hint="Validate them one by one.",
    )


def _refuse_second_try(plan: RunPlan, home: Home, every: Sequence[Manifest], *, fresh: bool) -> None:
    """Who has seen looks at a question goes on with that run, since another one would have an alpha of its own.

    Raises:
        ConfigError: an unfinished run of the question was judged on its way, and this one would not go on with it.
    """
    assert plan.suite is not None
    asked, names = interim_looks.question_id(plan), [task.task for task in plan.suite.tasks]
    own = plan.inputs.fingerprint()
    for staging, state in staged(home):
        if staging.path.name == own and not fresh:
            continue
        if state.get("question") != asked or not interim_looks.were_seen(staging, names):
            continue
        if not batches.continues(staging) and _has_begun(plan, every):
            continue  # a check of a question that another run decides
        raise ConfigError(
            f"run {staging.run_id} of the same question is unfinished and was looked at on its way; to begin anew "
            "would be a second try",
            where=plan.checkpoint.name,
            hint=f"Finish it first: the same command{_way_on(plan, state, fresh=fresh)} goes on with it.",
        )


def _has_begun(plan: RunPlan, every: Sequence[Manifest]) -> bool:
    """Whether a finished run has asked the question of a plan."""
    asked = question(plan)
    return any(question(one) == asked for one in every)


def _way_on(plan: RunPlan, state: dict[str, Any], *, fresh: bool) -> str:
    """In what the command that goes on with a run differs from that of a plan."""
    assert plan.suite is not None
    ways = ["without --full"] * interim_looks.is_full(plan) + ["without --fresh"] * fresh
    limit, workload = state.get("limit"), state.get("workload")
    if limit != plan.suite.limit:
        ways.append(f"with --limit {limit}" if limit else "without --limit")
    if workload and (plan.workload is None or workload != plan.workload.name):
        ways.append(f"with --workload {workload}")
    return "".join(f" {way}" for way in [" and ".join(ways)] if way)
