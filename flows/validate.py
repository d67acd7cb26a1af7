"""Validate candidates against their baseline on this host: measure, load, publish."""

from __future__ import annotations

from functools import partial

from prefect import flow
from prefect.runtime import flow_run

from flows import steps
from flows.fleet.publish_mode import artifact_key, load_and_publish
from flows.fleet.secrets import hub_token
from flows.load import load
from flows.parameters import PublishMode, ValidateParameters
from flows.planning.request import declare
from flows.planning.runs import plan_runs, prepared_runs
from flows.progress import reporter
from flows.publish import PublishParameters, publish
from flows.results import not_loaded
from flows.validation import Validation, complete
from quantgate.model.home import Home
from tasks.progress import Reporter


@flow(name="validate", validate_parameters=True)
def validate(parameters: ValidateParameters) -> Validation:
    """Measure a baseline and its candidates on this host, judge them, publish the table.

    Everything that can be wrong with the input is found before the first engine starts.
    """
    report = reporter()
    with report.used(), hub_token():
        return _validate(parameters, Home.current(), report)


def _validate(parameters: ValidateParameters, home: Home, report: Reporter) -> Validation:
    planned = prepared_runs() or plan_runs(parameters, declare(parameters, home), home, report)
    finish = partial(_finish, parameters.afterwards, report)
    return complete(
        planned, parameters, home, report, finish=finish, measure=steps.measure, steps=steps.STEPS
    )


def _finish(afterwards: PublishMode, report: Reporter, run_ids: list[str]) -> tuple[list[str], str | None]:
    """Load and publish as the parameters say; return what was not loaded, and the folder of the table."""
    match afterwards:
        case PublishMode.NOBODY:
            return [], None
        case PublishMode.FLEET:
            return load_and_publish(run_ids, report), None
        case PublishMode.HERE:
            loaded = load()
            folder = publish(PublishParameters(run_ids=run_ids, key=artifact_key(str(flow_run.id))))
            return not_loaded(run_ids, loaded.problems), str(folder)
