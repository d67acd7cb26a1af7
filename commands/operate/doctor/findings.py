"""What ``quantgate doctor`` says: one line a finding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import click


class Finding(NamedTuple):
    """One line of the report: ok, note or problem."""

    state: str
    what: str
    detail: str


def show(findings: Iterable[Finding], width: int = 13) -> int:
    """Print findings as they come.

    Args:
        findings: what was seen.
        width: of the column that says what a line is about, in characters.

    Returns:
        How many are problems.
    """
    problems = 0
    for finding in findings:
        problems += finding.state == "problem"
        click.echo(f"{finding.state:<8}{finding.what:<{width}}{finding.detail}")
    return problems
