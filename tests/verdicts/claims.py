"""Check the claims about damaged checkpoints, on new or recorded measurements."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pyarrow as pa

from demo.damage import BROKEN_TEMPLATES, DAMAGES, STRENGTHS
from quantgate.judge.judge import judge
from quantgate.model.config.policy import load_policy
from quantgate.model.enums import Family, Verdict
from quantgate.model.records import UseVerdict
from tests.support.sample_rows import policy_of
from tests.verdicts.scores import deltas, tasks_of

BASELINE = "baseline"
POLICY = load_policy("demo")
MARGIN = 0.02
OF_WEIGHTS = tuple(name for name in DAMAGES if name not in BROKEN_TEMPLATES)
LOOSE = policy_of(dict.fromkeys(Family, (MARGIN, 1)))
"""The demo's margins and any number of documents."""
SCALED = tuple(f"scaled-{factor:g}" for factor in STRENGTHS)


def check_that_it_is_damage(baseline: pa.Table, candidate: pa.Table, name: str) -> None:
    """On the full set it costs twice the margin at least, on some task."""
    full = deltas(baseline, candidate)
    assert {len(baseline.filter(pa.compute.equal(baseline["task"], task))) for task in full} == {1000}
    assert min(full.values()) <= -2 * MARGIN, f"{name}: {full}"


def check_that_it_grows(runs: Mapping[str, pa.Table]) -> None:
    """The stronger the damage, the greater the loss, of the worst task and of all documents together."""
    found = [list(deltas(runs[BASELINE], runs[name]).values()) for name in SCALED]
    for weaker, stronger in itertools.pairwise(found):
        assert min(stronger) < min(weaker), found
        assert sum(stronger) < sum(weaker), found


def judged(baseline: pa.Table, candidate: pa.Table) -> dict[str, UseVerdict]:
    """The shipped judge's verdicts under the demo's policy, by use."""
    declared = tasks_of(baseline)
    return {one.use: one for one in judge(baseline, candidate, "demo", POLICY, declared)}


def check_that_it_is_not_validated(
    verdicts: Mapping[str, Verdict], full: Mapping[str, float], name: str
) -> None:
    """Neither for `all` nor for a use whose task lost twice the margin."""
    assert verdicts["all"] is not Verdict.VALIDATED, name
    use_of = {"qg_demo_cloze": "conversation", "qg_demo_chat": "conversation"}
    use_of |= {"qg_demo_arithmetic": "math", "qg_demo_chain": "reasoning"}
    for task, delta in full.items():
        if delta <= -2 * MARGIN:
            assert verdicts[use_of[task]] is not Verdict.VALIDATED, f"{name}: {task} lost {-delta:.1%}"
