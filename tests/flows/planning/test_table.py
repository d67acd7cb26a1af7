"""The plan as a person reads it: at any width, with subtotals, and with a reason for every pool that gets nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.cells import cell_len

from flows.planning.cells import Cell, CellState, Plan, Unit
from flows.planning.pools import left_out
from flows.planning.table import text_of
from quantgate.model.config.fleet import load_fleet

MODELS = ("Llama-4-Maverick-17B-128E", "quantgate-demo")


def cell(pool: str, model: str, **own: object) -> Cell:
    blank = Cell(pool, pool, model, "bf16", "org/x", True, CellState.RUN, gpus=8, basis="estimated")
    return replace(blank, **own)


def plan() -> Plan:
    first, second = MODELS
    costs = {"gpu_hours_low": 100.0, "gpu_hours": 1200.0, "usd_low": 300.0, "usd": 3600.0}
    large = {"state": CellState.TOO_LARGE, "reason": "it is too large"}
    return Plan(
        (
            Unit(
                "h100", first, (cell("h100", first, **costs), cell("h100", first, **costs, precision="nvfp4"))
            ),
            Unit(
                "h100", second, (cell("h100", second, gpu_hours_low=1.0, gpu_hours=1.0, no_usd="no_price"),)
            ),
            Unit("l40s", first, (cell("l40s", first, **large),)),
            Unit("b200", first, ()),
        ),
        lengths={first: ("an answer counts as 64 to 256 tokens (its limit is 256) for gsm8k",)},
        left_out={"b300": "it has no hosts", "cpu": "it has no hosts"},
    )


@pytest.mark.parametrize("width", [80, 100, 120])
def test_it_fits_the_terminal_and_keeps_its_costs(width: int) -> None:
    lines = text_of(plan(), width).splitlines()
    assert max(map(cell_len, lines)) <= width
    row = lines[2]
    assert "would run" in row
    assert row.rstrip().endswith("estimated") == (width == 120)
    for figure in ("100.00–1,200.00", "300.00–3,600.00", MODELS[0][:13]):
        assert figure in row


def test_subtotals_of_each_model_and_each_gpu() -> None:
    lines = text_of(plan()).splitlines()
    rows = [line.split() for line in lines[lines.index("Subtotals") + 3 : lines.index("Subtotals") + 6]]
    assert rows[0] == ["model", MODELS[0], "2", "200.00–2,400.00", "600.00–7,200.00"]
    assert rows[1] == ["model", MODELS[1], "1", "1.00", "–", "USD", "of", "0", "runs"]
    assert rows[2] == ["GPU", "h100", "3", "201.00–2,401.00", "600.00–7,200.00", "USD", "of", "2", "runs"]


def test_no_pool_vanishes_without_a_reason() -> None:
    text = text_of(plan())
    assert "Gets nothing: b300, cpu (it has no hosts)" in text
    assert "Gets nothing: l40s (does not fit: 1)" in text
    assert "Gets nothing: b200 (no model has a checkpoint for this choice)" in text
    none = text_of(Plan((Unit("b200", MODELS[0], ()),), left_out={"cpu": "it has no hosts"}))
    assert none.splitlines() == [
        "No model has a checkpoint for this choice.",
        "Gets nothing: cpu (it has no hosts)",
        "Gets nothing: b200 (no model has a checkpoint for this choice)",
    ]


def test_pools_that_are_not_chosen_are_named() -> None:
    fleet = load_fleet()
    assert left_out(fleet, ["h100"], by_hand=True)["cpu"] == "--pool names others"
    assert left_out(fleet, ["cpu"], by_hand=False) == dict.fromkeys(
        ("l40s", "h100", "h200", "b200", "b300"), "it has no hosts"
    )
