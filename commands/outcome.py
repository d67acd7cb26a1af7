"""Show the outcome of a validation: its table and its exit status."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from commands.output import say
from quantgate.model.home import Home

if TYPE_CHECKING:
    from flows.validation import Validation

NOT_VALIDATED = 3
EVERY_COLUMN = "quantgate sql --format record \"FROM validated_table WHERE use = 'all'\""
_VERDICTS = """
    SELECT run_id, verdict FROM validated_table WHERE use = 'all' GROUP BY ALL
"""


def terminal_width() -> int:
    """Return the columns of the terminal that is printed to, at most `WIDTH`; `WIDTH` where there is none."""
    from warehouse.report.blocks import WIDTH

    return min(shutil.get_terminal_size().columns, WIDTH) if sys.stdout.isatty() else WIDTH


def say_left_out(problems: Iterable[str]) -> None:
    """Print a line for each bundle or file that a load left out."""
    for problem in problems:
        say(f"quantgate: left out: {problem}", err=True)


def show_outcome(home: Home, result: Validation, *, require_validated: bool, published: bool = False) -> int:
    """Print the validated table; return 3 if a candidate has to be VALIDATED and is not.

    Args:
        home: whose warehouse.
        result: the runs.
        require_validated: True if every candidate has to be VALIDATED.
        published: True to print published figures below it, for comparison.
    """
    from warehouse.query import query
    from warehouse.report.summary import summary_table

    say()
    width = terminal_width()
    say(summary_table(home.warehouse, run_ids=result.run_ids, published=published, width=width))
    say(f"\nPublished in {result.published}. Every column, one a line:\n  {EVERY_COLUMN}")
    if not require_validated:
        return 0
    rows = query(home.warehouse, _VERDICTS).to_pylist()
    verdicts = {row["run_id"]: row["verdict"] for row in rows}
    candidates = [verdicts.get(run_id) for run_id in result.run_ids[1:]]
    return 0 if all(verdict == "VALIDATED" for verdict in candidates) else NOT_VALIDATED
