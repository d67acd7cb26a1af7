"""Which verdict stands for a claim, whatever else was asked about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import duckdb
import pytest

from quantgate.bundles.claims import AskedTask, claim_key
from quantgate.bundles.store import BundleStore
from quantgate.model.config.policy import Policy
from quantgate.model.enums import Family
from tests.support.declared import declaration
from tests.support.sample_rows import policy_of
from tests.support.written_runs import BASELINE, FP8, POLICY, START, Spec, build_manifest
from warehouse import load
from warehouse.load import load_bundles
from warehouse.query import query
from warehouse.report.summary import summary_table

pytestmark = pytest.mark.usefixtures("begun")

FEW, MANY, SOME = range(0), range(1, 40), [11, 22, 33, 44, 55, 66]
"""Further documents that a candidate gets wrong: it is validated, rejected, inconclusive."""


def asked(name: str, wrong: Any, hour: int, **change: Any) -> list[Spec]:
    """A baseline's run and a candidate's of one task."""
    tasks = {name: Family.MATH}
    started = START + timedelta(hours=hour)
    baseline = replace(
        BASELINE, run_id=f"{hour:02}-base-{name}", tasks=tasks, points={}, started_at=started, **change
    )
    wrongs = {name: [number for number in wrong if number % 10]}
    return [
        baseline,
        replace(
            FP8,
            run_id=f"{hour:02}-{name}",
            baseline=baseline,
            tasks=tasks,
            wrong=wrongs,
            points={},
            started_at=started + timedelta(minutes=30),
            **change,
        ),
    ]


def standing(place: Any, *runs: list[Spec]) -> dict[str, tuple[str, str, int]]:
    """The own and the standing verdict of each candidate's run, and the tries, after a load of these runs."""
    place.write(*(spec for pair in runs for spec in pair))
    assert load_bundles(place.warehouse, place.bundles).problems == ()
    rows = query(
        place.warehouse,
        "SELECT run_id, verdict, standing, tries FROM verdicts WHERE use = 'all' AND verdict <> 'BASELINE'",
    ).to_pylist()
    table = query(
        place.warehouse,
        "SELECT run_id, verdict FROM validated_table WHERE use = 'all' AND verdict <> 'BASELINE'",
    ).to_pylist()
    assert {row["run_id"]: row["verdict"] for row in table} == {
        row["run_id"]: row["standing"] for row in rows
    }
    return {row["run_id"]: (row["verdict"], row["standing"], row["tries"]) for row in rows}


def test_the_first_question_alone_can_validate(place: Any) -> None:
    found = standing(place, asked("one", SOME, 1), asked("two", FEW, 2), asked("three", FEW, 3))
    assert found == {
        "01-one": ("INCONCLUSIVE", "INCONCLUSIVE", 3),
        "02-two": ("VALIDATED", "INCONCLUSIVE", 3),
        "03-three": ("VALIDATED", "INCONCLUSIVE", 3),
    }
    questions = query(
        place.warehouse,
        "SELECT run_id, question, state, verdict, standing, standing_run_id FROM questions WHERE use = 'all'",
    ).to_pylist()
    assert [(row["run_id"], row["question"], row["verdict"]) for row in questions] == [
        ("01-one", 1, "INCONCLUSIVE"),
        ("02-two", 2, "VALIDATED"),
        ("03-three", 3, "VALIDATED"),
    ]
    assert {row["state"] for row in questions} == {"decides"}
    assert {(row["standing"], row["standing_run_id"]) for row in questions} == {("INCONCLUSIVE", "01-one")}


@pytest.mark.parametrize(
    ("later", "stands"), [(FEW, "VALIDATED"), (SOME, "INCONCLUSIVE"), (MANY, "REJECTED")], ids=str
)
def test_every_later_question_must_pass(place: Any, later: Any, stands: str) -> None:
    found = standing(place, asked("one", FEW, 1), asked("two", later, 2))
    assert {row[1] for row in found.values()} == {stands}
    reason = query(
        place.warehouse,
        "SELECT DISTINCT standing_reason FROM verdicts WHERE use = 'all' AND verdict <> 'BASELINE'",
    ).to_pylist()
    assert len(reason) == 1
    assert (
        "a later question of the same claim is not passed (run 02-two)" in reason[0]["standing_reason"]
    ) == (stands == "INCONCLUSIVE")


