"""Show the outcome of a validation: its table and its exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from quantgate.model.home import Home

if TYPE_CHECKING:
    from flows.validation import Validation

NOT_VALIDATED = 3
_VERDICTS = """
    SELECT run_id, verdict FROM validated_table WHERE use = 'all' GROUP BY ALL
"""


def show_outcome(home: Home, result: Validation, *, require_validated: bool) -> int:
    """Print the validated table; return 3 if a candidate has to be VALIDATED and is not."""
    from warehouse.query import query
    from warehouse.report.summary import summary_table

    click.echo()
    click.echo(summary_table(home.warehouse, run_ids=result.run_ids))
    click.echo(
        f"\nPublished in {result.published}. `quantgate sql 'FROM validated_table'` shows every column."
    )
    if not require_validated:
        return 0
    rows = query(home.warehouse, _VERDICTS).to_pylist()
    verdicts = {row["run_id"]: row["verdict"] for row in rows}
    candidates = [verdicts.get(run_id) for run_id in result.run_ids[1:]]
    return 0 if all(verdict == "VALIDATED" for verdict in candidates) else NOT_VALIDATED
