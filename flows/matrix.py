"""The matrix: every model and precision on every GPU type, what is measured and unchanged left out."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, Field

from flows.cells import FAULTS, Plan, State
from flows.dispatch import Outcome, dispatch, run_once
from flows.hub_token import hub_token
from flows.known import Took, took
from flows.matrix_table import markdown_of, text_of
from flows.planning import MatrixParameters, plan
from flows.reporting import reporter
from quantgate.model.errors import RunError
from quantgate.model.home import Home
from tasks import bundle

AFTERWARDS = ("load/warehouse", "publish/warehouse")
AFTERWARDS_WAIT_S = 3600.0


class MatrixReport(BaseModel):
    """What the flow ``matrix`` gives back."""

    dispatched: list[str] = Field(description="Runs that were started or joined, as 'model on pool'.")
    measured: int = Field(description="Checkpoints that were measured meanwhile.")
    skipped: int = Field(description="Checkpoints that needed nothing or can't be measured.")


@flow(name="matrix", validate_parameters=True)
def matrix(parameters: MatrixParameters | None = None) -> MatrixReport:
    """Measure what the fleet hasn't measured: a run of ``validate/<pool>`` for each model and pool that has some.

    All pools at once; then the bundles are loaded and the table published. It can be killed and started again
    at any moment: what is measured is left out, and what still runs is joined.

    Raises:
        RunError: a run failed, or a checkpoint is missing or wrong; everything else was done.
    """
    parameters = parameters or MatrixParameters()
    home, report = Home.current(), reporter()
    with hub_token():
        planned = plan(parameters, home)
    for line in text_of(planned).splitlines():
        report.line(f"matrix: {line}")
    if parameters.dry_run:
        _show(planned, {}, ())
        return MatrixReport(dispatched=[], measured=0, skipped=len(planned.cells))
    begun = datetime.now(UTC)
    units = [unit for unit in planned.units if unit.parameters]
    outcomes = asyncio.run(dispatch(units, parameters.wait_h * 3600))
    for outcome in outcomes:
        joined = " (was under way)" if outcome.joined else ""
        report.line(f"matrix: {outcome.name}{joined}: {outcome.problem or 'completed'}")
    done = [asyncio.run(run_once(name, AFTERWARDS_WAIT_S)) for name in AFTERWARDS]
    results = took([cell.expected for cell in planned.due], bundle.manifests(home.bundles), begun)
    _show(planned, results, outcomes)
    problems = [f"{one.name}: {one.problem}" for one in (*outcomes, *done) if one.problem]
    problems += dict.fromkeys(
        f"{cell.pool} {cell.model} {cell.precision}: {cell.reason}"
        for cell in planned.cells
        if cell.state in FAULTS
    )
    if problems:
        raise RunError(
            f"{len(problems)} of it failed: {' | '.join(problems)}",
            where="matrix",
            mend="What was measured is kept; the next matrix tries the rest again.",
        )
    return MatrixReport(
        dispatched=[outcome.name for outcome in outcomes],
        measured=len(results),
        skipped=sum(cell.state is not State.RUN for cell in planned.cells),
    )


def _show(planned: Plan, results: dict[int, Took], outcomes: tuple[Outcome, ...] | list[Outcome]) -> None:
    create_markdown_artifact(
        markdown_of(planned, results, {one.name: one.problem for one in outcomes}),
        key="matrix",
        description="What ran, what was left out and why, what failed, what it took.",
    )
