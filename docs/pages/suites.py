"""docs/suites.md: the suites of configs/suites, and which margins their tasks can decide.

``python -m docs.pages.suites`` writes it from ``configs/`` alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from docs.pages.page import fill
from quantgate.judge.power import (
    ASSUMED_FLIP_RATE,
    documents_needed,
    least_clusters,
    least_without_flips,
    resolvable_points,
    shown_points,
)
from quantgate.judge.stats.clustered import clusters_needed
from quantgate.model.config.policy import Policy, load_policy
from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.enums import Family
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import load_yaml
from warehouse.report.render import NULL

PAGE = ROOT / "docs" / "suites.md"
POLICY = "standard"
LOCAL = "demo"
"""The demo's suite, which docs/verdicts.md explains."""


def suites_page(suites: Sequence[Suite], policy: Policy) -> str:
    """Return the page as Markdown.

    Args:
        suites: in the order of their sections.
        policy: decides the margins.
    """
    return fill(
        "suites",
        name=POLICY,
        policy=policy,
        flips_percent=100 * ASSUMED_FLIP_RATE,
        clusters={
            "one_point": clusters_needed(0.01, policy.alpha),
            "two_points": clusters_needed(0.02, policy.alpha),
        },
        own=_own(policy),
        suites=suites,
        cells=_cells,
    )


def _own(policy: Policy) -> dict[str, str]:
    """Return how many questions a file of one's own takes: if no answer changes, and at the usual flip rate."""
    rule = policy.families[Family.CUSTOM]
    usual = documents_needed(ASSUMED_FLIP_RATE, rule.margin, policy.alpha, policy.planned_power)
    least = least_without_flips(rule.margin, policy, rule.min_documents)
    return {"points": f"{100 * rule.margin:g}", "least": f"{least:,}", "usual": f"{usual:,}"}


def _cells(task: SuiteTask, policy: Policy) -> list[str]:
    rule = policy.families[task.family]
    margin = rule.margin
    name = [f"`{task.task}`", str(task.family)]
    if task.documents is None:
        return [*name, NULL, NULL, NULL, f"{100 * margin:g}", ""]
    best = resolvable_points(task.documents, ASSUMED_FLIP_RATE, policy.alpha, policy.planned_power)
    can_at_all = task.documents >= least_without_flips(margin, policy, rule.min_documents)
    limits = [] if best <= 100 * margin else ["may be too few" if can_at_all else "cannot decide"]
    too_few = task.clusters is not None and task.clusters < least_clusters(margin, policy)
    if too_few and not task.fixed_subjects:
        limits.append("too few subjects to validate")
    subjects = NULL if task.clusters is None else f"{task.clusters}{', fixed' * task.fixed_subjects}"
    figures = [f"{task.documents:,}", subjects, shown_points(best, margin), f"{100 * margin:g}"]
    return [*name, *figures, "; ".join(limits)]


def listed_suites() -> list[Suite]:
    """Return the suites of configs/suites by name, without the demo's."""
    paths = sorted((ROOT / "configs" / "suites").glob("*.yaml"))
    return [load_yaml(path, Suite) for path in paths if path.stem != LOCAL]


if __name__ == "__main__":
    PAGE.write_text(suites_page(listed_suites(), load_policy(POLICY)), encoding="utf-8")
