"""Validate candidates against their baseline on this host: measure, load, publish."""

from __future__ import annotations

from functools import partial
from typing import cast

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Completed

from flows import steps
from flows.fleet.publish_mode import artifact, artifact_key, load_and_publish
from flows.fleet.secrets import hub_token
from flows.load import load
from flows.naming import own_name, tag_own_run
from flows.parameters import PublishMode, ValidateParameters
from flows.planning.request import declare
from flows.planning.runs import plan_runs, prepared_runs
from flows.progress import reporter, without_secrets
from flows.publish import PublishParameters, publish
from flows.results import not_loaded
from flows.validation import Validation, complete
from quantgate.model.home import Home
from quantgate.model.words import counted
from tasks.progress import Reporter
from warehouse.report.verdict_page import verdict_line


@flow(name="validate", flow_run_name=own_name, validate_parameters=True)
def validate(parameters: ValidateParameters) -> Validation:
    """Measure a baseline and its candidates on this host, judge them, publish the table.

    Everything that can be wrong with the input is found before the first engine starts. The run's state says the
    verdicts. A run that ends with REJECTED is a completed one: it has done what it was asked.
    """
    report = reporter()
    with report.used(), hub_token(), without_secrets():
        tag_own_run(parameters)
        done = _validate(parameters, Home.current(), report)
    # Prefect keeps the message with the state, and its caller gets the data.
    return cast("Validation", Completed(message=_ending(done), data=done))


def _ending(done: Validation) -> str:
    """Return the verdicts in a line, as the table has them that was just published."""
    with get_client(sync_client=True) as client:
        rows = artifact(client, f"{artifact_key(str(flow_run.id))}-rows")
    return (
        verdict_line(rows or [])
        or f"{counted(len(done.run_ids), 'checkpoint')} measured, no verdict published"
    )


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
            own = PublishParameters(
                run_ids=run_ids, key=artifact_key(str(flow_run.id)), flow_run_id=flow_run.id
            )
            folder = publish(own)
            return not_loaded(run_ids, loaded.problems), str(folder)
