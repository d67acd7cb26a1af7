"""Whether a loss is within the margin where documents share subjects or passages, which err together.

New documents of the same kind come in clusters too, so the clusters, G of them, are the independent units. Cluster
g has n_g documents and the total D_g of their differences d = candidate - baseline. Under H0 (the mean of d is
-margin) the totals e_g = D_g + margin n_g have mean 0. Two tests look at them, and the greater p-value counts:

* The robust one assumes nothing of how documents of a cluster depend on each other. Its statistic is
  sum(e_g) / sqrt(G / (G - 1) sum(e_g^2)): the variance of cluster totals, H0 imposed as in a score test, with the
  correction for few clusters of A. C. Cameron and D. L. Miller, "A practitioner's guide to cluster-robust inference",
  Journal of Human Resources 50 (2015) 317-372. It is compared with t of G* - 1 degrees, where G* = (sum n_g^2)^2 /
  sum n_g^4 is the effective number of clusters of unequal size, at its least: A. V. Carter, K. T. Schnepel and
  D. G. Steigerwald, "Asymptotic behavior of a t-test robust to cluster heterogeneity", Review of Economics and
  Statistics 99 (2017) 698-709. Clustered errors for evaluations of language models: E. Miller, "Adding error bars to
  evals" (2024), arXiv 2411.00640. Where some clusters lose much more than the others, the totals are skewed and t is
  too bold: P. Hall's transform, "On the removal of skewness by transformation", Journal of the Royal Statistical
  Society B 54 (1992) 221-228, allows for it, and the smaller of the two statistics counts.
* That one can't see what did not happen: a rare kind of cluster in which many documents break. The second one can.
  It lets the worse and the better documents of a cluster be overdispersed counts (negative binomial, the Poisson
  case of the Dirichlet-multinomial; J. E. Mosimann, Biometrika 49 (1962) 65-82) with a flip rate and an
  intra-cluster correlation, and takes the probability of a total as high as the one seen, at its maximum over both.
  The maximum is taken over a confidence set of the two from the flips of each cluster, which keeps out what the data
  rule out (after R. L. Berger and D. D. Boos, JASA 89 (1994) 1012-1016).

Neither is exact: that they hold at alpha is shown by simulation (docs/benchmarks-clusters.md), with correlations up
to ``MOST_CORRELATED``. A kind of cluster that is rare and breaks wholly is beyond any method that has not seen it: to
rule out that a share s of clusters is lost takes log(alpha) / log(1 - s) clusters, 299 of them for one point.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.special import gammaln
from scipy.stats import chi2
from scipy.stats import t as student

from warehouse.tango import Floats, Interval, score_at_loss

MOST_CORRELATED = 0.3
"""Greatest intra-cluster correlation of flips that is reckoned with."""

_CONFIDENCE = 0.95
"""Of the confidence set of flip rate and correlation (likelihood ratio, two degrees of freedom). What the set misses
is not added to the p-value, as the exact test does with its 0.1 %: the maximum over the set has slack enough, which
docs/benchmarks-clusters.md shows by simulation."""

_CORRELATIONS: Floats = np.concatenate([[0.0], np.geomspace(0.0003, MOST_CORRELATED, 14)])
_GRID: Floats = np.linspace(0, 1, 24) ** 2
"""Flip rates looked at, as shares of the way from the margin to the greatest that is thinkable."""

_TIE = 1e-9
"""Statistics this near are the same one, set apart by rounding."""


class ClusterTotals(NamedTuple):
    """What the clusters of a task hold, arrays of shape (G,)."""

    documents: Floats
    worse: Floats
    """Score lost, summed over the documents that lost: their number, for right/wrong scores."""
    better: Floats


class Sizes(NamedTuple):
    """Sizes of clusters, each once, and how many clusters have it."""

    documents: Floats
    number: Floats


def cluster_totals(differences: Floats, clusters: NDArray[np.int64]) -> ClusterTotals:
    """Sum the differences of each cluster.

    Args:
        differences: candidate - baseline per document, shape (n,), fractions.
        clusters: each document's cluster as a number from 0, shape (n,).
    """
    return ClusterTotals(
        np.bincount(clusters).astype(np.float64),
        np.bincount(clusters, weights=np.maximum(-differences, 0.0)).astype(np.float64),
        np.bincount(clusters, weights=np.maximum(differences, 0.0)).astype(np.float64),
    )


def p_noninferior_clusters(totals: ClusterTotals, margin: float) -> float:
    """P-value of H0: delta <= -margin, documents of a cluster depending on each other.

    Args:
        totals: what the clusters hold, at least two.
        margin: the loss that would matter, a fraction above 0 and below 1.
    """
    return max(p_robust(totals, -margin), p_overdispersed(totals, margin, inferior=False))


def p_inferior_clusters(totals: ClusterTotals, margin: float) -> float:
    """P-value of H0: delta >= -margin; arguments as of ``p_noninferior_clusters``."""
    return max(p_robust(mirrored(totals), margin), p_overdispersed(totals, margin, inferior=True))


def p_degraded_clusters(totals: ClusterTotals) -> float:
    """P-value of H0: delta >= 0, of the robust test: a small one shows some loss, however slight."""
    return p_robust(mirrored(totals), 0.0)


def mirrored(totals: ClusterTotals) -> ClusterTotals:
    """Candidate and baseline exchanged."""
    return totals._replace(worse=totals.better, better=totals.worse)


def effective_clusters(documents: Floats) -> float:
    """Carter, Schnepel and Steigerwald's G*, where documents of a cluster are wholly alike: its least value."""
    squares = documents**2
    return float(squares.sum() ** 2 / (squares**2).sum())


