"""Load new bundles into the warehouse and publish the table; the flows ``load`` and ``publish`` wrap these."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from quantgate.model.home import Home
from quantgate.model.words import counted
from tasks.progress import Reporter
from warehouse.load import LoadReport, load_bundles
from warehouse.report.publish import Published
from warehouse.report.publish import publish as write_files


def load_new(home: Home, report: Reporter, wait_s: float = 600) -> LoadReport:
    """Load every new bundle of the home into its warehouse, and judge the candidates among them.

    Args:
        home: whose bundles and warehouse.
        report: gets a line about what was loaded, and one for each bundle that was left out.
        wait_s: seconds to wait for another load to end.
    """
    with report.step("load: bundles into the warehouse"):
        done = load_bundles(home.warehouse, home.bundles, wait_s=wait_s)
    for problem in done.problems:
        report.line(f"load: left out: {problem}")
    new = counted(len(done.loaded), "new run")
    report.line(f"load: {new}, {done.present} loaded before, {len(done.judged)} judged")
    return done


def not_loaded(run_ids: Sequence[str], problems: Sequence[str]) -> list[str]:
    """Return the problems of a load that concern these runs."""
    return [problem for problem in problems if any(run_id in problem for run_id in run_ids)]


def publish_files(home: Home, report: Reporter, as_of: datetime | None = None) -> Published:
    """Write ``validated_table.{parquet,csv,md}`` of the home, at the prices of a time (UTC; now if None)."""
    with report.step(f"publish: the validated table to {home.published}"):
        return write_files(home.warehouse, home.published, as_of)
