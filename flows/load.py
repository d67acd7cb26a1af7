"""Load new bundles into the warehouse."""

from __future__ import annotations

from prefect import flow
from pydantic import Field

from flows.parameters import Parameters
from flows.progress import reporter
from flows.results import load_new, not_loaded
from quantgate.model.errors import RunError
from quantgate.model.home import Home
from warehouse.load import LoadReport
from warehouse.query import query


class LoadParameters(Parameters):
    """Choose how long to wait, and the runs that must be loaded."""

    wait_s: float = Field(
        default=600, gt=0, title="Wait, s", description="Wait so many seconds for another load to end."
    )
    run_ids: list[str] = Field(
        default_factory=list,
        title="Runs",
        description="Fail unless these runs are in the warehouse afterwards. Default: none.",
    )


@flow(name="load", validate_parameters=True)
def load(parameters: LoadParameters | None = None) -> LoadReport:
    """Load every new bundle of the home into its warehouse, and judge the candidates among them."""
    parameters = parameters or LoadParameters()
    home, report = Home.current(), reporter()
    done = load_new(home, report, parameters.wait_s)
    if parameters.run_ids:
        _check_loaded(parameters.run_ids, home, done)
    return done


def _check_loaded(run_ids: list[str], home: Home, done: LoadReport) -> None:
    """Fail if any requested run is missing from the warehouse.

    Raises:
        RunError: a run is missing.
    """
    loaded = query(home.warehouse, "SELECT run_id FROM runs").column("run_id").to_pylist()
    missing = [run_id for run_id in run_ids if run_id not in loaded]
    if missing:
        reasons = not_loaded(missing, done.problems)
        hint = f"No such bundles in {home.bundles}: do all hosts share QUANTGATE_BUNDLES?"
        raise RunError(
            " | ".join([f"not in the warehouse: {', '.join(missing)}", *reasons]),
            where="load",
            hint="" if reasons else hint,
        )
