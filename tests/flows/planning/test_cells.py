"""What a budget leaves of a plan."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from flows.planning.cells import Cell, CellState, Unit, within_budget

R, K = CellState.RUN, CellState.MEASURED


def unit(model: str, *cells: tuple[CellState, float | None]) -> Unit:
    return Unit(
        "h100",
        model,
        tuple(
            Cell("h100", "h100", model, f"p{place}", "org/x", place == 0, state, usd=usd, no_usd="no_price")
            for place, (state, usd) in enumerate(cells)
        ),
    )


def states(units: tuple[Unit, ...]) -> list[list[str]]:
    return [[cell.state.name for cell in one.cells] for one in units]


def test_in_declared_order_until_it_would_be_exceeded() -> None:
    units = (unit("a", (R, 4), (R, 3), (R, 2)), unit("b", (R, 5), (R, 5)), unit("c", (K, 0), (R, 0.5)))
    assert states(within_budget(units, 100)) == [["RUN"] * 3, ["RUN"] * 2, ["MEASURED", "RUN"]]
    assert states(within_budget(units, 9)) == [
        ["RUN"] * 3,
        ["OVER_BUDGET"] * 2,
        ["MEASURED", "OVER_BUDGET"],
    ], "what comes after isn't started, however cheap"
    assert states(within_budget(units, 8))[0] == ["RUN", "RUN", "OVER_BUDGET"]
    kept = within_budget(units, 6.99)
    assert states(kept)[0] == ["OVER_BUDGET"] * 3, "a baseline alone decides nothing"
    assert kept[0].cells[0].reason == "would exceed the budget of 6.99 USD"


def test_without_a_price_nothing_is_started_under_a_budget_and_others_go_on() -> None:
    units = (unit("a", (R, 1), (R, None), (R, 2)), unit("b", (R, None), (R, 1)), unit("c", (R, 1), (R, 1)))
    kept = within_budget(units, 5)
    assert states(kept) == [["RUN", "NO_PRICE", "RUN"], ["NO_PRICE"] * 2, ["RUN", "RUN"]]
    assert kept[0].cells[1].reason == "its cost isn't known (no_price), and there is a budget"


def test_candidates_of_one_precision_are_paid_for_together() -> None:
    one = unit("a", (R, 1), (R, 1), (R, 1))
    twins = Unit(
        "h100", "a", tuple(replace(c, precision="fp8") if not c.is_baseline else c for c in one.cells)
    )
    assert states(within_budget([twins], 2)) == [["OVER_BUDGET"] * 3]
    assert states(within_budget([twins], 3)) == [["RUN"] * 3]


def test_a_baseline_whose_candidates_are_known_runs_alone() -> None:
    again = (unit("a", (R, 2), (K, 0)),)
    assert states(within_budget(again, 2)) == [["RUN", "MEASURED"]]
    assert states(within_budget(again, 1)) == [["OVER_BUDGET", "MEASURED"]]


COST = st.tuples(st.sampled_from([R, K, CellState.UNSUPPORTED]), st.none() | st.floats(0, 10))


@given(st.lists(st.lists(COST, min_size=2, max_size=4), max_size=4), st.floats(0.01, 30))
def test_a_budget_is_kept_and_no_candidate_runs_without_its_baseline(
    costs: list[list[tuple[CellState, float | None]]], budget_usd: float
) -> None:
    units = [unit(str(place), *cells) for place, cells in enumerate(costs)]
    kept = within_budget(units, budget_usd)
    due = [cell for one in kept for cell in one.due]
    assert all(cell.usd is not None for cell in due)
    assert sum(cell.usd or 0 for cell in due) <= budget_usd * (1 + 1e-9)
    for before, after in zip(units, kept, strict=True):
        if before.cells[0].state is R and any(not cell.is_baseline for cell in after.due):
            assert after.cells[0].state is R
        for one, other in zip(before.cells, after.cells, strict=True):
            assert one.state is R or one == other
