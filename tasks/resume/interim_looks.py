"""Judge a candidate at interim looks: which documents a task is asked next, and when it has been asked enough."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import pyarrow as pa

from quantgate.bundles import batches
from quantgate.bundles.manifest import TaskResult
from quantgate.bundles.schema import SAMPLES_FILE, TEXT_COLUMNS
from quantgate.bundles.staging import Staging
from quantgate.bundles.store import BundleStore
from quantgate.judge.interim import look_sizes
from quantgate.judge.judge import judge_interim
from quantgate.judge.pairing import shares_clusters
from quantgate.model.config.suites import SuiteTask
from quantgate.model.enums import Outcome
from quantgate.model.errors import ConfigError
from quantgate.model.records import RunPlan, TaskVerdict
from quantgate.model.words import counted
from tasks.progress import Reporter


class Asked(NamedTuple):
    """Documents of a task by their positions in its order: from ``start`` to before ``end``, or to the last."""

    start: int
    end: int | None


class Baseline(NamedTuple):
    """The baseline that a candidate is compared with between batches."""

    samples: pa.Table
    """Without texts."""
    available: dict[str, int]
    """Documents that each task has."""


@lru_cache(maxsize=1)
def baseline_of(bundles_url: str, run_id: str) -> Baseline:
    """Read the baseline's answers from its bundle, checked as the loader checks them; read once for its candidates.

    Args:
        bundles_url: folder or fsspec URL of the bundles.
        run_id: the baseline's.

    Raises:
        RunError: the bundle is damaged or gone.
    """
    store = BundleStore(bundles_url)
    manifest = store.read_manifest(run_id)
    samples = store.read_table(manifest, SAMPLES_FILE).drop_columns([*TEXT_COLUMNS])
    return Baseline(
        samples, {task.task: task.documents_available or task.documents for task in manifest.tasks}
    )


def has_interim_looks(plan: RunPlan) -> bool:
    """Return True if a run is a candidate's and its policy has interim looks, ``--full`` or not."""
    return plan.baseline is not None and bool(plan.policy.looks)


def is_full(plan: RunPlan) -> bool:
    """Return True if a candidate answers everything and is judged once, at the end."""
    return bool(plan.inputs.suite and plan.inputs.suite.get("full"))


def next_documents(
    plan: RunPlan, task: SuiteTask, staging: Staging, bundles_url: str, report: Reporter | None = None
) -> Asked | None:
    """Return the documents that a task is asked next; None where it has been asked enough.

    A baseline, and a candidate under a policy without interim looks, answers all at once. A candidate under one with
    them stops where the judge passes or fails the task, or finds that no loss could show on it (the baseline's answers
    are complete, so more of the candidate's change nothing), and otherwise goes on to the next look. Tasks whose
    documents share clusters are judged at their end alone, so nothing interrupts them.

    Args:
        plan: the run.
        task: of its suite.
        staging: its finished batches.
        bundles_url: folder or fsspec URL of the bundles, the baseline's among them.
        report: gets a line about what the judge said, unless None.

    Raises:
        ConfigError: what was answered so far are the first documents of another order.
        RunError: the baseline's bundle is damaged or gone.
    """
    done, limit = batches.finished(staging, task.task), plan.suite.limit
    answered = sum(batch.documents for batch in done)
    if done and _is_all(done[-1], answered, limit):
        return None
    if not has_interim_looks(plan):
        _check_order(plan, task, done)
        return Asked(answered, limit)
    assert plan.baseline is not None
    baseline = baseline_of(bundles_url, plan.baseline.run_id)
    # Under --full nothing is stopped, but what an earlier run has decided is not drawn again.
    if done and (done[0].looks or not is_full(plan)):
        verdict = judged(plan, task, staging, baseline)
        if report:
            _report(report, plan, verdict)
        if verdict.outcome is not Outcome.UNDECIDED or not verdict.pairs:
            return None
    available = done[-1].documents_available if done else baseline.available.get(task.task)
    _check_order(plan, task, done)
    at_the_end = is_full(plan) or shares_clusters(baseline.samples, task.task, available)
    shares = () if at_the_end else plan.policy.looks
    looks = look_sizes(available or 0, shares, plan.policy.families[task.family].min_documents)
    following = [size for size in (*looks, limit) if size and size > answered]
    return Asked(answered, min(following, default=None))


def _check_order(plan: RunPlan, task: SuiteTask, done: list[TaskResult]) -> None:
    """Refuse to go on from answers to other documents than the first of today's order.

    Earlier versions recorded no content and asked in an order by the task's name; a hub's data may have changed.

    Raises:
        ConfigError: the answers so far can't be gone on from.
    """
    planned = {content.task: content.content_sha256 for content in plan.contents}.get(task.task)
    contents = {batch.content_sha256 for batch in done} | ({planned} if planned and done else set())
    if None in contents or len(contents) > 1:
        why = "in the order of an earlier version" if None in contents else "before its documents changed"
        raise ConfigError(
            f"{task.task}: {counted(done[-1].documents, 'document')} answered {why}, which others can't join",
            where=plan.checkpoint.name,
            hint="Measure it anew with --fresh.",
        )


def _is_all(last: TaskResult, answered: int, limit: int | None) -> bool:
    """Return True if there is nothing more to ask, in the task or up to the limit."""
    available = answered if last.documents_available is None else last.documents_available
    return answered >= available or (limit is not None and answered >= limit)


def judged(plan: RunPlan, task: SuiteTask, staging: Staging, baseline: Baseline) -> TaskVerdict:
    """Judge a task after its finished batches."""
    samples = batches.samples_so_far(staging, task.task)
    result = batches.together(batches.finished(staging, task.task), samples, judged=True)
    policy = plan.policy.at_question(plan.question)
    return judge_interim(baseline.samples, samples, result, policy, len(plan.suite.tasks))


def _report(report: Reporter, plan: RunPlan, verdict: TaskVerdict) -> None:
    """Report where a task stands, in one line."""
    points = f"{100 * verdict.margin:.4g} point{'' if verdict.margin == 0.01 else 's'}"
    words = {
        Outcome.PASS: f"validated within {points}, stopped",
        Outcome.FAIL: f"worse than the margin of {points}, stopped",
        Outcome.INSENSITIVE: f"stopped, more documents would change nothing: {verdict.reason}",
    }.get(verdict.outcome, "undecided, going on")
    share = f"{verdict.pairs:,} of {verdict.documents_available or 0:,} documents: {words}"
    if not verdict.pairs:
        share = f"stopped, it can't be compared: {verdict.reason}"
    report.line(f"{plan.checkpoint.name}: {verdict.task}: {share}")
