"""Test whether a loss is within the margin where documents share subjects or passages, which err together.

New documents of the same kind come in clusters too, so the clusters, G of them, are the independent units. Cluster
g has n_g documents and the total D_g of their differences d = candidate - baseline. Two tests judge them, and the
greater p-value counts:

* The betting test (``stats.betting``) on the clusters, one after the other: under H0 (the mean of d is at most m) the
  stake k on D_g - m n_g, k < 1 / (N (1 + m)) with N the greatest n_g, isn't expected to grow. So a false validation has
  probability at most alpha whatever the documents of a cluster have in common, also where a rare kind of cluster breaks
  wholly, and of large ones only. That takes clusters: to rule out that a share s of them is lost takes
  log(alpha) / log(1 - s), 59 at 5 points and 299 at one, whatever the number of documents, and that many times N
  documents where they are unequal. It assumes that no cluster is larger than the largest one here.
* The usual robust test, whose interval compares with others' figures: sum(e_g) / sqrt(G / (G - 1) sum(e_g^2)) with
  e_g = D_g - m n_g, the variance of cluster totals with H0 imposed as in a score test and with the correction for few
  clusters of A. C. Cameron and D. L. Miller, "A practitioner's guide to cluster-robust inference", Journal of Human
  Resources 50 (2015) 317-372. It is compared with t of G* - 1 degrees, where G* = (sum n_g^2)^2 / sum n_g^4 is the
  effective number of clusters of unequal size, at its least: A. V. Carter, K. T. Schnepel and D. G. Steigerwald,
  "Asymptotic behavior of a t-test robust to cluster heterogeneity", Review of Economics and Statistics 99 (2017)
  698-709. Clustered errors for evaluations of language models: E. Miller, "Adding error bars to evals" (2024), arXiv
  2411.00640. By itself it guarantees nothing: where losses are rare and come together, most samples contain none.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from quantgate.judge.stats.betting import betting_interval, p_inferior_betting, p_noninferior_betting
from quantgate.judge.stats.tango import Floats, Interval


class ClusterTotals(NamedTuple):
    """Totals of a task's clusters, arrays of shape (G,), in a random order fixed in advance."""

    documents: Floats
    differences: Floats
    """Candidate - baseline, summed over the cluster's documents."""


def cluster_totals(differences: Floats, clusters: NDArray[np.int64]) -> ClusterTotals:
    """Sum the differences of each cluster.

    Args:
        differences: candidate - baseline per document, shape (n,), fractions.
        clusters: each document's cluster as a number from 0, shape (n,).
    """
    return ClusterTotals(
        np.bincount(clusters).astype(np.float64),
        np.bincount(clusters, weights=differences).astype(np.float64),
    )


def p_noninferior_clusters(totals: ClusterTotals, margin: float, alpha: float) -> float:
    """Return the p-value of H0: delta <= -margin, whatever documents of a cluster have in common.

    Args:
        totals: of two clusters at least.
        margin: the loss that would matter, a fraction above 0 and below 1.
        alpha: the error rate at which the stakes aim for power.
    """
    betting = p_noninferior_betting(totals.differences, margin, alpha, documents=totals.documents)
    return max(betting, p_robust(totals, -margin))


def p_inferior_clusters(totals: ClusterTotals, margin: float, alpha: float) -> float:
    """Return the p-value of H0: delta >= -margin; arguments as of ``p_noninferior_clusters``."""
    betting = p_inferior_betting(totals.differences, margin, alpha, documents=totals.documents)
    return max(betting, p_robust(_mirrored(totals), margin))


def p_degraded_clusters(totals: ClusterTotals) -> float:
    """Return the robust test's p-value of H0: delta >= 0; a small one shows some loss, however slight."""
    return p_robust(_mirrored(totals), 0.0)


def cluster_interval(totals: ClusterTotals, alpha: float) -> Interval:
    """Return the two-sided 1 - 2 alpha interval of delta: every value that one of the two tests does not reject."""
    betting = betting_interval(totals.differences, alpha, documents=totals.documents)
    robust = robust_interval(totals, alpha)
    return Interval(min(betting.low, robust.low), max(betting.high, robust.high))


def clusters_needed(margin: float, alpha: float) -> int:
    """Return the number of equal clusters below which a candidate without any difference is not validated.

    Where a share ``margin`` of clusters is lost, G of them are all spared with probability (1 - margin)^G, so a method
    that errs with probability alpha validates such a candidate with probability at most alpha / (1 - margin)^G. With
    5 % more the betting test does. Where clusters are unequal it takes about this many times the documents of the
    largest; a candidate that gains may take fewer.

    Args:
        margin: the loss that would matter, a fraction above 0 and below 1.
        alpha: the error rate.
    """
    return math.ceil(math.log(alpha) / math.log1p(-margin))


def effective_clusters(documents: Floats) -> float:
    """Return Carter, Schnepel and Steigerwald's G* at its least, where documents of a cluster are wholly alike."""
    squares = documents**2
    return float(squares.sum() ** 2 / (squares**2).sum())


def p_robust(totals: ClusterTotals, mean: float) -> float:
    """Return the one-sided p-value of H0: delta <= ``mean`` from the variance of the clusters' totals."""
    excess = totals.differences - mean * totals.documents
    if not excess.any():
        return 1.0
    return float(student.sf(score(excess), _degrees(totals)))


def score(excess: Floats) -> float:
    """Return the sum of the clusters' totals over its standard error, H0 imposed."""
    groups = excess.size
    return float(excess.sum()) / float(np.sqrt(groups / (groups - 1) * (excess**2).sum()))


def robust_interval(totals: ClusterTotals, alpha: float) -> Interval:
    """Return the two-sided 1 - 2 alpha interval of delta: every value that the score test does not reject.

    The statistic's square against t^2 is a quadratic in delta. Where t is so great that it rejects nothing on a
    side, that side ends at -1 or 1.
    """
    documents, differences = totals
    groups = documents.size
    weight = float(student.isf(alpha, _degrees(totals))) ** 2 * groups / (groups - 1)
    square = documents.sum() ** 2 - weight * (documents**2).sum()
    middle = differences.sum() * documents.sum() - weight * (differences * documents).sum()
    constant = differences.sum() ** 2 - weight * (differences**2).sum()
    if square <= 0:
        return Interval(-1.0, 1.0)
    root = float(np.sqrt(max(middle**2 - square * constant, 0.0)))
    return Interval(max(-1.0, (middle - root) / square), min(1.0, (middle + root) / square))


def _mirrored(totals: ClusterTotals) -> ClusterTotals:
    """Exchange candidate and baseline."""
    return totals._replace(differences=-totals.differences)


def _degrees(totals: ClusterTotals) -> float:
    return max(1.0, effective_clusters(totals.documents) - 1)
