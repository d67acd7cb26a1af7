"""Records of the matrix: a cell is a checkpoint on a pool, a unit is a model on a pool; and what a budget pays for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from quantgate.bundles.identity import Expected
from quantgate.model.yaml_file import fingerprint_of


class CellState(StrEnum):
    """Say what the matrix does with a cell."""

    RUN = "would run"
    MEASURED = "measured"
    TOO_LARGE = "does not fit"
    UNSUPPORTED = "not supported"
    MISSING = "no such checkpoint"
    WRONG = "can't be planned"
    NO_BASELINE = "no baseline"
    NO_CANDIDATE = "no candidate"
    NO_PRICE = "no price"
    OVER_BUDGET = "over budget"


FAULTS = frozenset({CellState.MISSING, CellState.WRONG})
"""States that somebody has to fix. A matrix that has one does everything else and fails at its end."""


def run_name(model: str, pool: str) -> str:
    """Return the name of a model's run on a pool, on the server and in the matrix's lines."""
    return f"{model} on {pool}"


@dataclass(frozen=True)
class Cell:
    """A checkpoint on a pool."""

    pool: str
    gpu: str
    model: str
    precision: str | None
    source: str
    is_baseline: bool
    state: CellState
    reason: str = ""
    gpus: int | None = None
    gpu_hours: float | None = None
    """High end of the estimate: 0 for what is measured already; None where it isn't known."""
    gpu_hours_low: float | None = None
    """Low end of the estimate."""
    usd: float | None = None
    """High end of the estimate, on which a budget rests."""
    usd_low: float | None = None
    usd_per_gpu_hour: float | None = None
    no_usd: str = ""
    """Why there is no cost."""
    basis: str = ""
    """measured, or estimated."""
    expected: Expected | None = None

    @property
    def title(self) -> str:
        """Return how a line names the cell."""
        return f"{self.pool} {self.model} {self.precision}"

    @property
    def is_sound(self) -> bool:
        """Return whether the checkpoint is measured, or can be."""
        return self.state in {CellState.RUN, CellState.MEASURED}


@dataclass(frozen=True)
class Unit:
    """A model on a pool: one run of ``validate/<pool>``."""

    pool: str
    model: str
    cells: tuple[Cell, ...]
    """Baseline first."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Of the flow ``validate``; empty where nothing is to be run."""

    @property
    def due(self) -> list[Cell]:
        """Return the cells that are to be run."""
        return [cell for cell in self.cells if cell.state is CellState.RUN]

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of what the pool is asked for: the same plan is dispatched once.

        Measured cells are part of it. A run's bundles appear one after the other, and a plan that is made while it
        goes on has to have the same fingerprint.
        """
        asked = [
            (cell.source, asdict(cell.expected)) for cell in self.cells if cell.expected and cell.is_sound
        ]
        return fingerprint_of([self.pool, self.model, asked])


@dataclass(frozen=True)
class Plan:
    """Every unit, in declared order: models as they are listed, each over the pools."""

    units: tuple[Unit, ...]
    budget_usd: float | None = None
    lengths: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """How long prompts and answers are expected to be, in words, by model; only where an estimate rests on it."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Why a pool of the fleet has no unit, by pool."""
    unknown_memory: tuple[str, ...] = ()
    """CPU pools whose memory is not known, so that nothing is checked against it."""

    @property
    def cells(self) -> list[Cell]:
        """Return every checkpoint on every pool."""
        return [cell for unit in self.units for cell in unit.cells]

    @property
    def due(self) -> list[Cell]:
        """Return the cells that are to be run."""
        return [cell for cell in self.cells if cell.state is CellState.RUN]


class _Purse:
    """Pay runs out of a budget; the first run that would exceed it closes it."""

    def __init__(self, budget_usd: float) -> None:
        self.budget_usd, self.spent_usd, self.closed = budget_usd, 0.0, False

    def refusal(self, cells: Sequence[Cell]) -> tuple[CellState, str] | None:
        """Pay for cells that run together; return why they aren't started where the budget does not cover them."""
        unknown = next((cell for cell in cells if cell.usd is None), None)
        if unknown is not None:
            return CellState.NO_PRICE, f"its cost isn't known ({unknown.no_usd}), and there is a budget"
        usd = sum(cell.usd or 0 for cell in cells)
        if self.closed or self.spent_usd + usd > self.budget_usd:
            self.closed = True
            return CellState.OVER_BUDGET, f"would exceed the budget of {self.budget_usd:,.2f} USD"
        self.spent_usd += usd
        return None


def within_budget(units: Sequence[Unit], budget_usd: float) -> tuple[Unit, ...]:
    """Return the units in which only what a budget pays for is to be run.

    Runs are paid in order until the next one would exceed the budget: a baseline together with the first of its
    candidates, and candidates of one precision together, since a run chooses by precision. Nothing after that is
    started, however cheap, so that the order alone decides what a night measures. A run whose cost isn't known
    isn't started under a budget.

    Args:
        units: in declared order.
        budget_usd: the most that all of them may cost by the high end of their estimates: a guard that rested on
            less would let a night cost more than it says.
    """
    purse = _Purse(budget_usd)
    return tuple(replace(unit, cells=_paid(unit.cells, purse)) for unit in units)


def _paid(cells: tuple[Cell, ...], purse: _Purse) -> tuple[Cell, ...]:
    """Pay a unit's groups of candidates in order; the baseline goes with the first group that is paid."""
    unpaid_baseline: list[int] = []
    groups: dict[str | None, list[int]] = {}
    for index, cell in enumerate(cells):
        if cell.state is CellState.RUN:
            group = unpaid_baseline if cell.is_baseline else groups.setdefault(cell.precision, [])
            group.append(index)
    refusals = []
    refused: dict[int, tuple[CellState, str]] = {}
    for group in groups.values() or [[]]:
        refusal = purse.refusal([cells[index] for index in (*unpaid_baseline, *group)])
        if refusal:
            refusals.append(refusal)
            refused |= dict.fromkeys(group, refusal)
        else:
            unpaid_baseline = []
    if unpaid_baseline:
        refused |= dict.fromkeys(unpaid_baseline, refusals[0])
    return tuple(
        replace(cell, state=refused[index][0], reason=refused[index][1]) if index in refused else cell
        for index, cell in enumerate(cells)
    )
