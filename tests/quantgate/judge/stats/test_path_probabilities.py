"""Crossing probabilities against every path at small n, and against binomial sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, multinomial

from quantgate.judge.stats.path_probabilities import TAIL, Cut, crossing, walks
from quantgate.judge.stats.tango import score_at_loss
from tests.support.interim_looks import ending


@st.composite
def designs(draw):
    steps = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    looks = np.cumsum(steps).tolist()
    # Of six digits: one that lies 1e-9 from an outcome's own is no tie to the one side and a tie to the other.
    statistic = st.floats(-0.5, 3).map(lambda drawn: round(drawn, 6))
    statistics = draw(st.lists(statistic, min_size=len(looks), max_size=len(looks)))
    margin = draw(st.floats(0.01, 0.5))
    rate = margin + (1 - margin) * draw(st.floats(0, 1))
    return [Cut(*cut) for cut in zip(looks, statistics, strict=True)], margin, rate


@settings(max_examples=40, deadline=None)
@given(designs(), st.booleans())
def test_it_is_the_sum_over_every_path(design, inferior):
    cuts, margin, rate = design

    def ends(look, b, c):
        cut = cuts[look]
        statistic = float(score_at_loss(b, c, cut.documents, margin))
        return statistic <= -cut.statistic + 1e-9 if inferior else statistic >= cut.statistic - 1e-9

    expected = sum(ending([cut.documents for cut in cuts], ends, (rate + margin) / 2, (rate - margin) / 2))
    found = crossing(np.array([rate]), cuts, margin, inferior=inferior)
    # Never too small, and too great by no more than what is said.
    assert expected - 1e-12 <= found[0] <= expected + 8 * TAIL * len(cuts)


@pytest.mark.parametrize("inferior", [False, True])
def test_rates_together_are_the_rates_alone(inferior):
    cuts = [Cut(200, 2.4), Cut(450, 2.1), Cut(1000, 1.7)]
    rates = np.array([0.02, 0.05, 0.3, 0.9])
    together = crossing(rates, cuts, 0.02, inferior=inferior)
    alone = [crossing(rates[[i]], cuts, 0.02, inferior=inferior)[0] for i in range(4)]
    assert together == pytest.approx(alone, abs=1e-12)
    assert np.all((together > 0.005) & (together < 0.1))


def test_nothing_taken_out_leaves_the_multinomial_of_all_documents():
    (walk,) = walks([300, 470, 1200], np.array([0.04]), np.array([0.03]))
    *_, last = walk.path_densities()
    assert last.density.sum() == pytest.approx(1, abs=20 * TAIL)
    b, c = 50, 33
    assert last.density[b - last.worse.first, c - last.better.first] == pytest.approx(
        multinomial.pmf([b, c, 1200 - b - c], 1200, [0.04, 0.03, 0.93]), rel=1e-6
    )
    assert last.density.sum(axis=1) == pytest.approx(
        binom.pmf(np.arange(last.worse.first, last.worse.first + last.worse.size), 1200, 0.04), abs=4 * TAIL
    )
