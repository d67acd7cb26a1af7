"""Validate on this machine, with a Prefect server of its own only where something is to be measured."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from commands.outcome import show_outcome
from flows.parameters import ValidateParameters
from quantgate.model.home import Home

if TYPE_CHECKING:
    from flows.validation import Validation


def run_here(
    parameters: ValidateParameters,
    home: Home,
    run_flow: Callable[[], Validation],
    *,
    require_validated: bool,
    published: bool = False,
) -> int:
    """Plan the runs, measure what is missing, print the table; return the exit status.

    Args:
        parameters: of the validation.
        home: whose bundles and warehouse.
        run_flow: imports and calls the flow; it measures the runs that were planned here.
        require_validated: whether to return 3 unless every candidate is VALIDATED.
        published: whether to print published figures below the table, for comparison.
    """
    from commands.runtime import expected_failures, in_process
    from flows.planning.request import declare
    from flows.planning.runs import plan_runs, prepared
    from flows.validation import complete, finish_here
    from tasks.progress import Reporter

    report = Reporter.current()
    planned = plan_runs(parameters, declare(parameters, home), home, report)
    if planned.nothing_to_measure:
        result = complete(planned, parameters, home, report, finish=partial(finish_here, home, report))
    else:
        with in_process(home), expected_failures(), prepared(planned):
            result = run_flow()
    return show_outcome(home, result, require_validated=require_validated, published=published)
