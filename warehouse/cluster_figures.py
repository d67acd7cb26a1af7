"""The figures of a task whose documents share subjects or passages: what a document-wise test alone can't vouch for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quantgate.model.config import Policy
from quantgate.model.records import TaskVerdict
from warehouse.cluster_test import (
    cluster_interval,
    cluster_totals,
    p_degraded_clusters,
    p_inferior_clusters,
    p_noninferior_clusters,
)
from warehouse.tango import Floats


def with_clusters(
    task: TaskVerdict, differences: Floats, clusters: NDArray[np.int64], policy: Policy
) -> TaskVerdict:
    """A task's figures with its clusters: of every p-value the greater, of both intervals the wider ends.

    Args:
        task: the figures as of independent documents.
        differences: candidate - baseline per document, shape (n,), fractions.
        clusters: each document's cluster, numbered from 0, shape (n,); some hold several documents.
        policy: holds the error rate.

    Returns:
        The figures; ``test`` is 'cluster' where the clusters' p-value of non-inferiority is the greater.
    """
    totals = cluster_totals(differences, clusters)
    found = {"clusters": totals.documents.size}
    if totals.documents.size < 2:
        return task.model_copy(
            update=found | {"ci_low": -1.0, "ci_high": 1.0, "degraded": False} | dict.fromkeys(_P_VALUES, 1.0)
        )
    noninferior = p_noninferior_clusters(totals, task.margin)
    inferior = max(task.p_inferior, p_inferior_clusters(totals, task.margin))
    any_loss = max(task.p_degraded, p_degraded_clusters(totals))
    interval = cluster_interval(totals, policy.alpha)
    return task.model_copy(
        update={
            **found,
            "ci_low": min(task.ci_low, interval.low),
            "ci_high": max(task.ci_high, interval.high),
            "p_noninferior": max(task.p_noninferior, noninferior),
            "p_inferior": inferior,
            "p_inferior_holm": inferior,
            "p_degraded": any_loss,
            "degraded": any_loss <= policy.alpha,
            "test": "cluster" if noninferior > task.p_noninferior else task.test,
        }
    )


_P_VALUES = ("p_noninferior", "p_inferior", "p_inferior_holm", "p_degraded")


def too_few_clusters(task: TaskVerdict, policy: Policy) -> str | None:
    """Why nothing is decided on a task with fewer clusters than the policy asks for, and what to do; or None."""
    if task.clusters is None or task.clusters >= policy.min_clusters:
        return None
    return (
        f"its {task.pairs} documents fall into {task.clusters} subjects or passages, and the policy asks for at"
        f" least {policy.min_clusters} (min_clusters) before it says anything of new ones: name the subjects as"
        " tasks of their own, each with its verdict, or declare a policy with fewer before the next run"
    )
