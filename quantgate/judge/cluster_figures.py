"""The figures of a task whose documents share subjects or passages: what a document-wise test can't vouch for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantgate.judge.stats.clustered import (
    cluster_interval,
    cluster_totals,
    clusters_needed,
    p_degraded_clusters,
    p_inferior_clusters,
    p_noninferior_clusters,
)
from quantgate.judge.stats.tango import Floats
from quantgate.model.config.policy import Policy
from quantgate.model.enums import TestKind
from quantgate.model.records import TaskVerdict

FIXED = "; a suite's `fixed_subjects: true`, declared before the next run, asks about these very subjects"
"""What to do where a task has few subjects, after a reason."""

_P_VALUES = ("p_noninferior", "p_inferior", "p_inferior_holm", "p_degraded")


def with_clusters(
    task: TaskVerdict, differences: Floats, clusters: NDArray[np.int64], policy: Policy
) -> TaskVerdict:
    """A task's figures with its clusters in place of its documents; ``test`` is 'cluster'.

    Args:
        task: the figures as of independent documents.
        differences: candidate - baseline per document, shape (n,), fractions.
        clusters: each document's cluster, numbered from 0, shape (n,); some hold several documents.
        policy: holds the error rate.

    Returns:
        The figures with p-values and interval replaced; with one cluster nothing is decided.
    """
    totals = cluster_totals(differences, clusters)
    found = {
        "clusters": totals.documents.size,
        "largest_cluster": int(totals.documents.max()),
        "test": TestKind.CLUSTER,
    }
    if totals.documents.size < 2:
        return task.model_copy(
            update=found | {"ci_low": -1.0, "ci_high": 1.0, "degraded": False} | dict.fromkeys(_P_VALUES, 1.0)
        )
    at = totals, task.margin, policy.alpha
    inferior = p_inferior_clusters(*at)
    any_loss = max(task.p_degraded, p_degraded_clusters(totals))
    interval = cluster_interval(totals, policy.alpha)
    return task.model_copy(
        update={
            **found,
            "ci_low": interval.low,
            "ci_high": interval.high,
            "p_noninferior": p_noninferior_clusters(*at),
            "p_inferior": inferior,
            "p_inferior_holm": inferior,
            "p_degraded": any_loss,
            "degraded": any_loss <= policy.alpha,
        }
    )


def too_few_clusters(task: TaskVerdict, policy: Policy) -> str | None:
    """Why nothing is decided on a task with fewer clusters than the policy asks for, and what to do; or None."""
    if task.clusters is None or task.clusters >= policy.min_clusters:
        return None
    return (
        f"its {task.pairs} documents fall into {task.clusters} subjects or passages, and the policy asks for at"
        f" least {policy.min_clusters} (min_clusters) before it says anything of new ones{FIXED}"
    )


def clusters_wanting(task: TaskVerdict, policy: Policy) -> str:
    """That a task can't pass with such clusters, what it takes and what to do; empty where it can."""
    if task.largest_cluster is None or task.pairs >= (least := documents_wanting(task, policy)):
        return ""
    of = f"{task.clusters} subjects or passages, the largest of {task.largest_cluster} documents,"
    return f"; {of} can't show it of new ones without a gain, which takes at least {least} documents in such{FIXED}"


def documents_wanting(task: TaskVerdict, policy: Policy) -> int:
    """Documents below which no task of such clusters passes unless it gains; 0 where documents share none."""
    return (task.largest_cluster or 0) * least_clusters(task.margin, policy)


def least_clusters(margin: float, policy: Policy) -> int:
    """Equal clusters below which a policy passes no task unless it gains.

    Args:
        margin: the loss that would matter, a fraction.
        policy: its error rate and its least number of clusters.
    """
    return max(policy.min_clusters, clusters_needed(margin, policy.alpha))
