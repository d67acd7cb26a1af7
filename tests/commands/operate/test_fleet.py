"""`quantgate fleet` and `validate --gpu` where no server helps: one line, exit status 2."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantgate.model.home import ROOT
from tests.support.command import Ended, quantgate
from tests.support.command_in_process import run


@pytest.fixture(autouse=True)
def no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))


def refused(*arguments: str) -> str:
    return one_line(quantgate(*arguments))


def one_line(done: Ended) -> str:
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
        (("fleet", "watch", "it"), "is not the id of a run"),
    ],
)
def test_bad_input_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    told: str,
) -> None:
    assert told in one_line(run(monkeypatch, capfd, *arguments))


@pytest.mark.parametrize(
    ("pool", "matrix", "told"),
    [
        ({"gpu": "h10o"}, {}, "fleet.yaml: pools.fast.gpu: nothing is called 'h10o'. Did you mean 'h100'?"),
        (
            {"simulated_by": "cpv"},
            {},
            "pools.fast.simulated_by: nothing is called 'cpv'. Did you mean 'cpu'?",
        ),
        ({"engine": "vlm"}, {}, "pools.fast.engine: nothing is called 'vlm'. Did you mean 'vllm'?"),
        ({}, {"models": ["quantgate-dem"]}, "matrix.models: nothing is called 'quantgate-dem'. Did you mean"),
        ({}, {"precisions": ["fp7"]}, "matrix.precisions: nothing is called 'fp7'. Did you mean 'fp8'?"),
        ({}, {"cron": "0 25 * * *"}, "matrix.cron: '0 25 * * *' is not a cron schedule. Write five fields"),
        (
            {},
            {"timezone": "Europe/Berlim"},
            "matrix.timezone: nothing is called 'Europe/Berlim'. Did you mean",
        ),
    ],
)
def test_what_a_fleets_file_names_is_checked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    pool: dict[str, Any],
    matrix: dict[str, Any],
    told: str,
) -> None:
    file = tmp_path / "fleet.yaml"
    pools = {"cpu": {"gpu": "cpu"}, "fast": {"gpu": "h100"} | pool}
    file.write_text(yaml.safe_dump({"pools": pools, "matrix": {"models": ["quantgate-demo"]} | matrix}))
    monkeypatch.setenv("QUANTGATE_FLEET", str(file))
    done = run(monkeypatch, capfd, "fleet", "show")
    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1), done.err
    assert told in done.err


def test_init_checks_before_it_asks_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused_here(*arguments: str) -> str:
        return one_line(run(monkeypatch, capfd, *arguments))

    monkeypatch.setenv("QUANTGATE_FLEET", str(tmp_path / "nowhere.yaml"))
    assert "no such file" in refused_here("fleet", "init")
    file = tmp_path / "fleet.yaml"
    file.write_text("pools: {cpu: {gpu: cpu}}\nmatrix: {models: [quantgate-demo], cron: daily}\n")
    monkeypatch.setenv("QUANTGATE_FLEET", str(file))
    assert "'daily' is not a cron schedule" in refused_here("fleet", "init")
    assert "no such option" in refused_here("fleet", "init", "--file", str(file)).lower()
