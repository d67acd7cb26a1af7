"""Chains of runs: which verdict stands for each use, which chain decides it, and whether it can go on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest

from quantgate.bundles.history import RunHistory
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.store import BundleStore
from quantgate.model.enums import Outcome, Validity, Verdict
from quantgate.model.records import RunPlan, TaskVerdict, UseVerdict
from tasks.resume import chains
from tests.support.demo_bundles import manifests

_, FP8, _ = manifests()
TASK = FP8.tasks[0].task


class Store:
    """Bundles that hold nothing."""

    def is_bundle(self, run_id: str) -> bool:
        return run_id != "gone"

    def read_manifest(self, _: str) -> Manifest:
        return FP8

    def read_table(self, *_: object) -> None:
        return None


def run(run_id: str, number: int, continues: str | None = None, documents: int = 60, **more: Any) -> Manifest:
    """A run that began after so many hours."""
    tasks = [one.model_copy(update={"documents": documents, "documents_available": 300}) for one in FP8.tasks]
    changes = {
        "run_id": run_id,
        "continues": continues,
        "tasks": tuple(tasks),
        "started_at": FP8.started_at + timedelta(hours=number),
    }
    return FP8.model_copy(update=changes | more)


def planned(limit: int | None = None) -> RunPlan:
    given = FP8.model_dump(include=set(RunPlan.model_fields))
    plan = RunPlan.model_validate(given)
    assert plan.suite is not None
    return plan.model_copy(update={"suite": plan.suite.model_copy(update={"limit": limit})})


def use_verdict(use: str, verdict: str) -> UseVerdict:
    left = TaskVerdict.model_construct(task=TASK, outcome=Outcome.UNDECIDED)
    tasks = (left,) if verdict == "INCONCLUSIVE" else ()
    return UseVerdict.model_construct(use=use, verdict=Verdict(verdict), tasks=tasks, reason="")


def deciding(
    monkeypatch: pytest.MonkeyPatch, verdicts: dict[str, dict[str, str]], *runs: Manifest
) -> list[chains.Chain]:
    def judge_runs(_: Manifest, __: None, candidate: Manifest, ___: None) -> list[UseVerdict]:
        return [use_verdict(use, verdict) for use, verdict in verdicts[candidate.run_id].items()]

    monkeypatch.setattr(chains, "judge_runs", judge_runs)
    return list(chains.deciding_chains(runs, chains.Evidence(RunHistory(runs), cast("BundleStore", Store()))))


def stood(chain: chains.Chain) -> dict[str, tuple[str, str]]:
    return {use: (run_id, str(verdict.verdict)) for use, (run_id, verdict) in chain.standing.items()}


def test_a_use_keeps_its_first_decision_and_the_chain_goes_on_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = run("first", 0), run("second", 1, "first", 120)
    verdicts = {
        "first": {"all": "REJECTED", "math": "INCONCLUSIVE"},
        "second": {"all": "INCONCLUSIVE", "math": "INCONCLUSIVE"},
    }
    (chain,) = deciding(monkeypatch, verdicts, first, second)
    assert chain.tip == second
    assert stood(chain) == {"all": ("first", "REJECTED"), "math": ("second", "INCONCLUSIVE")}
    assert chain.is_open(planned())
    assert not chain.is_open(planned(120)), "no document is left"
    verdicts["second"]["math"] = "VALIDATED"
    (chain,) = deciding(monkeypatch, verdicts, first, second)
    assert not chain.is_open(planned()), "all is decided"


@pytest.mark.parametrize(("answered", "is_open"), [(300, False), (200, True), (60, True)])
def test_an_insensitive_task_goes_on_only_where_the_baseline_can_answer_more(
    monkeypatch: pytest.MonkeyPatch, answered: int, is_open: bool
) -> None:
    left = TaskVerdict.model_construct(
        task=TASK, outcome=Outcome.INSENSITIVE, baseline_documents=answered, insensitive="why"
    )
    verdict = use_verdict("all", "INCONCLUSIVE").model_copy(update={"tasks": (left,)})
    monkeypatch.setattr(chains, "judge_runs", lambda *_: [verdict])
    runs = [run("first", 0)]
    evidence = chains.Evidence(RunHistory(runs), cast("BundleStore", Store()))
    (chain,) = chains.deciding_chains(runs, evidence)
    assert chain.is_open(planned()) is is_open
    assert not chain.is_open(planned(60)), "no document is left"


def test_the_chain_that_began_first_decides_and_a_use_that_it_cannot_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, check = run("first", 0), run("check", 1)
    verdicts = {
        "first": {"all": "NOT_COMPARABLE", "math": "INCONCLUSIVE"},
        "check": {"all": "VALIDATED", "math": "VALIDATED"},
    }
    one, other = deciding(monkeypatch, verdicts, check, first)
    assert stood(one) == {"math": ("first", "INCONCLUSIVE")}
    assert one.is_open(planned())
    assert stood(other) == {"all": ("check", "VALIDATED")}


def test_a_chain_whose_last_run_cannot_be_compared_does_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = {"first": {"all": "INCONCLUSIVE"}, "second": {"all": "NOT_COMPARABLE"}}
    (chain,) = deciding(monkeypatch, verdicts, run("first", 0), run("second", 1, "first", 120))
    assert stood(chain) == {"all": ("first", "INCONCLUSIVE")}
    assert not chain.is_open(planned())


def test_uses_that_these_tasks_cannot_decide_and_runs_that_do_not_count_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uses = {"all": (), "code": ("code",)}
    policy = FP8.policy.model_copy(update={"uses": uses})
    verdicts = {"first": {"all": "INCONCLUSIVE", "code": "INCONCLUSIVE"}}
    (chain,) = deciding(monkeypatch, verdicts, run("first", 0, policy=policy))
    assert stood(chain).keys() == {"all"}
    assert deciding(monkeypatch, verdicts, run("first", 0, validity=Validity.QUARANTINED)) == []
    assert FP8.baseline is not None
    gone = FP8.baseline.model_copy(update={"run_id": "gone"})
    assert deciding(monkeypatch, verdicts, run("first", 0, baseline=gone)) == []


@pytest.mark.parametrize(
    ("first", "second", "stands", "is_open"),
    [
        ("VALIDATED", "INCONCLUSIVE", ("first", "VALIDATED"), False),
        ("REJECTED", "VALIDATED", ("first", "REJECTED"), False),
        ("INCONCLUSIVE", "REJECTED", ("second", "REJECTED"), False),
        ("INCONCLUSIVE", "INCONCLUSIVE", ("first", "INCONCLUSIVE"), True),
    ],
)
def test_of_two_hosts_that_continue_one_run_the_first_decision_stands(
    monkeypatch: pytest.MonkeyPatch, first: str, second: str, stands: tuple[str, str], is_open: bool
) -> None:
    """The view `verdicts` says the same: tests/quantgate/bundles/test_order.py."""
    runs = [run("root", 0), run("second", 2, "root", 120), run("first", 1, "root", 120)]
    verdicts = {"root": {"all": "INCONCLUSIVE"}, "first": {"all": first}, "second": {"all": second}}
    (chain,) = deciding(monkeypatch, verdicts, *runs)
    assert stood(chain) == {"all": stands}
    assert chain.tip.run_id == "first"
    assert chain.is_open(planned()) is is_open
