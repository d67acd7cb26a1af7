"""Look up what was asked about a claim before, and say what another question can change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

from quantgate.bundles.claims import subject_of
from quantgate.bundles.history import RunHistory
from quantgate.bundles.identity import baseline_weights, comparison_id
from quantgate.bundles.order import declared_order
from quantgate.bundles.store import BundleStore, Declared
from quantgate.model.config.policy import Policy
from quantgate.model.config.suites import Suite
from quantgate.model.errors import ConfigError
from quantgate.model.records import Checkpoint, RunPlan, TaskContent
from quantgate.model.yaml_file import fingerprint_of
from tasks.checkpoint.contents import share_alike
from tasks.quality.sources import known_families

NEARLY_EQUAL = 0.9
"""Share of sampled bytes that are the same in weights that count as one candidate's, against one baseline."""
COPIED = 0.99
"""The same, whatever the baseline: two training steps of one model differ in more, and each has its own candidate."""
KNOWN = 0.1
"""Share of a task's documents that must have been asked before for its family to be known."""
OVERLAP = 0.01
"""Share of a task's documents that must have been asked before to be worth a line."""


class KnownWeights(NamedTuple):
    """A candidate's weights that were declared."""

    sha256: str
    sample: str | None
    threshold: float
    """Share of the sample from which other weights are nearly equal to these."""


def with_related_weights(checkpoints: Sequence[Checkpoint], declared: Iterable[Declared]) -> list[Checkpoint]:
    """Return the checkpoints, each candidate with the first declared one that its weights are nearly equal to.

    Args:
        checkpoints: identified, the baseline's first.
        declared: questions, the first declared first.
    """
    baseline, *candidates = checkpoints
    reference = baseline.weights_sha256 or baseline.revision
    known = [
        KnownWeights(
            item.question.weights,
            item.question.weights_sample,
            NEARLY_EQUAL if item.question.baseline_weights == reference else COPIED,
        )
        for item in declared
    ]
    related = [baseline]
    for candidate in candidates:
        first = _nearly_equal(candidate, known)
        related.append(candidate.model_copy(update={"related_weights": first}))
        own = first or candidate.weights_sha256 or candidate.revision
        known.append(KnownWeights(own, candidate.weights_sample, NEARLY_EQUAL))
    return related


def _nearly_equal(checkpoint: Checkpoint, known: Iterable[KnownWeights]) -> str | None:
    """Return the first known weights that a checkpoint is nearly equal to; None where they are its own."""
    for weights in known:
        if weights.sha256 == checkpoint.weights_sha256:
            return None
        if share_alike(weights.sample or "", checkpoint.weights_sample or "") >= weights.threshold:
            return weights.sha256
    return None


def check_families(
    suite: Suite,
    policy: Policy,
    contents: Iterable[TaskContent],
    declared: Iterable[Declared],
    store: BundleStore,
) -> None:
    """Refuse a task whose documents were asked before under a family with a smaller margin.

    Args:
        suite: what is to be asked; a family that a suite of configs/suites gives a task is right.
        policy: its margins.
        contents: of the suite's tasks, as far as they are known.
        declared: every question that the store knows.
        store: where their documents lie.

    Raises:
        ConfigError: there is such a task.
        RunError: the store can't be read.
    """
    margins = {family: rule.margin for family, rule in policy.families.items()}
    earlier = {
        (task.content.content_sha256, task.family): (item, task)
        for item in declared
        for task in item.question.tasks
        if task.content and task.family in margins
    }
    families = {task.task: task.family for task in suite.tasks if task.family not in known_families(task)}
    for content in contents:
        family = families.get(content.task)
        for (sha256, other), (item, task) in earlier.items():
            if family is None or margins[other] >= margins[family]:
                continue
            if sha256 == content.content_sha256 or _shares_documents(content, item, task.task, store):
                raise ConfigError(
                    f"its documents were asked in run {item.question.run_id} as family '{other}' "
                    f"(margin {margins[other]:g}); '{family}' would allow a loss of {margins[family]:g}",
                    where=f"task {content.task}",
                    hint=f"Give --family {other}, or the family in your suite.",
                )


class Asked(NamedTuple):
    """An earlier question about a claim."""

    run_id: str
    comparison: str
    baseline: str
    baseline_weights: str | None
    """What the baseline's weights are known by."""
    declared: Declared | None
    """None where its run was measured before runs declared what they ask."""


