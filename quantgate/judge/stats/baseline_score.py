"""Bound a baseline's score from below: what it surely reaches on new documents of the same kind.

The bound is one-sided at 95 %. For right/wrong scores it is C. J. Clopper and E. S. Pearson's (Biometrika 26 (1934)
404-413), exact for any number of documents. For other scores from 0 to 1 it is the lower end of the betting interval
(``stats.betting``), which errs with probability at most 5 % whatever their distribution. Where documents share
clusters, the cluster-robust score test's lower end (``stats.clustered``) has to agree, and the lesser one counts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from quantgate.judge.stats.betting import betting_interval
from quantgate.judge.stats.clustered import cluster_totals, robust_interval
from quantgate.judge.stats.tango import Floats

_ALPHA = 0.05


class BaselineScore(NamedTuple):
    """Score of a baseline on a task, over all documents that it answered."""

    score: float
    """Mean, a fraction."""
    low: float
    """Lower end of its one-sided 95 % interval."""
    documents: int


def score_of_counts(right: float, documents: int) -> BaselineScore:
    """Bound a score from the number of right answers.

    Args:
        right: documents answered right; a sum of graded scores where a rough bound will do.
        documents: all of them, one at least.
    """
    low = float(betaincinv(right, documents - right + 1, _ALPHA)) if right > 0 else 0.0
    return BaselineScore(right / documents, low, documents)


def score_of_documents(scores: Floats, clusters: NDArray[np.int64] | None = None) -> BaselineScore:
    """Bound a score from that of each document.

    Args:
        scores: shape (n,), fractions, in an order fixed in advance; what is not a number from 0 to 1 counts as 0 or 1.
        clusters: each document's cluster as a number from 0, shape (n,); None where no two documents share one.
    """
    scores = np.clip(np.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0), 0.0, 1.0)
    if np.isin(scores, (0.0, 1.0)).all():
        score = score_of_counts(int(np.count_nonzero(scores)), scores.size)
    else:
        low = max(0.0, betting_interval(scores, _ALPHA).low)
        score = BaselineScore(float(scores.mean()), low, scores.size)
    if clusters is None:
        return score
    totals = cluster_totals(scores, clusters)
    robust = robust_interval(totals, _ALPHA).low if totals.documents.size > 1 else 0.0
    return score._replace(low=max(0.0, min(score.low, robust)))
