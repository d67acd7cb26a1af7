"""Divergence per token: by hand, against the whole vocabulary, and what the loader makes of two runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantgate.bundles.manifest import FidelityResult
from quantgate.bundles.schema import FIDELITY
from quantgate.judge.stats.tango import Floats
from tests.support.loaded_homes import Place
from tests.support.written_runs import BASELINE, FP8, START
from warehouse.fidelity import Tops, figures, kl_top, kl_whole
from warehouse.load import load_bundles
from warehouse.query import query
from warehouse.report.summary import summary_table


def tops(probabilities: Floats, own: int | np.ndarray, k: int | None = None) -> Tops:
    """The k most probable tokens (all if None) of distributions of shape (n, vocabulary)."""
    table = np.atleast_2d(probabilities)
    order = np.argsort(-table, axis=1, kind="stable")[:, :k]
    with np.errstate(divide="ignore"):
        logs = np.log(table).astype(np.float32).astype(np.float64)
    own_ids = np.broadcast_to(np.asarray(own), (len(table),)).astype(np.int64)
    return Tops(
        order.astype(np.int64),
        np.take_along_axis(logs, order, axis=1),
        own_ids,
        logs[np.arange(len(table)), own_ids],
    )


def test_a_divergence_by_hand() -> None:
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.5, 0.25])
    by_hand = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert kl_whole(tops(p, 0), tops(q, 0))[0] == pytest.approx(by_hand, abs=1e-6)
    assert kl_top(tops(p, 0, 3), tops(q, 0, 3))[0] == pytest.approx(by_hand, abs=1e-6)


def test_the_tail_is_one_bucket() -> None:
    p, q = np.array([0.6, 0.2, 0.1, 0.1]), np.array([0.3, 0.4, 0.2, 0.1])
    # Both list tokens 0 and 1; the text's own token 3 is known beside them, and only token 2 is left over.
    singles = 0.6 * math.log(0.6 / 0.3) + 0.2 * math.log(0.2 / 0.4) + 0.1 * math.log(0.1 / 0.1)
    rest = 0.1 * math.log(0.1 / 0.2)
    assert kl_top(tops(p, 3, 2), tops(q, 3, 2))[0] == pytest.approx(singles + rest, abs=1e-6)
    # With an own token that is listed anyway, tokens 2 and 3 fall together.
    together = 0.2 * math.log(0.2 / 0.3)
    expected = 0.6 * math.log(0.6 / 0.3) + 0.2 * math.log(0.2 / 0.4) + together
    assert kl_top(tops(p, 0, 2), tops(q, 0, 2))[0] == pytest.approx(expected, abs=1e-6)


def test_lists_without_a_common_token_tell_little_but_nothing_wrong() -> None:
    p, q = np.array([0.49, 0.49, 0.01, 0.01]), np.array([0.01, 0.01, 0.49, 0.49])
    whole = kl_whole(tops(p, 0), tops(q, 0))[0]
    bound = kl_top(tops(p, 0, 2), tops(q, 0, 2))[0]
    assert 0.49 * math.log(49) - 0.6 < bound < whole


def test_a_probability_of_zero_is_what_the_engine_writes_for_it() -> None:
    sure, other = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    for kl in (kl_whole, kl_top):
        assert kl(tops(sure, 0, 2), tops(sure, 0, 2))[0] == 0.0
        assert np.isfinite(kl(tops(sure, 0, 2), tops(other, 0, 2)))[0]
        assert kl(tops(sure, 0, 2), tops(other, 0, 2))[0] > 9000
    # A zero of the baseline's own costs nothing.
    half = np.array([0.5, 0.5])
    assert kl_whole(tops(sure, 0), tops(half, 0))[0] == pytest.approx(math.log(2))


def test_no_place_at_all() -> None:
    none = tops(np.full((0, 4), 0.25), np.empty(0, dtype=np.int64))
    assert kl_whole(none, none).shape == kl_top(none, none).shape == (0,)


@st.composite
def two_distributions(draw: st.DrawFn) -> tuple[Floats, Floats, np.ndarray, int]:
    """Over the same vocabulary, alike or unlike, flat or peaked as a model's are; own tokens; k."""
    vocabulary, places = draw(st.integers(2, 60)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = draw(st.sampled_from([0.5, 4.0, 12.0])) * rng.normal(size=(places, vocabulary))
    apart = draw(st.sampled_from([0.01, 1.0, 10.0])) * rng.normal(size=(places, vocabulary))
    p, q = (np.exp(one - one.max(axis=1, keepdims=True)) for one in (logits, logits + apart))
    p, q = (one / one.sum(axis=1, keepdims=True) for one in (p, q))
    return p, q, rng.integers(0, vocabulary, places), draw(st.integers(1, vocabulary))


@settings(max_examples=300, deadline=None)
@given(two_distributions())
def test_the_top_k_never_tells_more_than_the_whole(drawn: tuple[Floats, Floats, np.ndarray, int]) -> None:
    p, q, own, k = drawn
    whole = kl_whole(tops(p, own), tops(q, own))
    exact = np.sum(p * (np.log(p) - np.log(q)), axis=1)
    assert whole == pytest.approx(exact, abs=1e-4, rel=1e-4)
    bound = kl_top(tops(p, own, k), tops(q, own, k))
    assert np.all(bound >= 0)
    assert np.all(bound <= whole + 1e-4)
    every = kl_top(tops(p, own, p.shape[1]), tops(q, own, p.shape[1]))
    assert every == pytest.approx(whole, abs=1e-4)


@settings(max_examples=100, deadline=None)
@given(two_distributions())
def test_a_checkpoint_lies_nowhere_from_itself(drawn: tuple[Floats, Floats, np.ndarray, int]) -> None:
    p, _, own, k = drawn
    assert kl_whole(tops(p, own), tops(p, own)) == pytest.approx(0, abs=1e-6)
    assert kl_top(tops(p, own, k), tops(p, own, k)) == pytest.approx(0, abs=1e-5)


PLACES, VOCABULARY = 400, 32
Rows = tuple[dict[str, Any], ...]


def distributions(seed: int, apart: float = 0.0) -> Floats:
    """Of shape (places, vocabulary); those of one seed lie further from its own the larger ``apart`` is."""
    logits = 2 * np.random.default_rng(seed).normal(size=(PLACES, VOCABULARY))
    logits += apart * np.random.default_rng(99).normal(size=logits.shape)
    table = np.exp(logits)
    return np.asarray(table / table.sum(axis=1, keepdims=True))


def rows(table: Floats, k: int = VOCABULARY, **changes: Any) -> Rows:
    """Rows of fidelity.parquet, as the engine's answers become them."""
    listed = tops(table, np.arange(PLACES) % VOCABULARY, k)
    return tuple(
        {
            "text_id": "plain.txt@0123456789ab",
            "token_index": place,
            "token_id": int(listed.own_ids[place]),
            "logprob": float(listed.own_logprobs[place]),
            "top_token_ids": listed.token_ids[place].tolist(),
            "top_logprobs": listed.logprobs[place].tolist(),
            "k": k,
            "vocab_size": VOCABULARY,
            "engine_start_id": "start-1",
        }
        | changes
        for place in range(PLACES)
    )


def table_of(found: Rows) -> pa.Table:
    return pa.Table.from_pylist(list(found), FIDELITY)


def compared(baseline: Rows, candidate: Rows) -> dict[str, Any]:
    return figures(table_of(baseline), table_of(candidate))._asdict()


def test_the_figures_are_those_of_the_definition() -> None:
    p, q = distributions(1), distributions(1, apart=0.5)
    found = compared(rows(p), rows(q)[::-1])  # in whatever order they lie in the file
    nats = np.sum(p * np.log(p / q), axis=1)
    own = np.arange(PLACES), np.arange(PLACES) % VOCABULARY
    expected = {
        "kl_mean_nats": nats.mean(),
        "kl_median_nats": np.quantile(nats, 0.5),
        "kl_p99_nats": np.quantile(nats, 0.99),
        "kl_p999_nats": np.quantile(nats, 0.999),
        "top1_agreement": np.mean(p.argmax(axis=1) == q.argmax(axis=1)),
        "perplexity_baseline": np.exp(-np.log(p[own]).mean()),
        "perplexity": np.exp(-np.log(q[own]).mean()),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert 0.02 < found["kl_mean_nats"] < 0.5
    assert 0.5 < found["top1_agreement"] < 1
    assert (found["tokens"], found["k"], found["nan_tokens"], found["reason"]) == (PLACES, 32, 0, None)


def test_the_mean_of_the_top_k_lies_below_the_whole_and_near_it() -> None:
    p, q = distributions(1), distributions(1, apart=0.5)
    whole, top = compared(rows(p), rows(q)), compared(rows(p, k=16), rows(q, k=16))
    assert 0.7 * whole["kl_mean_nats"] < top["kl_mean_nats"] < whole["kl_mean_nats"]
    assert top["perplexity"] == pytest.approx(whole["perplexity"])
    assert top["top1_agreement"] == whole["top1_agreement"]


NOT_A_NUMBER = {"logprob": math.nan, "top_token_ids": [], "top_logprobs": []}


@pytest.mark.parametrize(
    ("baseline", "candidate", "reason"),
    [
        (rows(distributions(1)), (), "not_measured"),
        ((), rows(distributions(1)), "baseline_not_measured"),
        (rows(distributions(1)), rows(distributions(1), text_id="plain.txt@other"), "other_text"),
        (rows(distributions(1), k=20), rows(distributions(1), k=16), "other_k"),
        (rows(distributions(1)), rows(distributions(1), vocab_size=33), "other_vocabulary"),
        (rows(distributions(1)), rows(distributions(1), token_id=7), "other_tokens"),
        (rows(distributions(1)), rows(distributions(1))[1:], "other_tokens"),
        (rows(distributions(1)), rows(distributions(1), **NOT_A_NUMBER), "nan_logprobs"),
        (rows(distributions(1), **NOT_A_NUMBER), rows(distributions(1)), "baseline_nan_logprobs"),
    ],
)
def test_what_cannot_be_compared_has_a_reason_and_no_figures(
    baseline: Rows, candidate: Rows, reason: str
) -> None:
    found = compared(baseline, candidate)
    assert found["reason"] == reason
    assert {found[name] for name in found if name.startswith(("kl_", "perplexity", "top1"))} == {None}


COLUMNS = """
    run_id, baseline_run_id, text, tokens, k, vocab_size, coverage, round(kl_mean_nats, 3) AS kl, alarms,
    previous_run_id, round(kl_mean_change_nats, 3) AS change, null_reasons['kl_mean_nats'] AS reason
"""


@pytest.mark.usefixtures("begun")
def test_a_load_fills_the_view_with_alarm_and_trend(place: Any, three: Any, spec: Callable[..., Any]) -> None:
    baseline, fp8, nvfp4 = three
    p = distributions(1)
    baseline = replace(baseline, fidelity=rows(p))
    first = replace(fp8, baseline=baseline, fidelity=rows(distributions(1, apart=0.1)))
    again = replace(
        first,
        run_id="run-fp8-again",
        started_at=first.started_at + timedelta(days=1),
        engine_version="0.26.0",
    )
    again = replace(again, fidelity=rows(distributions(1, apart=0.5)))
    silent = replace(nvfp4, baseline=baseline)
    place.write(first)
    load_bundles(place.warehouse, place.bundles)
    only = query(place.warehouse, f"SELECT {COLUMNS} FROM fidelity").to_pylist()
    assert [(row["run_id"], row["kl"], row["reason"]) for row in only] == [
        ("run-fp8", None, "baseline_not_loaded")
    ]

    place.write(baseline, again, silent)
    load_bundles(place.warehouse, place.bundles)
    found = {
        row["run_id"]: row for row in query(place.warehouse, f"SELECT {COLUMNS} FROM fidelity").to_pylist()
    }
    kl = [np.sum(p * np.log(p / distributions(1, apart=apart)), axis=1).mean() for apart in (0.1, 0.5)]
    assert found["run-fp8"] == {
        "run_id": "run-fp8",
        "baseline_run_id": "run-bf16",
        "text": "plain.txt@0123456789ab",
        "tokens": PLACES,
        "k": VOCABULARY,
        "vocab_size": VOCABULARY,
        "coverage": "whole",
        "kl": pytest.approx(kl[0], abs=1e-3),
        "alarms": [],
        "previous_run_id": None,
        "change": None,
        "reason": None,
    }
    assert found["run-fp8-again"]["alarms"] == ["kl_high"]
    assert found["run-fp8-again"]["previous_run_id"] == "run-fp8"
    assert found["run-fp8-again"]["change"] == pytest.approx(kl[1] - kl[0], abs=2e-3)
    assert (found["run-nvfp4"]["reason"], found["run-nvfp4"]["alarms"]) == ("not_measured", [])
    assert len(found) == 3
    report = " ".join(summary_table(place.warehouse, again.started_at + timedelta(hours=1)).split())
    text = (
        f"its next-token distributions lie {kl[1]:.3f} nats from the baseline's on average (alarm above 0.05)"
    )
    assert report.count("Alarm kl_high, fp8: " + text + ". It changes no verdict.") == 1
    assert report.count("Alarm kl_high") == 1


@pytest.mark.usefixtures("begun")
def test_a_candidate_without_numbers_is_an_alarm_and_its_verdict_stands(place: Any, three: Any) -> None:
    baseline, fp8, _ = three
    baseline = replace(baseline, fidelity=rows(distributions(1)))
    broken = replace(fp8, baseline=baseline, fidelity=rows(distributions(1), **NOT_A_NUMBER))
    place.write(baseline, broken)
    report = load_bundles(place.warehouse, place.bundles)
    assert (report.judged, report.problems) == (("run-fp8",), ())
    row = query(place.warehouse, "SELECT alarms, nan_tokens, null_reasons FROM fidelity").to_pylist()[0]
    assert (row["alarms"], row["nan_tokens"]) == (["nan_logprobs"], PLACES)
    assert dict(row["null_reasons"])["kl_p999_nats"] == "nan_logprobs"
    report = " ".join(summary_table(place.warehouse, fp8.started_at + timedelta(hours=1)).split())
    assert "fp8: at 400 of 400 tokens of the fixed text a probability is not a number. It changes" in report
    verdicts = query(place.warehouse, "SELECT verdict FROM verdicts WHERE run_id = 'run-fp8' AND use = 'all'")
    assert verdicts.to_pylist() == [{"verdict": "VALIDATED"}]


@pytest.mark.usefixtures("begun")
def test_a_baseline_asked_once_more_over_a_restart_gives_the_noise(place: Any, three: Any) -> None:
    baseline, fp8, _ = three
    result = FidelityResult(
        text_id="plain.txt@0123456789ab",
        tokens=PLACES,
        k=VOCABULARY,
        vocab_size=VOCABULARY,
        duration_s=1.0,
        engine_start_id="start-1",
    )
    p, again, q = distributions(1), distributions(1, apart=0.02), distributions(1, apart=0.1)
    baseline = replace(
        baseline,
        fidelity=(*rows(again, engine_start_id="start-2"), *rows(p)),
        fidelity_result=result,
    )
    place.write(baseline, replace(fp8, baseline=baseline, fidelity=rows(q)))
    load_bundles(place.warehouse, place.bundles)
    found = query(
        place.warehouse,
        "SELECT run_id, baseline_run_id, tokens, kl_mean_nats, kl_aa_mean_nats, null_reasons FROM fidelity",
    ).to_pylist()
    own, candidate = sorted(found, key=lambda row: str(row["run_id"]))
    noise = np.sum(p * np.log(p / again), axis=1).mean()
    assert (own["run_id"], own["baseline_run_id"], own["tokens"]) == ("run-bf16", "run-bf16", PLACES)
    assert own["kl_mean_nats"] == candidate["kl_aa_mean_nats"] == pytest.approx(noise, rel=0.05)
    assert candidate["kl_mean_nats"] == pytest.approx(np.sum(p * np.log(p / q), axis=1).mean(), rel=0.01)
    assert (candidate["run_id"], dict(candidate["null_reasons"])) == (
        "run-fp8",
        {"previous_kl_mean_nats": "no_earlier_run"},
    )


def test_distributions_that_a_run_reuses_are_no_second_point_of_the_trend(place: Place) -> None:
    """Of three runs of fp8 the second holds the distributions of the first."""
    p, q = distributions(1), distributions(1, apart=0.1)
    baseline = replace(BASELINE, fidelity=rows(p))
    first = replace(FP8, baseline=baseline, fidelity=rows(q))
    second = replace(
        first,
        run_id="second",
        fingerprint="second",
        started_at=START + timedelta(days=1),
        reused={"fidelity": "run-fp8"},
    )
    third = replace(
        second, run_id="third", fingerprint="third", started_at=START + timedelta(days=2), reused={}
    )
    place.write(baseline, first, second, third)
    load_bundles(place.warehouse, place.bundles)
    sql = "SELECT run_id, reused_from, previous_run_id, null_reasons FROM fidelity WHERE precision = 'fp8'"
    found = {row.pop("run_id"): tuple(row.values()) for row in query(place.warehouse, sql).to_pylist()}
    assert found["run-fp8"][:2] == (None, None)
    assert found["second"][:2] == ("run-fp8", None)
    assert dict(found["second"][2])["previous_kl_mean_nats"] == "reused"
    assert found["third"][:2] == (None, "run-fp8")
