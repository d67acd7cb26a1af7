"""Run the command in this process: as a user types it, without starting an interpreter for each case."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from commands import main as cli
from tests.support.command import Ended


@contextmanager
def _kept_environment() -> Iterator[None]:
    kept = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str) -> Ended:
    """Run ``quantgate ARGUMENTS`` up to its exit status; for what is refused before a flow begins."""

    class Left(BaseException):
        pass

    ended: list[int] = []

    def leave(code: int) -> None:
        ended.append(code)
        raise Left

    monkeypatch.setattr(cli, "_leave", leave)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["quantgate", *arguments])
    monkeypatch.setattr("__main__.__package__", None, raising=False)  # else click calls it `python -m pytest`
    with _kept_environment(), pytest.raises(Left):
        cli.main()
    out, err = capfd.readouterr()
    return Ended(ended[0], out, err)
