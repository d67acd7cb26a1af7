"""The command ``quantgate``: one verb a module; a verb imports what it needs itself, so help is quick."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from quantgate.cli import demo, doctor, flips, import_, judge, load, prices, publish, sql, status, validate
from quantgate.model.errors import ConfigError, QuantgateError, RunError

VERBS: tuple[click.Command, ...] = (
    demo.command,
    validate.command,
    load.command,
    judge.command,
    import_.command,
    prices.command,
    publish.command,
    sql.command,
    flips.command,
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


class _Terminated(BaseException):
    """SIGTERM arrived; unwinds like Ctrl-C, so that engines stop and finished parts stay."""


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    raise _Terminated


def _say(text: str) -> None:
    click.echo(f"quantgate: {text}", err=True)


def main() -> None:
    """Entry point: every expected failure is one line and its exit status, never a traceback."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        status = cli.main(standalone_mode=False)
        code = status if isinstance(status, int) else 0
    except QuantgateError as error:
        _say(str(error))
        code = error.exit_status
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "quantgate"
        _say(f"{error.format_message()} See `{path} --help`.")
        code = ConfigError.exit_status
    except click.ClickException as error:
        _say(error.format_message())
        code = ConfigError.exit_status
    except (KeyboardInterrupt, click.Abort):
        _say("stopped; finished parts are kept, the same command goes on from there")
        code = 130
    except _Terminated:
        _say("terminated; finished parts are kept, the same command goes on from there")
        code = 143
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            _leave(0)
        _say(
            f"{error.filename or 'system'}: {error.strerror or error}. Check the place, its owner and its space."
        )
        code = RunError.exit_status
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End in order, but without the interpreter's own teardown.

    Prefect's background threads keep frames alive into it, for which DuckDB's bindings print a screenful of
    "leaked" objects after the table.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
