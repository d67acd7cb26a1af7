"""Publish the validated table as files and as artifacts in Prefect."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from pydantic import Field

from flows.parameters import Parameters
from flows.progress import reporter
from flows.results import publish_files
from quantgate.model.home import Home
from warehouse.query import query
from warehouse.report.summary import summary_table

# As many columns as fit a table in a browser; the files have every column.
ARTIFACT = """
    SELECT run_id, model, precision, gpu, operating_point, use, verdict, quality_delta, quality_delta_ci_low,
           quality_delta_ci_high, output_tok_s, usd_per_mtok_output, provider, price_kind, kernel_mode,
           evidence
    FROM validated_table_at('{as_of}') ORDER BY ALL
"""


class PublishParameters(Parameters):
    """Parameters of the flow ``publish``."""

    as_of: datetime | None = Field(
        default=None, description="Time (UTC) whose prices are used. Default: now."
    )
    run_ids: list[str] = Field(
        default_factory=list, title="Runs", description="Runs that get a table of their own. Default: none."
    )
    key: str = Field(default="runs", description="Key of that table among the artifacts.")


@flow(name="publish", validate_parameters=True)
def publish(parameters: PublishParameters | None = None) -> Path:
    """Write ``validated_table.{parquet,csv,md}`` and show the table as artifacts."""
    parameters = parameters or PublishParameters()
    home, report = Home.current(), reporter()
    done = publish_files(home, report, parameters.as_of)
    rows: list[dict[str, Any]] = query(home.warehouse, ARTIFACT.format(as_of=done.as_of)).to_pylist()
    create_table_artifact(table=rows, key="validated-table", description=f"As of {done.as_of}")
    create_markdown_artifact(
        summary_table(home.warehouse, done.as_of, markdown=True),
        key="validated-summary",
        description=f"As of {done.as_of}",
    )
    if parameters.run_ids:
        _show_runs(parameters, home, done.as_of, rows)
    return home.published


def _show_runs(
    parameters: PublishParameters, home: Home, as_of: datetime, rows: list[dict[str, Any]]
) -> None:
    """Show the runs' own table: as it is printed in a terminal, and as rows."""
    text = summary_table(home.warehouse, as_of, run_ids=parameters.run_ids, published=False)
    create_markdown_artifact(f"```text\n{text}\n```", key=parameters.key, description=f"As of {as_of}")
    own = [row for row in rows if row["run_id"] in parameters.run_ids]
    create_table_artifact(table=own, key=f"{parameters.key}-rows", description=f"As of {as_of}")
