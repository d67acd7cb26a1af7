"""The matrix as records: a cell is a checkpoint on a pool, a unit a model on a pool; and what a budget leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from quantgate.bundles.identity import Expected
from quantgate.model.yaml_file import fingerprint_of


class State(StrEnum):
    """What becomes of a cell."""

    RUN = "would run"
    KNOWN = "measured"
    TOO_LARGE = "does not fit"
    UNSUPPORTED = "not supported"
    MISSING = "no such checkpoint"
    WRONG = "can't be planned"
    NO_BASELINE = "no baseline"
    NO_CANDIDATE = "no candidate"
    NO_PRICE = "no price"
    OVER_BUDGET = "over budget"


FAULTS = frozenset({State.MISSING, State.WRONG})
"""What somebody has to fix: a matrix that meets it goes on and fails at its end."""


def run_name(model: str, pool: str) -> str:
    """What the run of a model on a pool is called, on the server and in the matrix's lines."""
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
    state: State
    reason: str = ""
    gpus: int | None = None
    gpu_hours: float | None = None
    """0 for what is measured already; None where nothing tells it."""
    usd: float | None = None
    usd_per_gpu_hour: float | None = None
    no_usd: str = ""
    """Why there is no cost."""
    basis: str = ""
    """measured, or estimated."""
    expected: Expected | None = None


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
        """What is to be run."""
        return [cell for cell in self.cells if cell.state is State.RUN]

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what is asked of the pool: the same plan is dispatched once.

        What is measured already is part of it: while a run goes on, its bundles appear one after the other, and
        a plan that is made meanwhile must be told for the same.
        """
        asked = [
            (cell.source, asdict(cell.expected))
            for cell in self.cells
            if cell.expected and cell.state in {State.RUN, State.KNOWN}
        ]
        return fingerprint_of([self.pool, self.model, asked])


@dataclass(frozen=True)
class Plan:
    """Every unit, in declared order: models as they are listed, each over the pools."""

    units: tuple[Unit, ...]
    budget_usd: float | None = None

    @property
    def cells(self) -> list[Cell]:
        """Every checkpoint on every pool."""
        return [cell for unit in self.units for cell in unit.cells]

    @property
    def due(self) -> list[Cell]:
        """What is to be run."""
        return [cell for cell in self.cells if cell.state is State.RUN]


class _Purse:
    """What is left of a budget; once a run would exceed it, it is closed."""

    def __init__(self, budget_usd: float) -> None:
        self.budget_usd, self.spent_usd, self.closed = budget_usd, 0.0, False

    def refusal(self, cells: Sequence[Cell]) -> tuple[State, str] | None:
        """Pay for cells that run together; or why they aren't started."""
        unknown = next((cell for cell in cells if cell.usd is None), None)
        if unknown is not None:
            return State.NO_PRICE, f"its cost isn't known ({unknown.no_usd}), and there is a budget"
        usd = sum(cell.usd or 0 for cell in cells)
        if self.closed or self.spent_usd + usd > self.budget_usd:
            self.closed = True
            return State.OVER_BUDGET, f"would exceed the budget of {self.budget_usd:,.2f} USD"
        self.spent_usd += usd
        return None


def within_budget(units: Sequence[Unit], budget_usd: float) -> tuple[Unit, ...]:
    """Units in which only what a budget pays for is to be run.

    Runs are taken in order until the next one would exceed the budget: a baseline together with the first of
    its candidates, candidates of one precision together, since a run chooses by it. Nothing after that is
    started, however cheap, so that the order alone says what a night measures. A run whose cost isn't known
    isn't started under a budget: it could be anything.

    Args:
        units: in declared order.
        budget_usd: the most that all of them may cost by their estimates.
    """
    purse = _Purse(budget_usd)
    return tuple(replace(unit, cells=_paid(unit.cells, purse)) for unit in units)


def _paid(cells: tuple[Cell, ...], purse: _Purse) -> tuple[Cell, ...]:
    refused: dict[int, tuple[State, str]] = {}
    due = [index for index, cell in enumerate(cells) if cell.state is State.RUN]
    baseline = [index for index in due if cells[index].is_baseline]
    candidates: dict[str | None, list[int]] = {}
    for index in due:
        if not cells[index].is_baseline:
            candidates.setdefault(cells[index].precision, []).append(index)
    unpaid = list(baseline)
    for group in list(candidates.values()) or ([[]] if baseline else []):
        refusal = purse.refusal([cells[index] for index in (*unpaid, *group)])
        if refusal is None:
            unpaid = []
        for index in group if refusal else ():
            refused[index] = refusal or refused[index]
        if refusal and not group:
            refused[baseline[0]] = refusal
    if unpaid and candidates:
        refused[baseline[0]] = refused[next(iter(candidates.values()))[0]]
    return tuple(
        replace(cell, state=refused[index][0], reason=refused[index][1]) if index in refused else cell
        for index, cell in enumerate(cells)
    )
