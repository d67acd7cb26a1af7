"""Publish the validated table: files, and artifacts in Prefect."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from pydantic import BaseModel, Field

from quantgate.model.home import Home
from tasks.progress import Reporter
from warehouse.publish import publish as write_files
from warehouse.query import query
from warehouse.summary import summary_table

# What fits a table in a browser; the files hold every column.
ARTIFACT = """
    SELECT model, precision, gpu, operating_point, use, verdict, quality_delta, quality_delta_ci_low,
           quality_delta_ci_high, output_tok_s, usd_per_mtok_output, provider, price_kind, kernel_mode,
           evidence
    FROM validated_table_at('{as_of}') ORDER BY ALL
"""


class PublishParameters(BaseModel):
    """Parameters of the flow ``publish``."""

    as_of: datetime | None = Field(
        default=None, title="As of", description="The time whose prices are used; now if empty."
    )


@flow(name="publish", validate_parameters=True)
def publish(parameters: PublishParameters | None = None) -> Path:
    """Write ``validated_table.{parquet,csv,md}`` and show the table as artifacts."""
    parameters = parameters or PublishParameters()
    home, report = Home.current(), Reporter.current()
    with report.step(f"publish: the validated table to {home.published}"):
        done = write_files(home.warehouse, home.published, parameters.as_of)
        rows: list[dict[str, Any]] = query(home.warehouse, ARTIFACT.format(as_of=done.as_of)).to_pylist()
        create_table_artifact(table=rows, key="validated-table", description=f"As of {done.as_of}")
        create_markdown_artifact(
            summary_table(home.warehouse, done.as_of, markdown=True),
            key="validated-summary",
            description=f"As of {done.as_of}",
        )
    return home.published
