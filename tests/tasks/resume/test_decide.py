"""What is decided of a run, from histories that are written down: no bundle is read, no engine started."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from quantgate.bundles.history import RunHistory
from quantgate.bundles.identity import comparison_id, may_continue, run_fingerprint
from quantgate.bundles.manifest import Manifest
from quantgate.model.enums import Outcome, Verdict
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.records import BaselineRef, RunPlan, TaskVerdict, UseVerdict
from tasks.resume.chains import Evidence, Scores
from tasks.resume.decision import (
    AddLoad,
    Continue,
    Decision,
    Measure,
    Refuse,
    Reuse,
    decide_all,
    decide_candidate,
)
from tasks.resume.second_try import Unfinished
from tests.support.demo_bundles import manifests

BF16, FP8, _ = manifests()
LOOKS = FP8.policy.model_copy(update={"looks": (0.2, 0.4)})
AVAILABLE = 1000


class Known(Evidence):
    """Evidence that is written down: a verdict for each run, the same scores of every baseline."""

    def __init__(self, runs: Sequence[Manifest], verdicts: dict[str, str]) -> None:
        super().__init__(RunHistory(runs), None)  # type: ignore[arg-type]
        self.known = verdicts

    def verdicts(self, run: Manifest) -> list[UseVerdict]:
        verdict = self.known.get(run.run_id)
        if verdict == "damaged":
            raise RunError("a bundle is damaged")
        left = tuple(TaskVerdict.model_construct(task=t.task, outcome=Outcome.UNDECIDED) for t in run.tasks)
        return (
            [
                UseVerdict.model_construct(
                    use="all", verdict=Verdict(verdict), tasks=left, reason="too few documents"
                )
            ]
            if verdict
            else []
        )

    def judged_against(self, run: Manifest) -> Scores:
        return {task.task: {("x",)} for task in run.tasks}

    def baseline_of(self, run: Manifest) -> Manifest:
        return BF16

    def samples(self, run: Manifest) -> Any:
        raise RunError("nothing is read")


def planned(of: Manifest = FP8, *, looks: bool = True, limit: int | None = None, **inputs: Any) -> RunPlan:
    """A plan of what a manifest measured."""
    assert of.suite is not None
    assert of.inputs.suite is not None
    suite = of.suite.model_copy(update={"limit": limit})
    given = {name: getattr(of, name) for name in RunPlan.model_fields if name != "contents"}
    changed = of.inputs.model_copy(update={"suite": of.inputs.suite | {"limit": limit}} | inputs)
    policy = LOOKS if looks else of.policy
    return RunPlan.model_validate(given | {"suite": suite, "inputs": changed, "policy": policy})


def measured(
    plan: RunPlan, run_id: str, order: int, documents: int, continues: str | None = None
) -> Manifest:
    """A bundle of a plan, with so many documents of each task."""
    tasks = tuple(
        task.model_copy(update={"documents": documents, "documents_available": AVAILABLE})
        for task in FP8.tasks
    )
    return FP8.model_copy(
        update=dict(plan)
        | {
            "run_id": run_id,
            "fingerprint": run_fingerprint(plan.inputs),
            "declared_order": order,
            "tasks": tasks,
            "continues": continues,
            "baseline": BaselineRef(name="b", revision="b", run_id="baseline"),
        }
    )


SMALL = measured(planned(limit=100), "small", 1, 100)
ELSEWHERE = measured(planned(limit=100, device_name="another CPU"), "elsewhere", 1, 100)
OTHER_LOAD = measured(planned(limit=100, workload={"name": "other"}), "other-load", 1, 100)
WHOLE = measured(planned(), "whole", 2, AVAILABLE)
CHECK = measured(planned(), "check", 3, AVAILABLE)
BEGUN = Unfinished(run_fingerprint(planned().inputs), "own", begun=True)
LOOKED = Unfinished(
    "other", "looked", True, comparison_id(planned()), frozenset({FP8.tasks[0].task}), None, 50
)

KILLED = LOOKED._replace(fingerprint=run_fingerprint(planned().inputs), declared_order=4)

OPEN, DONE = "INCONCLUSIVE", "VALIDATED"
ROWS: list[tuple[str, list[Manifest], dict[str, str], dict[str, Any], type[Decision], str | None]] = [
    ("nothing was measured", [], {}, {}, Measure, None),
    ("it is measured and unchanged", [WHOLE], {"whole": DONE}, {}, Reuse, "whole"),
    ("the question is open", [SMALL], {"small": OPEN}, {}, Continue, "small"),
    ("it is open under another load", [OTHER_LOAD], {"other-load": OPEN}, {}, Continue, "other-load"),
    ("the question is decided", [SMALL], {"small": DONE}, {}, Reuse, "small"),
    ("it is decided under another load", [OTHER_LOAD], {"other-load": DONE}, {}, AddLoad, "other-load"),
    ("it is open elsewhere", [ELSEWHERE], {"elsewhere": OPEN}, {}, Refuse, None),
    ("it is decided elsewhere", [ELSEWHERE], {"elsewhere": DONE}, {}, Measure, None),
    ("nobody could judge it", [SMALL], {}, {}, Measure, None),
    ("its bundle is damaged", [SMALL], {"small": "damaged"}, {}, Measure, None),
    (
        "a check lies beside an open chain",
        [SMALL, CHECK],
        {"small": OPEN, "check": OPEN},
        {},
        Continue,
        "small",
    ),
    ("a check lies beside a decided one", [SMALL, CHECK], {"small": DONE, "check": OPEN}, {}, Reuse, "check"),
    ("the chain is damaged beside it", [SMALL, CHECK], {"small": "damaged"}, {}, Reuse, "check"),
    ("an earlier run has more documents", [WHOLE], {"whole": OPEN}, {"limit": 50}, Reuse, "whole"),
    ("fresh: nothing newer", [WHOLE], {"whole": DONE}, {"fresh_after": 2}, Measure, None),
    ("fresh: measured since", [WHOLE], {"whole": DONE}, {"fresh_after": 1}, Reuse, "whole"),
    ("fresh: an open question is not continued", [SMALL], {"small": OPEN}, {"fresh_after": 1}, Measure, None),
    ("begun: it goes on", [SMALL], {"small": OPEN}, {"unfinished": [BEGUN]}, Continue, "small"),
    ("begun: it is completed", [SMALL], {"small": DONE}, {"unfinished": [BEGUN]}, AddLoad, "small"),
    ("an unfinished run had interim looks", [], {}, {"unfinished": [LOOKED]}, Refuse, None),
    ("fresh: it was killed after a look", [], {}, {"unfinished": [KILLED], "fresh_after": 3}, Measure, None),
    ("fresh: it would begin anew", [], {}, {"unfinished": [KILLED], "fresh_after": 4}, Refuse, None),
    ("it is a check of a finished one", [SMALL], {"small": DONE}, {"unfinished": [LOOKED]}, Reuse, "small"),
    ("without looks: nothing is continued", [SMALL], {"small": OPEN}, {"looks": False}, Measure, None),
]


@pytest.mark.parametrize(
    ("runs", "verdicts", "how", "expected", "run_id"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS]
)
def test_what_a_candidate_has_to_do(
    runs: list[Manifest], verdicts: dict[str, str], how: dict[str, Any], expected: type, run_id: str | None
) -> None:
    plan = planned(limit=how.get("limit"), looks=how.get("looks", True))
    decision = decide_candidate(
        plan, Known(runs, verdicts), how.get("unfinished", ()), fresh_after=how.get("fresh_after")
    )
    assert isinstance(decision, expected), decision
    assert run_id is None or (not isinstance(decision, Measure | Refuse) and decision.run.run_id == run_id)


RUNS = (SMALL, ELSEWHERE, OTHER_LOAD, WHOLE, CHECK)


@pytest.mark.parametrize("looks", [True, False])
@pytest.mark.parametrize("limit", [None, 50, 100])
def test_of_every_history_what_is_decided_keeps_alpha(looks: bool, limit: int | None) -> None:
    """Every subset of runs, every verdict of each, begun or not, fresh or not."""
    plan = planned(limit=limit, looks=looks)
    own = Unfinished(run_fingerprint(plan.inputs), "own", begun=True)
    for size in range(3):
        for runs in itertools.combinations(RUNS, size):
            for given in itertools.product((OPEN, DONE, None), repeat=size):
                verdicts = {run.run_id: verdict for run, verdict in zip(runs, given, strict=True) if verdict}
                for begun, fresh_after in itertools.product((False, True), (None, 0, 5)):
                    evidence = Known(runs, verdicts)
                    decision = decide_candidate(plan, evidence, [own] * begun, fresh_after=fresh_after)
                    _keeps_alpha(plan, decision, runs, verdicts, fresh_after)


def _keeps_alpha(
    plan: RunPlan,
    decision: Decision,
    runs: Sequence[Manifest],
    verdicts: dict[str, str],
    fresh_after: int | None,
) -> None:
    if not runs:
        assert isinstance(decision, Measure)
    if isinstance(decision, Continue | AddLoad):
        assert fresh_after is None, "measured anew means asked anew"
        assert plan.policy.looks, "without interim looks the first run has spent its alpha"
        assert may_continue(plan, decision.run), "answers of another setting don't join"
    if isinstance(decision, Continue):
        assert verdicts[decision.run.run_id] == OPEN, "what is decided is not drawn again"
    if isinstance(decision, Reuse):
        assert decision.run in runs
        assert fresh_after is None or decision.run.declared_order > fresh_after
    if isinstance(decision, Refuse):
        assert plan.policy.looks
        assert ELSEWHERE in runs


def test_where_every_candidate_is_refused_nothing_is_measured() -> None:
    evidence = Known([ELSEWHERE], {"elsewhere": OPEN})
    with pytest.raises(ConfigError, match="run elsewhere has begun to answer this question"):
        decide_all([planned(BF16), planned()], evidence)


def test_a_baseline_that_no_candidate_asks_for_anything_is_not_measured() -> None:
    against = BaselineRef(name="b", revision="b", run_id="reference")
    reference = measured(planned(BF16, limit=100), "reference", 1, 100).model_copy(
        update={"baseline": None, "checkpoint": BF16.checkpoint}
    )
    decided = SMALL.model_copy(update={"baseline": against, "declared_order": 2})
    evidence = Known([reference, decided], {"small": DONE})
    baseline, candidate = decide_all([planned(BF16), planned()], evidence).values()
    assert isinstance(candidate, Reuse)
    assert isinstance(baseline, Reuse)
    assert baseline.run == reference
    assert "its candidates ask for no more than run reference has answered" in baseline.lines[0]
