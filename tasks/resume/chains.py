"""Chains of runs that answer one question: what each has decided, use by use, and what it leaves to ask.

As the view ``verdicts`` has it, a use is decided by the chain that began first, and in it by the first run that is
VALIDATED or REJECTED for the use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from quantgate.bundles.manifest import Manifest, TaskResult
from quantgate.bundles.schema import SAMPLES_FILE
from quantgate.bundles.store import BundleStore
from quantgate.judge.judge import judge_runs
from quantgate.model.enums import Validity, Verdict
from quantgate.model.records import RunPlan, UseVerdict

DECIDED = frozenset({Verdict.VALIDATED, Verdict.REJECTED})


class Stand(NamedTuple):
    """The verdict that a chain has for a use, and the run that gave it."""

    run_id: str
    verdict: UseVerdict


class Chain(NamedTuple):
    """A run and those that continue it, the first one first."""

    runs: tuple[Manifest, ...]
    stands: Mapping[str, Stand]
    """By use; without those that an earlier chain has a verdict for, or that these tasks can't decide."""

    @property
    def tip(self) -> Manifest:
        """The run that the next one goes on from."""
        return self.runs[-1]

    def is_open(self, plan: RunPlan) -> bool:
        """Whether more of the documents that a run may answer could decide a use."""
        undecided = {
            task.task
            for run_id, verdict in self.stands.values()
            if run_id == self.tip.run_id and verdict.verdict is Verdict.INCONCLUSIVE
            for task in verdict.tasks
            if task.outcome == "undecided"
        }
        return not undecided.isdisjoint(unanswered(plan, self.tip.tasks))


def deciding(runs: Sequence[Manifest], store: BundleStore) -> Iterator[Chain]:
    """The chains that have a verdict for some use, the one that began first before the others.

    Args:
        runs: of one question, candidates all.
        store: where their bundles and their baselines' lie.

    Raises:
        RunError: a bundle is damaged. A run whose baseline's is gone says nothing.
    """
    taken: set[str] = set()
    for chain in _chains(runs):
        stands = {use: stand for use, stand in _stands(store, chain).items() if use not in taken}
        if stands:
            taken |= stands.keys()
            yield Chain(chain, stands)


def _chains(runs: Sequence[Manifest]) -> Iterator[tuple[Manifest, ...]]:
    ids = {one.run_id for one in runs}
    for root in sorted(runs, key=lambda one: (one.started_at, one.run_id)):
        if root.continues in ids:
            continue
        chain = [root]
        while following := [one for one in runs if one.continues == chain[-1].run_id]:
            chain.append(max(following, key=lambda one: (one.started_at, one.run_id)))
        yield tuple(chain)


def _stands(store: BundleStore, chain: Sequence[Manifest]) -> dict[str, Stand]:
    found: dict[str, Stand] = {}
    for run in chain:
        for verdict in _verdicts(store, run):
            if verdict.use not in found or found[verdict.use].verdict.verdict not in DECIDED:
                found[verdict.use] = Stand(run.run_id, verdict)
    return found


def _verdicts(store: BundleStore, run: Manifest) -> list[UseVerdict]:
    """The verdicts of a run that say something of a use; none where it is quarantined or can't be judged."""
    if run.baseline is None or run.validity is not Validity.VALID or not store.is_bundle(run.baseline.run_id):
        return []
    baseline = store.read_manifest(run.baseline.run_id)
    samples = [store.read_table(one, SAMPLES_FILE) for one in (baseline, run)]
    measured = {task.family for task in run.tasks}
    return [
        one
        for one in judge_runs(baseline, samples[0], run, samples[1])
        if one.verdict in {*DECIDED, Verdict.INCONCLUSIVE} and measured.issuperset(run.policy.uses[one.use])
    ]


def wanted(plan: RunPlan, task: TaskResult) -> int:
    """Documents of a task that a run may answer."""
    assert plan.suite is not None
    available = task.documents_available or task.documents
    return available if plan.suite.limit is None else min(available, plan.suite.limit)


def unanswered(plan: RunPlan, tasks: Sequence[TaskResult]) -> list[str]:
    """Tasks that could be asked more documents."""
    return [task.task for task in tasks if task.documents < wanted(plan, task)]