def test_a_checkpoint_that_stands_rejected_is_never_returned_as_validated(place: Any) -> None:
    standing(place, asked("one", FEW, 1), asked("two", MANY, 2), asked("three", FEW, 3))
    sql = "SELECT * FROM validated_table WHERE verdict = 'VALIDATED' AND use = 'all'"
    assert query(place.warehouse, sql).num_rows == 0


def test_the_same_content_under_another_name_is_the_same_question(place: Any) -> None:
    first = asked("one", SOME, 1, contents={"one": "c"})
    renamed = asked("two", FEW, 2, contents={"two": "c"})
    found = standing(place, first, renamed)
    assert found["02-two"] == ("VALIDATED", "INCONCLUSIVE", 2), "a repeat decides nothing"
    states = query(place.warehouse, "SELECT run_id, state FROM questions WHERE use = 'all'").to_pylist()
    assert [(row["run_id"], row["state"]) for row in states] == [("01-one", "decides"), ("02-two", "repeat")]


def test_the_table_says_what_a_later_question_answered(place: Any) -> None:
    standing(place, asked("one", SOME, 1), asked("two", FEW, 2))
    lines = summary_table(place.warehouse, run_ids=["02-base-two", "02-two"], width=200)
    assert "decided by run 01-one. This run asked another question of the same claim (" in lines
    assert "documents: VALIDATED alone)" in lines
    assert "drift" not in lines


def test_a_run_that_scored_too_few_documents_spends_nothing(place: Any) -> None:
    found = standing(place, asked("one", [3], 1, documents=20), asked("two", FEW, 2))
    assert found["02-two"] == ("VALIDATED", "VALIDATED", 2)
    state = query(place.warehouse, "SELECT state FROM questions WHERE use = 'all' AND run_id = '01-one'")
    assert state.to_pylist() == [{"state": "too few documents"}]


def test_another_engine_version_is_a_claim_of_its_own_that_is_shown(place: Any) -> None:
    found = standing(place, asked("one", SOME, 1), asked("two", FEW, 2, engine_version="0.26.0"))
    assert found["02-two"] == ("VALIDATED", "VALIDATED", 2)


def test_another_policy_is_another_question_of_the_same_claim(place: Any) -> None:
    loose = policy_of({Family.MATH: (0.3, 50)}, uses={"all": (), "sums": (Family.MATH,)})
    found = standing(place, asked("one", SOME, 1), asked("one-again", SOME, 2, policy=loose))
    assert found["02-one-again"][:2] == ("VALIDATED", "INCONCLUSIVE")
    row = query(
        place.warehouse,
        "SELECT DISTINCT use, verdict, margin, policy_fingerprint FROM validated_table "
        "WHERE run_id = '02-one-again' ORDER BY use",
    ).to_pylist()
    assert [(r["use"], r["verdict"]) for r in row] == [("all", "INCONCLUSIVE"), ("sums", "INCONCLUSIVE")], (
        "a use is known by its families, whatever it is called"
    )
    assert {(r["margin"], r["policy_fingerprint"]) for r in row} == {(0.1, POLICY.fingerprint())}, (
        "what is shown is what the standing verdict rests on"
    )


def declare(place: Any, of: Spec, *, scored: bool, policy: Policy = POLICY) -> None:
    """Declare a run that never had a bundle."""
    manifest = build_manifest(of, {})
    store = BundleStore(place.bundles)
    store.declare_question(
        declaration(
            f"{of.run_id}-killed",
            declared_at=of.started_at,
            claim_key=str(claim_key(manifest)),
            checkpoint=of.name,
            weights=of.revision,
            baseline=BASELINE.name,
            baseline_weights=BASELINE.revision,
            tasks=tuple(
                AskedTask(task=task, family=family, content=None) for task, family in of.tasks.items()
            ),
            policy=policy,
        )
    )
    if scored:
        store.mark_scored(f"{of.run_id}-killed", 0)


