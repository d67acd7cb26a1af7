"""Ctrl-C and SIGTERM: one line, the right status, no process left."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from commands import main as cli
from tests.commands.test_command import validate
from tests.support.command import QUANTGATE, hear_ctrl_c, nothing_left
from tests.support.fake_engine import make
from tests.tasks.engine.test_process import wait_for
from warehouse.load import load_bundles


@pytest.mark.usefixtures("prefect_ready")
@pytest.mark.parametrize(
    ("sent", "status", "word"), [(signal.SIGINT, 130, "stopped"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_during_the_start_of_an_engine(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals, status: int, word: str
) -> None:
    monkeypatch.setenv("QUANTGATE_ENGINES_FILE", str(make(tmp_path, "hangs")))
    log = tmp_path / "log"
    with log.open("w") as err:
        process = subprocess.Popen(
            [QUANTGATE, *validate()],
            stdout=subprocess.DEVNULL,
            stderr=err,
            env=dict(os.environ),
            # A shell's background job, as this test may be part of, begins with SIGINT ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
    assert wait_for(lambda: "engine fake 9.9.9: start" in log.read_text(), 180)
    process.send_signal(sent)
    assert process.wait(timeout=60) == status
    assert nothing_left(home) == []
    told = log.read_text()
    assert (
        told.splitlines()[-1]
        == f"quantgate: {word}; finished parts are kept, the same command goes on from there"
    )
    assert "Traceback" not in told


@pytest.mark.parametrize(("received", "status", "word"), [(2, 130, "stopped"), (15, 143, "terminated")])
def test_a_signal_that_comes_out_as_another_error_is_still_the_signal(
    received: int, status: int, word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DuckDB turns what a signal's handler raises into its own `Query interrupted`."""
    monkeypatch.setattr(cli, "_received", [received])
    assert cli._report(RuntimeError("Query interrupted")) == status
    assert (
        capsys.readouterr().err
        == f"quantgate: {word}; finished parts are kept, the same command goes on from there\n"
    )


def test_an_interrupted_query_without_a_signal_of_ours_was_ended_by_sigterm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While a flow runs Prefect has its own handler for SIGTERM, and DuckDB hides what that raises."""
    monkeypatch.setattr(cli, "_received", [])
    assert cli._report(RuntimeError("Query interrupted")) == 143


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("rows", ["count(*)", "1"])
def test_a_signal_ends_an_endless_query(home: Path, sent: signal.Signals, status: int, rows: str) -> None:
    load_bundles(home / "warehouse.duckdb", home / "bundles")
    endless = f"SELECT {rows} FROM range(1000000) a, range(1000000) b WHERE a.range + b.range < 0"
    process = subprocess.Popen(
        [QUANTGATE, "sql", endless],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,  # noqa: PLW1509
    )
    assert wait_for(lambda: psutil.Process(process.pid).cpu_times().user > 3, 180), "it computes"
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.count("\n")) == (status, "", 1 if sent == signal.SIGTERM else 2)
    assert "Traceback" not in err


def test_an_error_that_nobody_expected_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        cli._report(ZeroDivisionError())


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_traceback(home: Path, closed: str) -> None:
    load_bundles(home / "warehouse.duckdb", home / "bundles")
    done = subprocess.run(
        f"{QUANTGATE} sql 'SELECT 42' {closed}", shell=True, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("", "42\n──\n42\n")
