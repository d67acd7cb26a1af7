"""Where a flow's progress goes: on a server into the run's log, which the UI and ``--watch`` show."""

from __future__ import annotations

import logging

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from tasks.progress import Reporter


def reporter() -> Reporter:
    """The current flow run's reporter.

    A flow of this process logs nothing (its private server has Prefect's logging off), so its lines go to the
    terminal. Lines of a worker's run all belong to the run that asked, whichever task or thread tells them.
    """
    try:
        log = get_run_logger()
    except MissingContextError:
        return Reporter.current()
    return Reporter(log.info) if log.isEnabledFor(logging.INFO) else Reporter.current()
