"""Take new bundles into the warehouse."""

from __future__ import annotations

from prefect import flow
from pydantic import BaseModel, Field

from quantgate.model.home import Home
from tasks.progress import Reporter
from warehouse.load import LoadReport, load_bundles


class LoadParameters(BaseModel):
    """Parameters of the flow ``load``."""

    wait_s: float = Field(
        default=600, gt=0, title="Wait, s", description="How long to wait for another load."
    )


@flow(name="load", validate_parameters=True)
def load(parameters: LoadParameters | None = None) -> LoadReport:
    """Load every new bundle of the home into its warehouse, and judge the candidates among them."""
    parameters = parameters or LoadParameters()
    home, report = Home.current(), Reporter.current()
    with report.step("load: bundles into the warehouse"):
        done = load_bundles(home.warehouse, home.bundles, wait_s=parameters.wait_s)
    for problem in done.problems:
        report.line(f"load: left out: {problem}")
    report.line(f"load: {len(done.loaded)} new runs, {done.present} known, {len(done.judged)} judged")
    return done
