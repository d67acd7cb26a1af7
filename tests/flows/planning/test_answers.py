"""How long answers are expected to be: measured lengths where there are any, else a share of the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from flows.planning.answers import RUNS_READ, earlier_answers, task_size
from flows.planning.estimate import RunSize
from flows.planning.measured import Reusable
from flows.planning.request import workload_of
from quantgate.bundles.store import BundleStore
from tasks.quality.requirements import DocumentRequests
from tests.support.demo_bundles import BUNDLES, manifests

GENERATED = DocumentRequests(scored=0, generated=1, limit_tokens=400)


def answers(tokens: Sequence[int | None], cut: int = 0) -> pa.Table:
    reasons = ["length"] * cut + ["stop"] * (len(tokens) - cut)
    return pa.table(
        {"output_tokens": pa.array(tokens, pa.int64()), "finish_reason": pa.array(reasons, pa.string())}
    )


@pytest.mark.parametrize(
    ("samples", "low", "high", "is_measured"),
    [
        ([], 100, 400, False),  # a quarter of the limit, and all of it
        ([answers([None, None])], 100, 400, False),
        ([answers([10] * 9 + [110])], 20, 20, True),  # mean 20; 0.9 of them are as long as 20 at most
        ([answers(list(range(0, 101, 10)))], 50, 90, True),
        ([answers(list(range(0, 101, 10))), answers([30] * 10)], 30, 90, True),
        ([answers([50] * 10, cut=2)], 50, 400, True),  # a shorter limit of then: nobody knows their end
        ([answers([800] * 10)], 400, 400, True),  # a longer limit of then
    ],
)
def test_both_ends(samples: list[pa.Table], low: int, high: int, is_measured: bool) -> None:
    size = task_size("t", 10, GENERATED, samples)
    assert (size.low_tokens, size.high_tokens, size.is_measured) == (low, high, is_measured)


def test_lengths_are_read_from_bundles_of_any_model() -> None:
    store = BundleStore(str(BUNDLES))
    tables = earlier_answers("qg_demo_chain", manifests(), store)
    assert [table.num_rows for table in tables] == [1000] * RUNS_READ
    size = task_size("qg_demo_chain", 1000, DocumentRequests(0, 1, 48), tables)
    assert (size.low_tokens, size.high_tokens) == (25, 27)
    assert size.words == "25 to 27 tokens (measured)"
    assert earlier_answers("qg_demo_cloze", manifests(), store) == [], "choices have no length"
    assert earlier_answers("another", manifests(), store) == []


def test_a_bundle_that_can_t_be_read_is_passed_over(tmp_path: Path) -> None:
    assert earlier_answers("qg_demo_chain", manifests(), BundleStore(str(tmp_path))) == []


def test_choices_ask_one_token_and_reasoning_its_limit() -> None:
    """A document of four choices is four requests of one token; a baseline answers some documents twice."""
    chosen = task_size("mc", 1000, DocumentRequests(4, 0, 0), [])
    thought = task_size("cot", 100, DocumentRequests(0, 1, 16384), [])
    size = RunSize(workload_of("demo", [1]), (chosen, thought), aa_documents=200)
    (mc, low), (_, high) = (size.loads(high=end)[:2] for end in (False, True))
    assert (mc.requests, mc.osl_tokens) == (4000, 1)
    assert (low.requests, low.osl_tokens, high.osl_tokens) == (100, 4096, 16384)
    twice = size.loads(high=True, is_baseline=True)[:2]
    assert [load.requests for load in twice] == [4800, 200]
    assert [size.starts(is_baseline=baseline) for baseline in (False, True)] == [1, 2]
    assert size.lengths == (
        "a prompt counts as 1,024 tokens (assumed) for mc, cot",
        "an answer counts as 4,096 to 16,384 tokens (its limit is 16,384) for cot",
    )


def test_prompts_have_the_length_of_their_documents_at_both_ends() -> None:
    size = replace(task_size("mc", 1000, DocumentRequests(4, 0, 0), []), prompt_characters=150)
    run = RunSize(workload_of("demo", [1]), (size,))
    assert run.lengths == ("a prompt counts as 30 to 50 tokens (by its documents) for mc",)
    assert [run.loads(high=end)[0].isl_tokens for end in (False, True)] == [30, 50]


def test_the_low_end_counts_what_interim_looks_and_reuse_may_save() -> None:
    size = replace(task_size("mc", 1000, DocumentRequests(4, 0, 0), []), least_documents=250)
    run = RunSize(workload_of("demo", [1, 8]), (size,), aa_documents=200)
    assert [run.loads(high=end)[0].requests for end in (False, True)] == [1000, 4000]
    assert run.loads(high=False, is_baseline=True)[0].requests == 4800, "a baseline answers all"
    reused = Reusable(frozenset({8}), frozenset({"mc"}))
    again, level = run.loads(high=False, is_baseline=True, measured=reused)
    assert (again.requests, level.concurrency) == (800, 1), "the A/A repeat is never reused"