def earlier_questions(plan: RunPlan, history: RunHistory, declared: Sequence[Declared]) -> list[Asked]:
    """Return the questions that were asked about a plan's claim, on whatever kernels, the first declared first."""
    subject = subject_of(plan)
    key = fingerprint_of(subject)
    by_run = {item.question.run_id: item for item in declared if item.question.subject_key == key}
    asked = [
        (
            declared_order(run),
            Asked(
                run.run_id,
                comparison_id(run),
                run.baseline.name,
                baseline_weights(run),
                by_run.pop(run.run_id, None),
            ),
        )
        for run in history
        if run.baseline and run.tasks and subject_of(run) == subject
    ]
    killed = [
        (
            declared_order(item.question),
            Asked(
                run_id, item.question.comparison, item.question.baseline, item.question.baseline_weights, item
            ),
        )
        for run_id, item in by_run.items()
        if item.scored
    ]
    return [question for _, question in sorted(asked + killed, key=itemgetter(0))]


def _shares_documents(content: TaskContent, earlier: Declared, task: str, store: BundleStore) -> bool:
    """Return True if more than `KNOWN` of a task's documents were asked by a task of an earlier question."""
    own, asked = set(content.document_hashes), store.declared_documents(earlier).get(task, ())
    return len(own.intersection(asked)) > KNOWN * len(own)


def question_number(plan: RunPlan, earlier: Sequence[Asked], store: BundleStore) -> int:
    """Return a candidate's place among the questions about its claim: its own if it was asked before, else the next.

    A later question has 1, and so no part of the policy's reserve, unless each of its documents is a new one: whoever
    has seen answers could leave out the documents that were lost.

    Args:
        plan: the candidate's.
        earlier: the questions about its claim.
        store: holds the documents of earlier questions.

    Raises:
        RunError: the store can't be read.
    """
    own = comparison_id(plan)
    asked = [*dict.fromkeys([*(question.comparison for question in earlier), own])]
    number = asked.index(own) + 1
    if number == 1 or not plan.policy.reserve:
        return number
    before = set(asked[: number - 1])
    others = [question for question in earlier if question.comparison in before]
    return number if _asks_new_documents(plan, others, store) else 1


def _asks_new_documents(plan: RunPlan, others: Iterable[Asked], store: BundleStore) -> bool:
    """Return True if a plan's documents are known, and known to be in no other question."""
    own = {document for content in plan.contents for document in content.document_hashes}
    if len(plan.contents) < len(plan.suite.tasks):
        return False
    for other in others:
        tasks = store.declared_documents(other.declared) if other.declared else {}
        if other.declared is None or len(tasks) < len(other.declared.question.tasks):
            return False
        if not own.isdisjoint(document for hashes in tasks.values() for document in hashes):
            return False
    return True


def claim_lines(plan: RunPlan, earlier: Sequence[Asked], store: BundleStore) -> Iterator[str]:
    """Yield what a user should know before a candidate is asked another question about its claim.

    Args:
        plan: the candidate's.
        earlier: the questions about its claim (`earlier_questions`).
        store: where the documents of earlier questions lie.

    Raises:
        RunError: the store can't be read.
    """
    name, own = plan.checkpoint.name, comparison_id(plan)
    others = [asked for asked in earlier if asked.comparison != own]
    if not others:
        return
    first = earlier[0]
    if first.comparison != own:
        same = first.baseline_weights == baseline_weights(plan)
        how = (
            "with other documents or another policy"
            if same
            else f"against another baseline, {first.baseline}"
        )
        raises = (
            f"can raise it only at alpha {plan.policy.at_question(plan.question).alpha:.2g}, from the policy's reserve"
            if plan.question > 1 and plan.policy.reserve and same
            else "can't raise it"
        )
        yield (
            f"{name}: run {first.run_id} asked about it first, {how}: this question can lower the verdict that stands, "
            f"and {raises}"
        )
    yield from _overlaps(plan, others, store)


def _overlaps(plan: RunPlan, others: Sequence[Asked], store: BundleStore) -> Iterator[str]:
    """Yield for each task the earlier question that shares most of its documents."""
    asked = {
        (other.run_id, task): set(hashes)
        for other in others
        if other.declared is not None
        for task, hashes in store.declared_documents(other.declared).items()
    }
    for content in plan.contents:
        own = set(content.document_hashes)
        shares = {key: len(own & hashes) / len(own) for key, hashes in asked.items() if own}
        best = max(shares, key=lambda key: shares[key], default=None)
        if best is not None and shares[best] >= OVERLAP:
            yield (
                f"{plan.checkpoint.name}: {content.task}: {100 * shares[best]:.0f} % of its documents were asked "
                f"before, in task {best[1]} of run {best[0]}"
            )
