"""The command ``quantgate``: one verb a module; a verb imports what it needs itself, so help is quick."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

import click

from commands.decide import prices
from commands.know import flips, import_, judge, load, publish, sql, status
from commands.measure import demo, matrix, validate
from commands.operate import fleet
from commands.operate.doctor import doctor
from quantgate.model.errors import ConfigError, QuantgateError, RunError

VERBS: tuple[click.Command, ...] = (
    demo.command,
    validate.command,
    matrix.command,
    load.command,
    judge.command,
    import_.command,
    prices.command,
    publish.command,
    sql.command,
    flips.command,
    fleet.command,
    status.command,
    doctor.command,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="quantgate")
def cli() -> None:
    """Measured cost per token, joined with a paired and statistically decided quality delta.

    Exit status: 0 done, 1 the run failed, 2 bad usage or configuration, 3 done but a candidate is not
    VALIDATED (only with --require-validated).
    """


for verb in VERBS:
    cli.add_command(verb)


TERMINATED_WITHIN_S = 15.0
_STOPPED = {
    signal.SIGINT: "stopped; finished parts are kept, the same command goes on from there",
    signal.SIGTERM: "terminated; finished parts are kept, the same command goes on from there",
}


class _Terminated(BaseException):
    """SIGTERM arrived; unwinds like Ctrl-C, so that engines stop and finished parts stay."""


INTERRUPTED = "Query interrupted"
"""What DuckDB makes of whatever a signal's handler raises. Without a signal received here it was SIGTERM: while a flow
runs Prefect has a handler of its own for that one."""

_received: list[int] = []
"""Signals that told us to stop: what they raise can come out as something else, as DuckDB's `Query interrupted`."""


def _on_sigint(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    raise KeyboardInterrupt


def _on_sigterm(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    # A spot host is gone 30 s later. What is tied to us is stopped by its launcher, however we end.
    last = threading.Timer(TERMINATED_WITHIN_S, _end_now)
    last.daemon = True
    last.start()
    raise _Terminated


def _end_now() -> None:
    _say(_STOPPED[signal.SIGTERM])
    os._exit(128 + signal.SIGTERM)


def _say(text: str) -> None:
    click.echo(f"quantgate: {text}", err=True)


def main() -> None:
    """Entry point: every expected failure is one line and its exit status, never a traceback."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # nohup and a shell's & ignore it
        signal.signal(signal.SIGINT, _on_sigint)
    try:
        status = cli.main(standalone_mode=False)
        code = status if isinstance(status, int) else 0
    except BaseException as error:
        code = _told(error)
    _leave(code)


def _told(error: BaseException) -> int:
    """Say in one line what ended the command; its exit status.

    Raises:
        BaseException: the error itself, where nobody expected it.
    """
    if isinstance(error, RuntimeError) and str(error) == INTERRUPTED and not _received:
        _received.append(signal.SIGTERM)
    if _received or isinstance(error, KeyboardInterrupt | click.Abort):
        number = _received[0] if _received else signal.SIGINT
        _say(_STOPPED[signal.Signals(number)])
        return 128 + number
    if isinstance(error, QuantgateError):
        _say(str(error))
        return error.exit_status
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "quantgate"
        _say(f"{error.format_message()} See `{path} --help`.")
        return ConfigError.exit_status
    if isinstance(error, click.ClickException):
        _say(error.format_message())
        return ConfigError.exit_status
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError):
        _say(
            f"{error.filename or 'system'}: {error.strerror or error}. Check the place, its owner and its space."
        )
        return RunError.exit_status
    raise error


def _leave(code: int) -> NoReturn:
    """End in order, but without the interpreter's own teardown.

    Prefect's background threads keep frames alive into it, for which DuckDB's bindings print a screenful of
    "leaked" objects after the table.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # all is done; a traceback of the teardown would tell nobody
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):
            stream.flush()
    os._exit(code)
