"""Chains of runs that answer one question: what each has decided, use by use, and what it leaves to ask.

As the view ``verdicts`` has it, a use is decided by the chain that was declared first, and in it by the first run that
is VALIDATED or REJECTED for the use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from quantgate.bundles.history import RunHistory
from quantgate.bundles.manifest import Manifest, TaskResult
from quantgate.bundles.order import declared_order
from quantgate.bundles.schema import SAMPLES_FILE
from quantgate.bundles.store import BundleStore
from quantgate.judge.judge import judge_runs
from quantgate.model.enums import Outcome, Validity, Verdict
from quantgate.model.records import RunPlan, UseVerdict

DECIDED = frozenset({Verdict.VALIDATED, Verdict.REJECTED})

Scores = dict[str, set[tuple[object, ...]]]
"""Scores of a baseline, by task, each with the document that it belongs to."""


class Evidence:
    """Evidence from earlier runs: their manifests, and of some their samples and verdicts; each is judged once."""

    def __init__(self, history: RunHistory, store: BundleStore) -> None:
        """Remember where the runs lie.

        Args:
            history: the runs.
            store: where their bundles lie.
        """
        self.history, self.store = history, store
        self._verdicts: dict[str, list[UseVerdict]] = {}

    def samples(self, run: Manifest) -> pa.Table:
        """Read a run's samples.

        Raises:
            RunError: the bundle is damaged or gone.
        """
        return self.store.read_table(run, SAMPLES_FILE)

    def baseline_of(self, run: Manifest) -> Manifest:
        """Read the manifest of the baseline's run that a candidate's was judged against.

        Raises:
            RunError: the bundle is damaged or gone.
        """
        assert run.baseline is not None
        return self.store.read_manifest(run.baseline.run_id)

    def judged_against(self, run: Manifest) -> Scores:
        """Return the baseline's scores that a run was judged against, by task.

        Raises:
            RunError: the baseline's bundle is damaged or gone.
        """
        return scores(run, self.samples(self.baseline_of(run)))

    def verdicts(self, run: Manifest) -> list[UseVerdict]:
        """Return the verdicts of a run that say something of a use; none if it is quarantined or can't be judged.

        Raises:
            RunError: a bundle is damaged.
        """
        if run.run_id not in self._verdicts:
            self._verdicts[run.run_id] = self._judged(run)
        return self._verdicts[run.run_id]

    def _judged(self, run: Manifest) -> list[UseVerdict]:
        if run.baseline is None or run.validity is not Validity.VALID:
            return []
        if not self.store.is_bundle(run.baseline.run_id):
            return []
        baseline = self.baseline_of(run)
        verdicts = judge_runs(baseline, self.samples(baseline), run, self.samples(run))
        measured = {task.family for task in run.tasks}
        return [
            verdict
            for verdict in verdicts
            if verdict.verdict in {*DECIDED, Verdict.INCONCLUSIVE}
            and measured.issuperset(run.policy.uses[verdict.use])
        ]


def scores(run: Manifest, samples: pa.Table) -> Scores:
    """Return a baseline's scores of the documents that a run has answered, by task.

    Args:
        run: a candidate's.
        samples: the baseline's (``quantgate.bundles.schema.SAMPLES``).
    """
    answered = {task.task: task.documents for task in run.tasks}
    by_task: Scores = {task: set() for task in answered}
    columns = ["task", "doc_id", "doc_repeat", "score", "position"]
    for row in samples.select(columns).to_pylist():
        if row["position"] is not None and row["position"] < answered.get(row["task"], 0):
            by_task[row["task"]].add(tuple(row.values()))
    return by_task


class Standing(NamedTuple):
    """The verdict that a chain has for a use, and the run that gave it."""

    run_id: str
    verdict: UseVerdict


class Chain(NamedTuple):
    """A run and those that continue it, on whatever host, the first one first."""

    runs: tuple[Manifest, ...]
    tip: Manifest
    """The run that the next one goes on from: of those that continue most runs the first declared."""
    standing: Mapping[str, Standing]
    """By use; without those that an earlier chain has a verdict for, or that these tasks can't decide."""

    def is_open(self, plan: RunPlan) -> bool:
        """Return True if more of the documents that a run may answer could decide a use."""
        limits = {task.task: wanted(plan, task) for task in self.tip.tasks}
        undecided = {
            task.task
            for run_id, verdict in self.standing.values()
            if run_id == self.tip.run_id and verdict.verdict is Verdict.INCONCLUSIVE
            for task in verdict.tasks
            if task.outcome is Outcome.UNDECIDED
            # With more of the baseline's answers a loss may be able to show; with more of the candidate's alone, never.
            or (task.outcome is Outcome.INSENSITIVE and task.baseline_documents < limits[task.task])
        }
        return not undecided.isdisjoint(unanswered(plan, self.tip.tasks))


def deciding_chains(runs: Sequence[Manifest], evidence: Evidence) -> Iterator[Chain]:
    """Yield the chains that have a verdict for some use, the one that was declared first before the others.

    Args:
        runs: of one question, candidates all.
        evidence: their verdicts.

    Raises:
        RunError: a bundle is damaged. A run whose baseline's is gone says nothing.
    """
    decided: set[str] = set()
    for steps in _chains(runs):
        standing = {use: stand for use, stand in _standing(steps, evidence).items() if use not in decided}
        if standing:
            decided |= standing.keys()
            yield Chain(tuple(run for step in steps for run in step), steps[-1][0], standing)


def _chains(runs: Sequence[Manifest]) -> Iterator[list[list[Manifest]]]:
    """Yield each chain step by step: two hosts may have continued the same run."""
    ids = {run.run_id for run in runs}
    ordered = sorted(runs, key=declared_order)
    for root in ordered:
        if root.continues in ids:
            continue
        steps = [[root]]
        while following := [
            run for run in ordered if run.continues in {earlier.run_id for earlier in steps[-1]}
        ]:
            steps.append(following)
        yield steps


def _standing(steps: Sequence[Sequence[Manifest]], evidence: Evidence) -> dict[str, Standing]:
    """Return what stands for each use: the first decision, else what was said at the last step."""
    standing: dict[str, Standing] = {}
    for step in steps:
        said: set[str] = set()
        for run in step:
            for verdict in evidence.verdicts(run):
                known = standing.get(verdict.use)
                if known and known.verdict.verdict in DECIDED:
                    continue
                if verdict.verdict in DECIDED or verdict.use not in said:
                    standing[verdict.use] = Standing(run.run_id, verdict)
                    said.add(verdict.use)
    return standing


def wanted(plan: RunPlan, task: TaskResult) -> int:
    """Return how many documents of a task a run may answer."""
    available = task.documents_available or task.documents
    return available if plan.suite.limit is None else min(available, plan.suite.limit)


def unanswered(plan: RunPlan, tasks: Sequence[TaskResult]) -> list[str]:
    """Return the tasks that could be asked more documents."""
    return [task.task for task in tasks if task.documents < wanted(plan, task)]


def documents_of(run: Manifest) -> int:
    """Return how many documents a run has answered, of all its tasks."""
    return sum(task.documents for task in run.tasks)
