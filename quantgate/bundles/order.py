"""Which run came first: by what each run could see when it was declared, never by a host's clock.

Before a run asks anything it is declared in the bundles store, with a number one higher than every number that the
store shows then: a Lamport clock (L. Lamport, "Time, clocks, and the ordering of events in a distributed system",
Communications of the ACM 21, 1978, 558-565). So whatever a run could have seen comes before it, however wrong the
clocks are. Two runs that were declared without seeing each other may share a number; then the start's time and the
run's id settle it, which nothing measured can influence. docs/decisions/0015-which-run-came-first.md has the reasons.

The SQL macro ``run_order`` (warehouse/views/005_order.sql) is the same rule for the warehouse.
"""

from __future__ import annotations

from datetime import datetime

from quantgate.bundles.claims import Declaration
from quantgate.bundles.manifest import Manifest


def declared_order(run: Manifest | Declaration) -> tuple[int, datetime, str]:
    """Return what runs are sorted by, the first declared first; bundles of earlier versions come before all others."""
    started_at = run.started_at if isinstance(run, Manifest) else run.declared_at
    return run.declared_order, started_at, run.run_id


def counts_as_fresh(number: int, fresh_after: int | None) -> bool:
    """Return True if a run of this number was declared since measuring anew began; None: any run counts."""
    return fresh_after is None or number > fresh_after
