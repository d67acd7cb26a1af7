"""Report a flow's progress: on a server into the run's log, which the UI and ``--watch`` show."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from quantgate.model.errors import QuantgateError, RunError
from quantgate.model.secrets import redact
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
    if not log.isEnabledFor(logging.INFO):
        return Reporter.current()
    _silence_teardown()
    _redact_records()
    return Reporter(log.info)


@contextmanager
def without_secrets() -> Iterator[None]:
    """Raise an unexpected error that quotes a secret as a line without it: the server keeps what ended a run.

    Raises:
        RunError: in place of such an error.
    """
    try:
        yield
    except QuantgateError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        if redact(text) == text:
            raise
        raise RunError(text) from None


@cache
def _redact_records() -> None:
    """Strike secrets out of everything that this process logs: Prefect sends an error's traceback to its server."""
    make = logging.getLogRecordFactory()
    write = logging.Formatter().formatException

    def redacted(*given: Any, **named: Any) -> logging.LogRecord:
        record = make(*given, **named)
        text = record.getMessage()
        if (clean := redact(text)) != text:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redact(write(record.exc_info))
        return record

    logging.setLogRecordFactory(redacted)


@cache
def _silence_teardown() -> None:
    """Keep the interpreter's own teardown out of a worker's log; all that a flow says is there by then.

    Prefect's background threads keep frames alive, and DuckDB's bindings (nanobind) would report a screenful of
    "leaked" objects after each run. The command leaves without that teardown; Prefect's process can't.
    """

    def silence() -> None:
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

    atexit.register(silence)
