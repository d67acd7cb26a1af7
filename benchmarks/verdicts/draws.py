"""Simulate candidates that the shipped judge follows from look to look."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.verdicts.cells import STEP, Rule, outcome_of
from quantgate.bundles.manifest import TaskResult
from quantgate.judge.pairing import Pairs
from quantgate.judge.stats.tango import score_at_loss
from quantgate.judge.task_verdict import decide_interim, figures_of
from quantgate.model.config.policy import FamilyPolicy, Policy
from quantgate.model.enums import Family, Outcome
from quantgate.model.records import TaskVerdict


def drawn(fixed: Rule, sequential: Rule, flip_rate: float, draws: int, seed: int) -> dict[str, Any]:
    """Judge candidates at the margin and at delta 0 by the shipped judge, at each look until it decides.

    Args:
        fixed: the fixed test's decisions, by the sums.
        sequential: the sequential test's decisions, by the sums.
        flip_rate: a fraction.
        draws: candidates of each delta.
        seed: of the random numbers.

    Returns:
        Shares validated with their Monte-Carlo standard error, beside the sums' probabilities; the number of
        candidates whose decision differs from the sums' (``disagree``).
    """
    design = sequential.design
    row: dict[str, Any] = {
        "n": design.looks[-1],
        "margin": design.margin,
        "flip_rate": flip_rate,
        "draws": draws,
    }
    row["disagree"] = 0
    for name, delta in (("false", -design.margin), ("power", 0.0)):
        generator = np.random.default_rng([seed, design.looks[-1], round(1e6 * delta) + 10**7])
        chances = ((flip_rate - delta) / 2, (flip_rate + delta) / 2)
        for kind, rule in (("fixed", fixed), ("sequential", sequential)):
            ends = [_follow(rule, _candidate(generator, chances, design.looks[-1])) for _ in range(draws)]
            tasks = [task for task, _ in ends]
            share = float(np.mean([task.outcome is Outcome.PASS for task in tasks]))
            row[f"{kind}_{name}"] = share
            row[f"{kind}_{name}_error"] = float(np.sqrt(max(share * (1 - share), 1e-9) / draws))
            row[f"{kind}_{name}_expected"] = outcome_of(rule, flip_rate, delta).decided
            row[f"{kind}_{name}_covered"] = float(
                np.mean([task.ci_low <= delta <= task.ci_high for task in tasks])
            )
            row[f"{kind}_{name}_bias"] = float(np.mean([task.quality_delta for task in tasks])) - delta
            row["disagree"] += sum(not agrees for _, agrees in ends)
            if name == "power":
                row[f"{kind}_degraded"] = float(np.mean([task.degraded for task in tasks]))
                row[f"{kind}_documents"] = float(np.mean([task.pairs for task in tasks]))
                row[f"{kind}_documents_p90"] = float(np.quantile([task.pairs for task in tasks], 0.9))
    return row


def _candidate(generator: np.random.Generator, chances: tuple[float, float], n: int) -> Pairs:
    """Draw right/wrong scores of a baseline and a candidate, documents in their order."""
    drawn = generator.random(n)
    worse, better = drawn < chances[0], (drawn >= chances[0]) & (drawn < sum(chances))
    baseline = worse | (~better & (generator.random(n) < 0.7))
    return Pairs(baseline.astype(np.float64), ((baseline & ~worse) | better).astype(np.float64))


def _follow(rule: Rule, pairs: Pairs) -> tuple[TaskVerdict, bool]:
    """Return the judge's last verdict on a candidate, and whether the sums agree at each look."""
    looks, margin = rule.design.looks, rule.design.margin
    policy = Policy(
        description="Of the simulation.",
        alpha=rule.design.alpha,
        planned_power=0.8,
        stale_after_days=90,
        families={Family.CUSTOM: FamilyPolicy(margin=margin, min_documents=1)},
        uses={"all": ()},
        looks=tuple(n / looks[-1] for n in looks[:-1]),
    )
    for look, n in enumerate(looks):
        first = Pairs(pairs.baseline[:n], pairs.candidate[:n])
        task = decide_interim(figures_of(_result(looks[: look + 1], looks[-1]), first, policy), policy, 1)
        statistic = float(score_at_loss(task.worse, task.better, n, margin))
        least = float(rule.least(look, np.array(task.worse), np.array(task.better)))
        # The table doesn't separate statistics that are nearer than a step.
        agrees = abs(statistic - least) <= STEP or (task.outcome is Outcome.PASS) == (statistic >= least)
        if task.outcome is not Outcome.UNDECIDED or not agrees:
            break
    return task, agrees


def _result(looks: tuple[int, ...], available: int) -> TaskResult:
    return TaskResult(
        task="simulated",
        family=Family.CUSTOM,
        metric="acc",
        filter="none",
        version="1",
        documents=looks[-1],
        mean_score=0.7,
        output_type="multiple_choice",
        duration_s=1.0,
        engine_start_id="start",
        documents_available=available,
        looks=looks,
    )
