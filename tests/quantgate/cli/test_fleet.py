"""`quantgate fleet` and `validate --gpu` where no server helps: one line, exit status 2."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from quantgate.model.config import ROOT
from tests.command import quantgate


@pytest.fixture(autouse=True)
def no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))


def refused(*arguments: str) -> str:
    done = quantgate(*arguments)
    assert done.status == 2, done.err
    assert done.err.count("\n") == 1, done.err
    return done.err


def test_show_prints_the_committed_file() -> None:
    done = quantgate("fleet", "show")
    assert (done.status, done.out) == (0, (ROOT / "prefect.yaml").read_text())


def test_no_server_is_configured(tmp_path: Path) -> None:
    assert "no server is configured" in refused("fleet", "init")
    told = refused("validate", "quantgate-demo", "--gpu", "h100")
    assert "no server is configured" in told
    assert "PREFECT_API_URL=" in told


def test_the_server_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{probe.getsockname()[1]}/api")
        assert "does not answer" in refused("fleet", "init")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("validate", "quantgate-demo", "--gpu", "h10"), "Did you mean 'h100'"),
        (("validate", "quantgate-dem", "--gpu", "h100"), "Did you mean 'quantgate-demo'"),
        (("validate", "quantgate-demo", "--watch"), "Give --gpu too"),
        (("validate", "quantgate-demo", "--gpu", "h100", "--require-validated"), "Give --watch too"),
        (("fleet", "init", "--file", "nowhere.yaml"), "no such file"),
        (("fleet", "watch", "it"), "is no id of a run"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], told: str) -> None:
    assert told in refused(*arguments)
