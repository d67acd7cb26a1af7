"""Check the claims about a checkpoint against itself, with answers drawn anew in every run."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from scipy.stats import binom

from quantgate.judge.judge import judge
from quantgate.judge.power import documents_needed
from quantgate.model.config.policy import FamilyPolicy, Policy
from quantgate.model.enums import Family, Verdict
from tests.verdicts.scores import Task

TRIALS = 200
ALPHA, POWER = 0.05, 0.8
TASK = Task("qg_sampled", Family.MATH, "answer")


class Rates(NamedTuple):
    """Results of trials, as shares of them, and the mean share of documents that flipped."""

    validated: float
    rejected: float
    degraded: float
    flip_rate: float

    def __str__(self) -> str:
        return (
            f"VALIDATED {self.validated:.1%}, REJECTED {self.rejected:.1%}, degraded {self.degraded:.1%}, "
            f"flips {self.flip_rate:.2%}"
        )


def policy(margin: float, looks: tuple[float, ...] = ()) -> Policy:
    """A policy of one margin, a fraction, for any number of documents."""
    return Policy(
        description="For the same checkpoint against itself.",
        alpha=ALPHA,
        planned_power=POWER,
        stale_after_days=1,
        families={family: FamilyPolicy(margin=margin, min_documents=1) for family in Family},
        uses={"all": ()},
        looks=looks,
    )


def overlapping(runs: Sequence[pa.Table]) -> list[tuple[pa.Table, pa.Table]]:
    """Distinct pairs of runs, all documents: a run is in several of them, so they are not independent."""
    pairs = list(itertools.combinations(range(len(runs)), 2))
    random.Random(1).shuffle(pairs)
    turned = [pair[::-1] if number % 2 else pair for number, pair in enumerate(pairs[:TRIALS])]
    assert len(set(turned)) == TRIALS
    return [(runs[one], runs[other]) for one, other in turned]


def independent(runs: Sequence[pa.Table]) -> list[tuple[pa.Table, pa.Table]]:
    """Disjoint pairs of runs, each on disjoint parts of the documents: no answer is in two of them."""
    couples = list(zip(runs[::2], runs[1::2], strict=False))
    parts = np.split(np.arange(len(runs[0])), TRIALS // len(couples))
    return [
        (one.take(pa.array(part)), other.take(pa.array(part))) for one, other in couples for part in parts
    ]


def rates(trials: Sequence[tuple[pa.Table, pa.Table]], margin: float) -> Rates:
    """The shipped judge's word on every trial.

    Args:
        trials: samples of baseline and candidate.
        margin: a fraction.
    """
    declared = policy(margin)
    verdicts = [judge(*trial, "same", declared, [TASK])[0] for trial in trials]
    said = Counter(one.verdict for one in verdicts)
    assert said.keys() <= {Verdict.VALIDATED, Verdict.REJECTED, Verdict.INCONCLUSIVE}
    return Rates(
        said[Verdict.VALIDATED] / len(trials),
        said[Verdict.REJECTED] / len(trials),
        sum(bool(one.degraded) for one in verdicts) / len(trials),
        float(np.mean([one.flip_rate for one in verdicts])),
    )


def check_false_alarms(found: Rates, trials: int) -> None:
    """Check that REJECTED and `degraded` are as rare as alpha demands, within the error of so many trials."""
    limit = binom.isf(0.001, trials, ALPHA) / trials
    assert found.rejected <= limit, found
    assert found.degraded <= limit, found


def check_power(found: Rates, trials: int, documents: int, margin: float) -> None:
    """Check that VALIDATED is at least as frequent as planned, where the documents suffice by the plan."""
    assert documents_needed(found.flip_rate, margin, ALPHA, POWER) <= documents
    assert found.validated >= binom.ppf(0.001, trials, POWER) / trials, found