@pytest.mark.parametrize(("scored", "stands"), [(True, "INCONCLUSIVE"), (False, "VALIDATED")])
def test_a_try_that_was_killed_counts_once_it_has_scored_answers(
    place: Any, scored: bool, stands: str
) -> None:
    declare(place, asked("killed", FEW, 0)[1], scored=scored)
    found = standing(place, asked("one", FEW, 1))
    assert found == {"01-one": ("VALIDATED", stands, 2)}
    state = query(
        place.warehouse, "SELECT state, verdict FROM questions WHERE use = 'all' ORDER BY declared_at"
    )
    assert state.to_pylist()[0] == {"state": "unfinished", "verdict": "INCONCLUSIVE" if scored else None}


def test_scores_that_come_after_a_declaration_was_loaded_count(place: Any) -> None:
    killed = asked("killed", FEW, 0)[1]
    declare(place, killed, scored=False)
    assert standing(place, asked("one", FEW, 1))["01-one"][1] == "VALIDATED"
    BundleStore(place.bundles).mark_scored(f"{killed.run_id}-killed", 0)
    assert load_bundles(place.warehouse, place.bundles).swapped
    assert not load_bundles(place.warehouse, place.bundles).swapped
    row = query(place.warehouse, "SELECT standing FROM verdicts WHERE use = 'all' AND run_id = '01-one'")
    assert row.to_pylist() == [{"standing": "INCONCLUSIVE"}]


def test_the_kv_cache_and_a_setting_that_serves_another_model_are_claims_of_their_own(place: Any) -> None:
    found = standing(
        place,
        asked("one", FEW, 1),
        asked("two", MANY, 2, arguments={"kv-cache-dtype": "fp8"}),
        asked("three", SOME, 3, arguments={"max-num-seqs": 7}),
    )
    assert found["02-two"][1] == "REJECTED"
    assert found["01-one"][1] == found["03-three"][1] == "INCONCLUSIVE", (
        "the number of requests at once changes no claim"
    )


