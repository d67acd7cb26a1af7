"""The estimate that is corrected for stopping: against simulated paths, its interval, and the plain estimate."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from quantgate.judge.stats.boundaries import boundaries
from quantgate.judge.stats.group_sequential import Design, sequential_interval
from quantgate.judge.stats.stopped_estimate import corrected_estimate
from quantgate.judge.stats.tango import score_at_loss

DESIGNS = (Design((60, 120, 200), 0.05, 0.05), Design((100, 200, 400, 700, 1000), 0.02, 0.05))


@st.composite
def outcomes(draw):
    """A design, a look and counts that a run may come to: within seven standard errors of the margin."""
    design = draw(st.sampled_from(DESIGNS))
    look = draw(st.integers(0, len(design.looks) - 1))
    n = design.looks[look]
    flips = draw(st.integers(0, n // 5))
    b = draw(st.integers(0, flips))
    assume(abs(float(score_at_loss(b, flips - b, n, design.margin))) < 7)
    return b, flips - b, look, design


@settings(max_examples=80)
@given(outcomes())
def test_it_lies_within_the_interval_and_between_minus_one_and_one(outcome):
    interval = sequential_interval(*outcome)
    assert -1 <= interval.low <= corrected_estimate(*outcome) <= interval.high <= 1


@settings(max_examples=60)
@given(outcomes())
def test_a_better_document_in_place_of_a_worse_one_never_lowers_it(outcome):
    b, c, look, design = outcome
    assume(b)
    assert corrected_estimate(b - 1, c + 1, look, design) >= corrected_estimate(*outcome) - 1e-8


@settings(max_examples=60)
@given(outcomes(), st.integers(1, 1000))
def test_without_a_look_before_it_is_the_plain_estimate(outcome, n):
    b, c, _, design = outcome
    assert corrected_estimate(b, c, 0, design) == (c - b) / design.looks[0]
    n = max(n, b + c)
    assert corrected_estimate(b, c, 0, Design((n,), design.margin, design.alpha)) == (c - b) / n


def test_a_late_stop_for_a_gain_is_corrected_downward_and_a_late_stop_for_a_loss_upward():
    design = DESIGNS[1]
    for b, c, sign in ((5, 24, 1), (50, 10, -1)):
        raw, corrected = (c - b) / 400, corrected_estimate(b, c, 2, design)
        assert sign * raw > sign * corrected
        assert abs(raw - corrected) > 0.003


@pytest.mark.parametrize("better", [14, 20, 26])
def test_results_above_and_below_it_are_equally_likely_on_simulated_paths(better):
    """Sums of normal differences, stopped where Tango's statistic of their worse and better documents is."""
    design, look, flips = DESIGNS[1], 3, 40
    n = design.looks[look]
    b, c = flips - better, better
    delta, rate = corrected_estimate(b, c, look, design), flips / n
    rng = np.random.default_rng(5)
    steps = np.diff((0, *design.looks[: look + 1]))
    sums = np.cumsum(rng.normal(delta * steps, np.sqrt(rate * steps), (100_000, look + 1)), axis=1)
    going_on, above = np.ones(len(sums), dtype=bool), np.zeros(len(sums), dtype=bool)
    for at, (documents, bound) in enumerate(
        zip(design.looks[:look], boundaries(design.looks, design.alpha), strict=False)
    ):
        seen = np.clip(sums[:, at], -rate * documents, rate * documents)
        statistic = score_at_loss(
            (rate * documents - seen) / 2, (rate * documents + seen) / 2, documents, design.margin
        )
        above |= going_on & (statistic >= bound)
        going_on &= np.abs(statistic) < bound
    above |= going_on & (sums[:, look] >= c - b)
    assert np.mean(above) == pytest.approx(0.5, abs=0.007)
