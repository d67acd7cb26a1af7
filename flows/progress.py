"""Report a flow's progress: on a server into the run's log, which the UI and ``--watch`` show."""

from __future__ import annotations

import logging

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from tasks.progress import Reporter


def reporter() -> Reporter:
    """Return the reporter of the current flow run.

    A flow of this process logs nothing (its private server has Prefect's logging off), so its lines go to the
    terminal. On a worker, lines of all tasks and threads go into the log of the run that called this.
    """
    try:
        log = get_run_logger()
    except MissingContextError:
        return Reporter.current()
    return Reporter(log.info) if log.isEnabledFor(logging.INFO) else Reporter.current()
