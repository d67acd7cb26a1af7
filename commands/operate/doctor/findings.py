"""Print what ``quantgate doctor`` finds, one line for each finding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from commands.output import say


class Finding(NamedTuple):
    """A line of the report; its state is ok, note or problem."""

    state: str
    what: str
    detail: str


def show(findings: Iterable[Finding], width: int = 13) -> int:
    """Print findings as they come.

    Args:
        findings: the lines.
        width: of the column that says what a line is about, in characters.

    Returns:
        Number of problems.
    """
    problems = 0
    for finding in findings:
        problems += finding.state == "problem"
        say(f"{finding.state:<8}{finding.what:<{width}}{finding.detail}")
    return problems
