"""The command ``quantgate``. Each verb is a module that imports what it needs when it runs, so that help is quick."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from commands.decide import prices
from commands.know import flips, import_, inspect_, judge, load, publish, sql, status
from commands.measure import demo, matrix, validate
from commands.operate import fleet
from commands.operate.doctor import doctor
from commands.output import say
from commands.terminated import Terminated
from commands.verb import VerbGroup
from quantgate.model.errors import ConfigError, QuantgateError, RunError

VERBS: tuple[click.Command, ...] = (
    # measure
    demo.command,
    validate.command,
    matrix.command,
    # know
    inspect_.command,
    load.command,
    judge.command,
    status.command,
    sql.command,
    flips.command,
    publish.command,
    import_.command,
    # decide
    prices.command,
    # operate
    fleet.command,
    doctor.command,
)


@click.group(
    cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="quantgate")
def cli() -> None:
    """Validate quantized LLM checkpoints: measure cost and quality, and judge them against their baseline.

    Exit status: 0 for success, 1 for a failed run, 2 for bad usage or configuration, 3 if a candidate is not
    VALIDATED (only with --require-validated).
    """


for verb in VERBS:
    cli.add_command(verb)


TERMINATED_WITHIN_S = 15.0
_STOPPED = {
    signal.SIGINT: "stopped; finished parts are kept, the same command goes on from there",
    signal.SIGTERM: "terminated; finished parts are kept, the same command goes on from there",
}


INTERRUPTED = "Query interrupted"
"""Error that DuckDB raises in place of what a signal's handler raises. If no signal was received here, it was SIGTERM:
while a flow runs, Prefect has its own handler for it."""

_received: list[int] = []
"""Signals that asked the command to stop. What they raise can arrive as another error, such as INTERRUPTED."""


def _on_sigint(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    raise KeyboardInterrupt


def _on_sigterm(number: int, _frame: FrameType | None) -> None:
    _received.append(number)
    # A spot host is gone 30 s later. Child processes are stopped by their launcher, however this process ends.
    last = threading.Timer(TERMINATED_WITHIN_S, _end_now)
    last.daemon = True
    last.start()
    raise Terminated


def _end_now() -> None:
    _say(_STOPPED[signal.SIGTERM])
    os._exit(128 + signal.SIGTERM)


def _say(text: str) -> None:
    say(f"quantgate: {text}", err=True)


def main() -> None:
    """Run the command; every expected failure ends in one line and an exit status, never in a traceback."""
    sys.excepthook = _show_unexpected
    _open_streams()
    signal.signal(signal.SIGTERM, _on_sigterm)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # nohup and a shell's & ignore it
        signal.signal(signal.SIGINT, _on_sigint)
    try:
        status = cli.main(standalone_mode=False)
        code = status if isinstance(status, int) else 0
    except BaseException as error:
        code = _report(error)
    _leave(code)


def _open_streams() -> None:
    """Open what the caller closed: a file that is opened later would get its number, and what is printed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - for the whole process


def _report(error: BaseException) -> int:
    """Print in one line what ended the command, and return its exit status.

    Raises:
        BaseException: the error itself, if it was not expected.
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
    if isinstance(error, NoArgsIsHelpError):
        error.show()
    elif isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "quantgate"
        _say(f"{error.format_message()} See `{path} --help`.")
    elif isinstance(error, click.ClickException):
        _say(error.format_message())
    if isinstance(error, click.ClickException):
        return ConfigError.exit_status
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError):
        _say(
            f"{error.filename or 'system'}: {error.strerror or error}. Check its path, owner and free space."
        )
        return RunError.exit_status
    raise error


def _show_unexpected(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    """Print the traceback of an error that nobody expected, without secrets: the interpreter's way out."""
    say("".join(traceback.format_exception(error)).rstrip(), err=True)


def _leave(code: int) -> NoReturn:
    """End the process after its exit handlers, but without the interpreter's own teardown.

    Prefect's background threads keep frames alive during teardown, and DuckDB's bindings would print a screenful of
    "leaked" objects after the table.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # all is done; a traceback would help nobody
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):
            stream.flush()
    os._exit(code)
