"""Who keeps trying is judged by the shipped judge, and what stands is what the shipped views say."""

from typing import Any

import numpy as np
import pytest

from benchmarks import adversary
from benchmarks.adversary import Cell, Judge, Way, asked_again, draw, examine, holds, main, standing
from quantgate.model.config.policy import load_policy
from quantgate.model.enums import Family, Verdict
from tests.support.sample_rows import policy_of

ONCE = policy_of({Family.MATH: (0.1, 30)})
POLICIES = {
    "looks": ONCE.model_copy(update={"looks": (0.5,)}),
    "once": ONCE,
    "reserve": ONCE.model_copy(update={"reserve": 0.5}),
}
SMALL = Cell(80, Family.MATH, 0.15)
VALIDATED, REJECTED, OPEN = (str(v) for v in (Verdict.VALIDATED, Verdict.REJECTED, Verdict.INCONCLUSIVE))


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return list(examine(SMALL, POLICIES, 300, 1, (1, 3)))


def test_the_ledger_never_validates_oftener_than_any_run(rows: list[dict[str, Any]]) -> None:
    asked = [(row["delta"], row["way"], row["policy"], row["tries"]) for row in rows]
    assert asked == [
        *((-0.1, way, name, tries) for name in POLICIES for way, tries in ((None, 1), (Way.AT_RANDOM, 3))),
        *((-0.1, way, name, 3) for way in (Way.WHAT_WAS_LOST, Way.ALL) for name in POLICIES),
        *((0.0, None, name, 1) for name in POLICIES),
    ]
    assert all(row["standing"] <= row["any"] for row in rows)
    assert all(row["standing"] == row["any"] for row in rows if row["tries"] == 1)
    for name in POLICIES:
        several = [row for row in rows if row["policy"] == name and row["tries"] == 3]
        first = next(row for row in rows if row["policy"] == name and row["delta"] < 0)
        assert several[0]["standing"] == first["standing"], "the same claims, the same first tries"
        assert several[1]["any"] > several[0]["any"] > first["any"]
        assert (several[2]["standing"] > first["standing"]) == (name == "reserve"), (
            "new documents, kept alpha"
        )
    assert holds(rows)


def test_simulated_tries_agree_with_the_sum_over_every_outcome(rows: list[dict[str, Any]]) -> None:
    summed = [row for row in rows if row["exact"] is not None]
    assert [(row["policy"], row["tries"], row["delta"]) for row in summed] == [
        ("once", 1, -0.1),
        ("reserve", 1, -0.1),
        ("once", 1, 0.0),
        ("reserve", 1, 0.0),
    ]
    for row in summed:
        error = np.sqrt(row["exact"] * (1 - row["exact"]) / row["replicates"])
        assert row["any"] / row["replicates"] == pytest.approx(row["exact"], abs=4 * error)


def test_what_stands_is_what_the_first_question_said_unless_a_later_one_is_worse() -> None:
    asked = [
        ((1, VALIDATED),),
        ((1, OPEN), (1, VALIDATED)),
        ((1, OPEN), (2, VALIDATED)),
        ((1, VALIDATED), (2, OPEN)),
        ((1, REJECTED), (2, VALIDATED)),
    ]
    assert standing(asked, "looks", POLICIES["looks"], Way.ALL) == [VALIDATED, OPEN, OPEN, OPEN, REJECTED]


def test_documents_that_are_left_out_leave_the_others_in_their_order() -> None:
    rng = np.random.default_rng(2)
    cell = Cell(200, Family.MATH, 0.1)
    first = draw(rng, (40, 200), 0.1, -0.05)
    for rows, answers, same in asked_again(rng, first, cell, -0.05, Way.AT_RANDOM):
        assert answers.shape == (rows.size, 200 if same else answers.shape[1])
        assert same or answers.shape[1] in (180, 190)
    ((rows, answers, same),) = [
        tried for tried in asked_again(rng, first, cell, -0.05, Way.WHAT_WAS_LOST) if tried[0].size
    ]
    assert (rows.tolist(), answers.shape, same) == (list(range(40)), (40, 180), False)
    assert (answers < 0).sum() < 0.2 * (first < 0).sum(), "what got worse is left out first"


def test_each_candidate_stops_at_the_first_look_that_decides() -> None:
    judge = Judge(POLICIES["looks"], Family.MATH)
    answers = np.zeros((3, 80), dtype=np.int8)
    answers[0, :10] = 1
    answers[1, :30] = -1
    answers[2, ::4] = np.tile([-1, 1], 10)
    assert judge.looks(80) == (40, 80)
    assert judge.follow(answers).tolist() == [VALIDATED, REJECTED, OPEN]
    answers[0, 40:] = -1
    assert judge.follow(answers)[0] == VALIDATED, "what comes after the stop was never asked"


def test_the_command_fails_where_a_claim_stands_too_often(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {**SMALL._asdict(), "margin": 0.1, "policy": "once", "alpha": 0.05, "delta": -0.1, "tries": 2}
    row |= {"way": Way.AT_RANDOM, "replicates": 100, "any": 40, "standing": 40, "exact": None}
    monkeypatch.setattr(adversary, "CELLS", (SMALL,))
    monkeypatch.setattr(adversary, "examine", lambda *_: iter([row]))
    assert main(["--replicates", "100"]) == 1
    shown = capsys.readouterr().out
    assert "| 80 | 10 points | 15% | once | at random | 2 | 0.4000 [0.2763, 0.5335] |" in shown
    assert holds([row | {"standing": 3}])
    assert not holds([row | {"standing": 3, "tries": 1}]), (
        "one try is judged alike with and without the ledger"
    )


def test_the_cells_are_those_of_the_shipped_policy() -> None:
    standard = load_policy("standard")
    assert [standard.families[cell.family].margin for cell in adversary.CELLS] == [0.01, 0.02]