def p_robust(totals: ClusterTotals, mean: float) -> float:
    """P-value of H0: delta <= ``mean`` from the totals of the clusters, one-sided: the greater of the robust two."""
    excess = totals.better - totals.worse - mean * totals.documents
    if not excess.any():
        return 1.0
    return float(student.sf(min(score(excess), _skewed(excess)), _degrees(totals)))


def score(excess: Floats) -> float:
    """The sum of the clusters' totals over its standard error, H0 imposed."""
    return float(excess.sum()) / _spread(excess)


def _skewed(excess: Floats) -> float:
    """Hall's transform of t of the clusters' totals; infinite where they are all alike."""
    groups, middle = excess.size, float(excess.mean())
    around = excess - middle
    deviation = math.sqrt(float((around**2).sum()) / (groups - 1))
    if deviation <= 1e-9 * abs(middle) or groups < 3:
        return math.inf
    skewness = float((around**3).sum()) * groups / ((groups - 1) * (groups - 2)) / deviation**3
    t, bent = math.sqrt(groups) * middle / deviation, skewness / math.sqrt(groups)
    return t + bent * t**2 / 3 + bent**2 * t**3 / 27 + bent / 6


def _spread(excess: Floats) -> float:
    groups = excess.size
    return float(np.sqrt(groups / (groups - 1) * (excess**2).sum()))


def _degrees(totals: ClusterTotals) -> float:
    return max(1.0, effective_clusters(totals.documents) - 1)


def cluster_interval(totals: ClusterTotals, alpha: float) -> Interval:
    """The two-sided 1 - 2 alpha interval of delta: every value that the score test does not refuse.

    The statistic's square against t^2 is a quadratic in delta. Where t is so great that it refuses nothing on a
    side, that side ends at -1 or 1.
    """
    total, size = totals.better - totals.worse, totals.documents
    groups = size.size
    weight = float(student.isf(alpha, _degrees(totals))) ** 2 * groups / (groups - 1)
    square = size.sum() ** 2 - weight * (size**2).sum()
    middle = total.sum() * size.sum() - weight * (total * size).sum()
    constant = total.sum() ** 2 - weight * (total**2).sum()
    if square <= 0:
        return Interval(-1.0, 1.0)
    root = float(np.sqrt(max(middle**2 - square * constant, 0.0)))
    return Interval(max(-1.0, (middle - root) / square), min(1.0, (middle + root) / square))


