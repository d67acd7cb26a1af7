"""Lower ends of a baseline's score, compared with sums over every outcome."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from quantgate.judge.stats.baseline_score import score_of_counts, score_of_documents


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_so_many_right_answers_come_with_5_percent_at_the_lower_end(counts: tuple[int, int]) -> None:
    """Clopper and Pearson's definition, by the binomial distribution."""
    right, documents = counts
    found = score_of_counts(right, documents)
    assert binom.sf(right - 1, documents, found.low) == pytest.approx(0.05, rel=1e-6)
    assert found.low < found.score == right / documents


def test_no_right_answer_bounds_nothing() -> None:
    assert score_of_counts(0, 1000).low == score_of_documents(np.zeros(1000)).low == 0.0


@pytest.mark.parametrize("documents", [1, 7, 40])
def test_the_lower_end_exceeds_the_true_score_in_5_percent_at_most(documents: int) -> None:
    lows = np.array([score_of_counts(right, documents).low for right in range(documents + 1)])
    for true in np.linspace(0.001, 0.999, 400):
        assert binom.pmf(np.flatnonzero(lows > true), documents, true).sum() <= 0.05 + 1e-9


@pytest.mark.parametrize("chances", [(0.9, 0.06, 0.04), (0.3, 0.4, 0.3), (0.05, 0.05, 0.9)])
def test_the_same_of_partial_credit_over_every_sequence(chances: tuple[float, ...]) -> None:
    values = (0.0, 0.5, 1.0)
    mean = sum(value * chance for value, chance in zip(values, chances, strict=True))
    missed = sum(
        prod(chances[i] for i in drawn)
        for drawn in product(range(3), repeat=5)
        if score_of_documents(np.array([values[i] for i in drawn])).low > mean
    )
    assert missed <= 0.05


def test_a_thousand_graded_answers_bound_their_score_closely() -> None:
    scores = np.random.default_rng(1).choice([0.0, 0.5, 1.0], 1000, p=[0.3, 0.2, 0.5])
    found = score_of_documents(scores)
    assert 0.53 < found.low < found.score < 0.65


def test_documents_that_are_wholly_alike_count_as_one() -> None:
    """Each of 50 passages is right or wrong as a whole: 1,000 documents say what 50 do, or less."""
    passages = np.arange(50) % 2 == 0
    scores, clusters = np.repeat(passages, 20).astype(float), np.repeat(np.arange(50), 20)
    plain, clustered = score_of_documents(scores), score_of_documents(scores, clusters)
    assert clustered.low == pytest.approx(score_of_documents(passages.astype(float)).low, abs=0.03)
    assert clustered.low < plain.low - 0.05
    assert score_of_documents(np.ones(100), np.zeros(100, dtype=int)).low == 0.0, "one passage says nothing"


def test_what_is_no_score_never_raises_the_lower_end() -> None:
    scores = np.array([1.0] * 50 + [np.nan, np.inf, -np.inf, -3.0])
    assert score_of_documents(scores) == score_of_counts(50, 54)
