"""The simulated subjects lose what they should, and the tests of independent documents hold on them."""

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks.strata import (
    ALPHA,
    Strata,
    answered,
    graded,
    graded_rates,
    strata_rates,
    subject_rates,
    subject_sizes,
)


@pytest.mark.parametrize("how", ["even", "few"])
def test_all_subjects_together_lose_the_delta(how):
    cell = Strata(how, 14, 3000, 0.1, 0.02, -0.02)
    sizes = subject_sizes(np.random.default_rng(1), cell)
    assert sizes.sum() == 3000
    worse, better = subject_rates(cell, sizes)
    assert ((better - worse) * sizes).sum() / 3000 == pytest.approx(-0.02)
    assert ((better + worse) * sizes).sum() / 3000 == pytest.approx(0.1)
    assert (worse.max() >= 0.5) == (how == "few")


def test_counts_grow_from_look_to_look():
    cell = Strata("even", 14, 3000, 0.1, 0.02, -0.02)
    worse, better = answered(np.random.default_rng(2), cell, (300, 900, 3000))
    assert (np.diff(worse) >= 0).all()
    assert worse[-1] + better[-1] == pytest.approx(300, abs=80)


def test_one_subject_that_breaks_is_not_validated_oftener_than_alpha():
    trials = 60
    rates = strata_rates(np.random.default_rng(3), Strata("few", 7, 1324, 0.05, 0.02, -0.02), trials)
    assert max(rates) <= binom.ppf(0.999, trials, ALPHA) / trials


@pytest.mark.parametrize("how", ["even", "few"])
def test_partial_credit_loses_the_delta_and_is_not_validated_oftener_than_alpha(how):
    rng, cell, trials = np.random.default_rng(4), Strata(how, 7, 1324, 0.1, 0.02, -0.02), 60
    means = [graded(rng, cell).mean() for _ in range(200)]
    assert np.mean(means) == pytest.approx(-0.02, abs=4 * np.std(means) / np.sqrt(200))
    _, shipped = graded_rates(rng, cell, trials)
    assert shipped <= binom.ppf(0.999, trials, ALPHA) / trials
