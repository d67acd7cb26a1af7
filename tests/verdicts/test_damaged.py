"""Recorded answers of damaged checkpoints (tests/fixtures/verdicts), judged by the shipped judge: none passes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from demo.damage import BROKEN_TEMPLATES, CHAT
from quantgate.judge.judge import judge
from quantgate.model.enums import Outcome, Verdict
from quantgate.model.home import ROOT
from tests.verdicts import scores
from tests.verdicts.claims import (
    BASELINE,
    LOOSE,
    OF_WEIGHTS,
    check_that_it_grows,
    check_that_it_is_damage,
    check_that_it_is_not_validated,
    judged,
)
from tests.verdicts.looks import LOOKS, followed
from tests.verdicts.page import damaged_table

Runs = dict[str, pa.Table]


@pytest.fixture(scope="module")
def runs() -> dict[str, pa.Table]:
    """Of the demo's three tasks."""
    return scores.read("damaged")


@pytest.fixture(scope="module")
def chats() -> dict[str, pa.Table]:
    """Of the chat task."""
    return scores.read("chat")


def test_the_recordings_are_whole(runs: Runs, chats: Runs) -> None:
    assert runs.keys() == {BASELINE, *OF_WEIGHTS}
    assert chats.keys() == {CHAT, *BROKEN_TEMPLATES}
    assert {len(samples) for samples in runs.values()} == {3000}
    assert {len(samples) for samples in chats.values()} == {1000}


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_a_damaged_checkpoint_is_never_validated(runs: Runs, name: str) -> None:
    baseline, candidate = runs[BASELINE], runs[name]
    check_that_it_is_damage(baseline, candidate, name)
    full = scores.deltas(baseline, candidate)
    verdicts = judged(baseline, candidate)
    for task in verdicts["all"].tasks:
        assert task.quality_delta == pytest.approx(full[task.task])
    check_that_it_is_not_validated({use: one.verdict for use, one in verdicts.items()}, full, name)


def test_delta_grows_with_strength(runs: Runs) -> None:
    check_that_it_grows(runs)


@pytest.mark.parametrize("documents", [200, 500])
@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_nor_by_fewer_documents(runs: Runs, name: str, documents: int) -> None:
    """Wherever somebody stops, and however few documents the policy asks for, as long as it takes them blindly."""
    worst = min(full := scores.deltas(runs[BASELINE], runs[name]), key=full.__getitem__)
    baseline, candidate = (of_task(runs[run], worst) for run in (BASELINE, name))
    validated = 0
    for part in blocks(documents):
        both = (take(samples, part) for samples in (baseline, candidate))
        validated += judge(*both, "loose", LOOSE, scores.tasks_of(baseline))[0].verdict is Verdict.VALIDATED
    assert validated == 0


@pytest.mark.parametrize("name", OF_WEIGHTS)
def test_nor_on_its_way(runs: Runs, name: str) -> None:
    """Judged after each batch, the task that lost most never passes; it fails, or is undecided at the end."""
    worst = min(full := scores.deltas(runs[BASELINE], runs[name]), key=full.__getitem__)
    task = next(task for task in scores.tasks_of(runs[name]) if task.task == worst)
    policy = LOOSE.model_copy(update={"looks": LOOKS})
    end = followed(runs[BASELINE], runs[name], task, policy, required=3)
    assert end.outcome == Outcome.FAIL or (end.outcome, end.pairs) == (Outcome.UNDECIDED, 1000)


@pytest.mark.parametrize("name", BROKEN_TEMPLATES)
def test_a_broken_chat_template_changes_the_prompts(chats: Runs, name: str) -> None:
    baseline, candidate = chats[CHAT], chats[name]
    check_that_it_is_damage(baseline, candidate, name)
    for verdict in judged(baseline, candidate).values():
        if verdict.use in {"all", "conversation"}:
            assert verdict.verdict is Verdict.NOT_COMPARABLE
            assert verdict.reason == "task qg_demo_chat: the prompt differs on 1000 of 1000 documents"


@pytest.mark.parametrize("name", BROKEN_TEMPLATES)
def test_and_is_not_validated_by_its_answers_either(chats: Runs, name: str) -> None:
    """Where an engine applies the template, all that can be seen are the answers."""
    baseline, candidate = chats[CHAT], chats[name]
    column = candidate.column_names.index("prompt_hash")
    unseen = candidate.set_column(column, PROMPT_HASH, hashes_of(baseline, candidate))
    verdicts = judged(baseline, unseen)
    assert verdicts["all"].quality_delta == pytest.approx(scores.deltas(baseline, candidate)["qg_demo_chat"])
    assert verdicts["all"].verdict is not Verdict.VALIDATED


PROMPT_HASH = pa.field("prompt_hash", pa.string(), nullable=False)


def hashes_of(baseline: pa.Table, candidate: pa.Table) -> pa.Array:
    known = dict(zip(baseline["doc_id"].to_pylist(), baseline["prompt_hash"].to_pylist(), strict=True))
    return pa.array([known[doc_id] for doc_id in candidate["doc_id"].to_pylist()])


def of_task(samples: pa.Table, task: str) -> pa.Table:
    return samples.filter(pc.equal(samples["task"], task)).sort_by("position")


def take(samples: pa.Table, part: np.ndarray) -> pa.Table:
    return samples.take(pa.array(part))


def blocks(documents: int) -> list[np.ndarray]:
    """Disjoint parts of the thousand documents, in the order in which they are asked."""
    return np.split(np.arange(1000), 1000 // documents)


def test_the_page_shows_what_was_recorded() -> None:
    shown = (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8")
    assert "\n".join(["<!-- what it catches: damaged -->", *damaged_table(), ""]) in shown
