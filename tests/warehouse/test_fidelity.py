"""Divergence per token: by hand, against the whole vocabulary, and what the loader makes of two runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.fidelity import Tops, kl_top, kl_whole
from warehouse.tango import Floats


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
