"""The matrix: every model and precision on every GPU type, what is measured and unchanged left out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, Field

from flows.fleet.deployments import LOAD, PUBLISH
from flows.fleet.dispatch import Outcome, dispatch, run_once
from flows.fleet.secrets import hub_token
from flows.parameters import MatrixParameters
from flows.planning.cells import FAULTS, CellState, Plan, run_name
from flows.planning.matrix_plan import plan
from flows.planning.measured import new_gpu_hours, why_missing
from flows.planning.table import markdown_of, text_of
from flows.progress import reporter
from quantgate.bundles.history import RunHistory
from quantgate.bundles.manifest import Manifest
from quantgate.bundles.store import BundleStore
from quantgate.model.errors import RunError
from quantgate.model.home import Home

PUBLISHING = (LOAD, PUBLISH)
"""Deployments that are run when all is measured."""
PUBLISHING_WAIT_S = 3600.0


class MatrixReport(BaseModel):
    """Result of the flow ``matrix``."""

    dispatched: list[str] = Field(description="Runs that were started or joined, as 'model on pool'.")
    measured: int = Field(description="Checkpoints that were measured meanwhile.")
    skipped: int = Field(description="Checkpoints that needed nothing or can't be measured.")


@flow(name="matrix", validate_parameters=True)
def matrix(parameters: MatrixParameters | None = None) -> MatrixReport:
    """Measure what the fleet hasn't measured: a run of ``validate/<pool>`` for each model and pool that has some.

    All pools at once; then the bundles are loaded and the table published. It can be killed and started again
    at any moment: what is measured is left out, and what still runs is joined.

    Raises:
        RunError: a run failed or left no bundle here, or a checkpoint is missing or wrong; everything else was done.
    """
    parameters = parameters or MatrixParameters()
    home, report = Home.current(), reporter()
    with report.used(), hub_token():
        planned = plan(parameters, home)
    for line in filter(None, text_of(planned).splitlines()):
        report.line(f"matrix: {line}")
    if parameters.dry_run:
        _show(planned, {}, (), {})
        return MatrixReport(dispatched=[], measured=0, skipped=len(planned.cells))
    before = frozenset(BundleStore(home.bundles).run_ids())
    units = [unit for unit in planned.units if unit.parameters]
    outcomes = asyncio.run(dispatch(units, parameters.wait_h * 3600))
    for outcome in outcomes:
        joined = " (was in progress)" if outcome.joined else ""
        report.line(f"matrix: {outcome.name}{joined}: {outcome.problem or 'completed'}")
    published = [asyncio.run(run_once(name, PUBLISHING_WAIT_S)) for name in PUBLISHING]
    manifests = RunHistory.read(BundleStore(home.bundles)).runs
    gpu_hours = new_gpu_hours([cell.expected for cell in planned.due], manifests, before)
    missing = _missing(planned, outcomes, manifests, home)
    _show(planned, gpu_hours, outcomes, missing)
    problems = [f"{run.name}: {run.problem}" for run in (*outcomes, *published) if run.problem]
    problems += [f"{planned.due[index].title}: {reason}" for index, reason in missing.items()]
    problems += dict.fromkeys(
        f"{cell.title}: {cell.reason}" for cell in planned.cells if cell.state in FAULTS
    )
    if problems:
        raise RunError(
            f"{len(problems)} of it failed: {' | '.join(problems)}",
            where="matrix",
            hint="What was measured is kept; the next matrix tries the rest again.",
        )
    return MatrixReport(
        dispatched=[outcome.name for outcome in outcomes],
        measured=len(gpu_hours),
        skipped=sum(cell.state is not CellState.RUN for cell in planned.cells),
    )


def _missing(
    planned: Plan, outcomes: Sequence[Outcome], manifests: Sequence[Manifest], home: Home
) -> dict[int, str]:
    """Say why a checkpoint has no bundle though its run completed, by its index among those that were due."""
    completed = {outcome.name for outcome in outcomes if not outcome.problem}
    reasons = {
        index: why_missing(cell.expected, manifests, home.bundles)
        for index, cell in enumerate(planned.due)
        if cell.expected and run_name(cell.model, cell.pool) in completed
    }
    return {index: reason for index, reason in reasons.items() if reason}


def _show(
    planned: Plan, gpu_hours: Mapping[int, float], outcomes: Sequence[Outcome], missing: Mapping[int, str]
) -> None:
    create_markdown_artifact(
        markdown_of(planned, gpu_hours, {run.name: run.problem for run in outcomes}, missing),
        key="matrix",
        description="What ran, what was left out and why, what failed, what it took.",
    )