def test_verdicts_that_an_update_changes_are_listed_with_the_reason(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing(place, asked("one", SOME, 1), asked("two", FEW, 2))
    with duckdb.connect(str(place.warehouse)) as connection:  # as an earlier version left it
        connection.execute("UPDATE store.runs SET claim_key = NULL")
        connection.execute(
            "UPDATE store.standing_verdicts SET verdict = 'VALIDATED' WHERE verdict = 'INCONCLUSIVE'"
        )
    monkeypatch.setattr(load, "VERDICT_KEYS", "later")
    assert load_bundles(place.warehouse, place.bundles).swapped
    changed = query(
        place.warehouse,
        "SELECT run_id, use, before, after FROM changed_verdicts WHERE run_id = '02-two' ORDER BY use",
    )
    assert changed.to_pylist() == [
        {"run_id": "02-two", "use": use, "before": "VALIDATED", "after": "INCONCLUSIVE"}
        for use in ("all", "math")
    ]
    assert not load_bundles(place.warehouse, place.bundles).swapped


RESERVING = POLICY.model_copy(update={"reserve": 0.4})


def test_the_alphas_of_all_questions_are_together_at_most_alpha() -> None:
    alphas = [RESERVING.at_question(number).alpha for number in range(1, 60)]
    assert alphas[:3] == pytest.approx([0.03, 0.01, 0.005])
    assert sum(alphas) <= RESERVING.alpha
    assert POLICY.at_question(7) is POLICY


@pytest.mark.parametrize(
    ("first", "second", "number", "policy", "stands"),
    [
        (SOME, FEW, 2, RESERVING, "VALIDATED"),
        (SOME, FEW, 1, RESERVING, "INCONCLUSIVE"),
        (SOME, FEW, 2, POLICY, "INCONCLUSIVE"),
        (MANY, FEW, 2, RESERVING, "REJECTED"),
        (FEW, SOME, 2, RESERVING, "INCONCLUSIVE"),
    ],
    ids=[
        "from the reserve",
        "judged at an alpha that was spent",
        "nothing was reserved",
        "rejected before",
        "not passed",
    ],
)
def test_a_later_question_validates_from_what_the_policy_reserved(
    place: Any, first: Any, second: Any, number: int, policy: Policy, stands: str
) -> None:
    later = asked("two", second, 2, policy=policy)
    later[1] = replace(later[1], question=number)
    found = standing(place, asked("one", first, 1, policy=policy), later)
    assert {row[1] for row in found.values()} == {stands}


def against(name: str, pair: list[Spec]) -> list[Spec]:
    """The same pair of runs, with another checkpoint as the baseline."""
    baseline = replace(pair[0], checkpoint=name)
    return [baseline, replace(pair[1], baseline=baseline)]


def reasons(place: Any) -> dict[str, str]:
    rows = query(
        place.warehouse,
        "SELECT run_id, standing_reason FROM verdicts WHERE use = 'all' AND verdict <> 'BASELINE'",
    ).to_pylist()
    return {row["run_id"]: row["standing_reason"] for row in rows}


@pytest.mark.parametrize(("first", "stands"), [(MANY, "REJECTED"), (SOME, "INCONCLUSIVE")], ids=str)
def test_another_baseline_is_no_second_chance(place: Any, first: Any, stands: str) -> None:
    found = standing(place, asked("one", first, 1), against("damaged-copy", asked("one", FEW, 2)))
    assert found["02-one"] == ("VALIDATED", stands, 2)
    assert reasons(place)["02-one"].startswith("another baseline was tried first: toy-bf16 (run 01-one): ")
    asked_about = query(
        place.warehouse,
        "SELECT baseline, question, standing FROM questions WHERE use = 'all' ORDER BY question",
    ).to_pylist()
    assert [(row["baseline"], row["question"]) for row in asked_about] == [
        ("toy-bf16", 1),
        ("damaged-copy", 2),
    ]
    assert {row["standing"] for row in asked_about} == {stands}


def test_a_later_baseline_can_lower_what_a_damaged_one_validated(place: Any) -> None:
    found = standing(place, against("damaged-copy", asked("one", FEW, 1)), asked("one", MANY, 2))
    assert {row[1] for row in found.values()} == {"REJECTED"}
    assert reasons(place)["01-one"].startswith("another baseline was tried, too: toy-bf16 (run 02-one): ")


def test_a_killed_try_against_another_baseline_counts(place: Any) -> None:
    declare(place, against("damaged-copy", asked("killed", FEW, 0))[1], scored=True)
    assert standing(place, asked("one", FEW, 1)) == {"01-one": ("VALIDATED", "INCONCLUSIVE", 2)}


def test_no_reserve_pays_for_another_baseline(place: Any) -> None:
    later = against("damaged-copy", asked("two", FEW, 2, policy=RESERVING))
    later[1] = replace(later[1], question=2)
    found = standing(place, asked("one", SOME, 1, policy=RESERVING), later)
    assert {row[1] for row in found.values()} == {"INCONCLUSIVE"}


@pytest.mark.parametrize(
    ("before", "stands"), [(MANY, "REJECTED"), (SOME, "VALIDATED"), (FEW, "VALIDATED")], ids=str
)
def test_what_an_earlier_version_decided_counts_for_the_same_revision(
    place: Any, before: Any, stands: str
) -> None:
    earlier = asked("one", before, 1, schema_version=3)
    place.write(*earlier)
    load_bundles(place.warehouse, place.bundles)  # nobody has read its tensors
    later = asked("two", FEW, 2, weights="read", contents={"two": "c"})
    found = standing(place, later)
    assert found["02-two"][1] == found["01-one"][1] == stands


def test_small_tries_count_together_before_the_first_question(place: Any) -> None:
    parts = [asked(f"part-{hour}", [], hour, documents=40) for hour in (1, 2, 3)]
    found = standing(place, *parts, asked("rest", FEW, 4))
    assert found["04-rest"][:2] == ("VALIDATED", "INCONCLUSIVE"), "120 answers were seen for nothing"
    states = query(place.warehouse, "SELECT run_id, state FROM questions WHERE use = 'all'").to_pylist()
    assert [row["state"] for row in states] == ["too few documents"] * 2 + ["decides"] * 2


def test_small_tries_after_a_validated_question_change_nothing(place: Any) -> None:
    later = [asked(f"later-{hour}", [], hour, documents=40) for hour in (2, 3, 4)]
    found = standing(place, asked("one", FEW, 1), *later)
    assert {row[1] for row in found.values()} == {"VALIDATED"}
