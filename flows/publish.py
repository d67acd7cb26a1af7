"""Publish the validated table as files and as artifacts in Prefect."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for
from pydantic import Field

from flows.parameters import Parameters
from flows.progress import reporter
from flows.results import publish_files
from quantgate.model.home import Home
from quantgate.model.text import inert
from warehouse.query import query
from warehouse.report.summary import summary_table
from warehouse.report.verdict_page import verdict_page

# As many columns as fit a table in a browser; the files have every column.
ARTIFACT = """
    SELECT run_id, model, precision, gpu, operating_point, use, verdict, quality_delta, quality_delta_ci_low,
           quality_delta_ci_high, output_tok_s, usd_per_mtok_output, provider, price_kind, kernel_mode,
           evidence
    FROM validated_table_at('{as_of}') ORDER BY ALL
"""


class PublishParameters(Parameters):
    """Choose the prices, and the runs that get a table of their own."""

    as_of: datetime | None = Field(
        default=None, description="Use the prices of this time (UTC). Default: now."
    )
    run_ids: list[str] = Field(
        default_factory=list,
        title="Runs",
        description="Make a table of these runs alone, too. Default: none.",
    )
    key: str = Field(default="runs", description="Call that table so among the artifacts.")
    flow_run_id: UUID | None = Field(
        default=None,
        title="Flow run",
        description="Show the runs' verdict on the page of this flow run. Default: on none.",
    )


@flow(name="publish", validate_parameters=True)
def publish(parameters: PublishParameters | None = None) -> Path:
    """Write ``validated_table.{parquet,csv,md}`` and show the table as artifacts."""
    parameters = parameters or PublishParameters()
    home, report = Home.current(), reporter()
    done = publish_files(home, report, parameters.as_of)
    rows: list[dict[str, Any]] = [
        {name: inert(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in query(home.warehouse, ARTIFACT.format(as_of=done.as_of)).to_pylist()
    ]
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
    """Show the runs' own table: as it is printed in a terminal, as rows, and on the page of their flow run."""
    text = summary_table(home.warehouse, as_of, run_ids=parameters.run_ids, published=False)
    text = text.replace("```", "'''")  # it would end the block
    create_markdown_artifact(f"```text\n{text}\n```", key=parameters.key, description=f"As of {as_of}")
    own = [row for row in rows if row["run_id"] in parameters.run_ids]
    create_table_artifact(table=own, key=f"{parameters.key}-rows", description=f"As of {as_of}")
    if parameters.flow_run_id and own:
        _show_verdict(parameters, parameters.flow_run_id, home, as_of, own[0])


def _show_verdict(
    parameters: PublishParameters, flow_run_id: UUID, home: Home, as_of: datetime, row: dict[str, Any]
) -> None:
    """Give the flow run the page of its verdict. The key is model and GPU, so that pages have a history."""
    whole = url_for("flow-run", obj_id=str(flow_run.id)) if flow_run.id else None
    links = (
        {"The whole validated table, among the artifacts of the run that published it": whole}
        if whole
        else {}
    )
    page = verdict_page(home.warehouse, as_of, parameters.run_ids, home.bundles, links)
    name = re.sub("[^a-z0-9]+", "-", f"{row['model']} {row['gpu']}".lower()).strip("-")
    with get_client(sync_client=True) as client:
        client.create_artifact(
            ArtifactCreate(
                key=f"verdict-{name}",
                type="markdown",
                description=f"At the prices of {as_of:%Y-%m-%d %H:%M} UTC.",
                data=page,
                flow_run_id=flow_run_id,
            )
        )
