"""Import a file of price offers, and price everything with them."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from pydantic import Field

from flows.parameters import Parameters
from quantgate.model.home import Home
from tasks.progress import Reporter
from warehouse.configuration import import_prices
from warehouse.load import load_bundles
from warehouse.prices.offers import BadOffersError, PriceImport


class PricesParameters(Parameters):
    """Parameters of the flow ``prices``."""

    file: Path = Field(title="File", description="CSV or JSON of offers, on the host that runs the flow.")


@flow(name="prices", validate_parameters=True)
def prices(parameters: PricesParameters) -> PriceImport:
    """Import the offers of a file, all of them or none, and load: history is priced anew."""
    home, report = Home.current(), Reporter.current()
    try:
        done = import_prices(parameters.file, home.warehouse)
    except BadOffersError as error:
        for problem in error.problems:
            report.line(f"prices: {problem}")
        raise
    load_bundles(home.warehouse, home.bundles)
    report.line(f"prices: {done.imported} offers imported, {done.known} known already")
    return done