def p_overdispersed(totals: ClusterTotals, margin: float, *, inferior: bool) -> float:
    """P-value at delta = -margin of the overdispersed counts, at its maximum over flip rate and correlation.

    Outcomes, the totals of worse and of better documents, are ordered by Tango's statistic as in the exact test.

    Args:
        totals: what the clusters hold.
        margin: the loss of H0, a fraction above 0 and below 1.
        inferior: outcomes as low as the one seen are extreme, not as high.
    """
    sizes, where = np.unique(totals.documents, return_inverse=True)
    clusters = Sizes(sizes, np.bincount(where).astype(np.float64))
    flips = totals.worse + totals.better
    n = float(totals.documents.sum())
    # Overdispersed, the flip rate may be far above the one seen.
    seen = float(flips.sum())
    highest = min(1.0, 8 * max(margin, (seen + 4 * np.sqrt(seen + 4) + 8) / n))
    rates = np.concatenate([np.linspace(0, 1, 8)[1:-1] * margin, margin + (highest - margin) * _GRID])
    likelihood = np.array([_log_likelihood(flips, totals.documents, rates, r) for r in _CORRELATIONS])
    allowed = likelihood >= likelihood.max() - chi2.ppf(_CONFIDENCE, 2) / 2
    # At delta = -margin the flip rate is at least the margin: it stands for the lower ones.
    possible = rates >= margin
    allowed[:, int(np.argmax(possible))] |= allowed[:, ~possible].any(axis=1)
    worse, better = float(totals.worse.sum()), float(totals.better.sum())
    worst = max(
        (
            _tail(worse, better, clusters, rates[row & possible], correlation, margin, inferior=inferior)
            for row, correlation in zip(allowed, _CORRELATIONS, strict=True)
            if (row & possible).any()
        ),
        default=0.0,
    )
    return min(1.0, worst)


def _log_likelihood(flips: Floats, documents: Floats, rates: Floats, correlation: float) -> Floats:
    """Of the flips of each cluster, less what doesn't depend on rate and correlation, shape of ``rates``."""
    expected = rates[:, None] * documents
    if correlation == 0:
        return np.asarray((flips * np.log(expected) - expected).sum(axis=1))
    concentration = (1 - correlation) / correlation
    scale, shape = documents / concentration, concentration * rates[:, None]
    terms = (
        gammaln(flips + shape)
        - gammaln(shape)
        + flips * np.log(scale / (1 + scale))
        - shape * np.log1p(scale)
    )
    return np.asarray(terms.sum(axis=1))


def _tail(
    worse: float,
    better: float,
    clusters: Sizes,
    rates: Floats,
    correlation: float,
    margin: float,
    *,
    inferior: bool,
) -> float:
    """The greatest over ``rates`` of the probability of an outcome at least as extreme."""
    n = float((clusters.documents * clusters.number).sum())
    totals = _distributions(clusters, np.concatenate([rates + margin, rates - margin]) / 2, correlation)
    of_worse, of_better = totals[: rates.size], totals[rates.size :]
    counts = np.arange(totals.shape[1])
    observed = float(score_at_loss(worse, better, n, margin))
    threshold = observed + _TIE if inferior else observed - _TIE
    inside, outside = np.full(counts.shape, -1), np.full(counts.shape, counts.size)
    while np.any(outside - inside > 1):
        middle = (inside + outside) // 2
        above = score_at_loss(middle, counts, n, margin) > threshold
        inside, outside = np.where(above, middle, inside), np.where(above, outside, middle)
    below = np.where(inside < 0, 0.0, np.cumsum(of_worse, axis=1)[:, np.maximum(inside, 0)])
    tails = (of_better * (1 - below if inferior else below)).sum(axis=1)
    return float(tails.max())


def _distributions(clusters: Sizes, rates: Floats, correlation: float) -> Floats:
    """Probabilities of the totals 0, 1, 2 … of documents that flip one way, a row for each rate.

    The transform of a sum of negative binomials is known; it is inverted numerically.
    """
    n = float((clusters.documents * clusters.number).sum())
    scale = clusters.documents * correlation / (1 - correlation)
    mean = float(rates.max()) * n
    variance = float(rates.max()) * float((clusters.number * clusters.documents * (1 + scale)).sum())
    length = fft.next_fast_len(int(mean + 9 * np.sqrt(variance) + 15 * float(scale.max()) + 60), real=True)
    step = 1 - np.exp(-2j * np.pi * np.arange(length // 2 + 1) / length)
    if correlation == 0:
        exponent = -n * step
    else:
        concentration = (1 - correlation) / correlation
        exponent = -concentration * (clusters.number[:, None] * np.log1p(scale[:, None] * step)).sum(axis=0)
    density = fft.irfft(np.exp(rates[:, None] * exponent), n=length, axis=1)
    return np.asarray(np.maximum(density, 0.0))
