"""``quantgate matrix``: the committed fleet's dry run, and what it says without a server."""

from __future__ import annotations

import pytest

from tests.support.command import quantgate
from tests.support.demo_bundles import BUNDLES


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_PROFILE", "ephemeral")


def test_the_committed_fleet_s_dry_run_needs_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_BUNDLES", str(BUNDLES))
    done = quantgate("matrix", "--model", "quantgate-demo", "--pool", "cpu", "--dry-run", "--everything")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[2].split() == [
        "cpu",
        "quantgate-demo",
        "bf16",
        "*",
        "would",
        "run",
        "1",
        "0.02",
        "<0.01",
        "measured",
    ]
    assert "Gets nothing: l40s, h100, h200, b200, b300 (it has no hosts)" in lines
    assert lines[-1] == "3 of 3 to be run, about 0.09 GPU-hours, 0.01 USD. Downloads aren't counted."


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (None, "Prefect: no server is configured"),
        ("http://127.0.0.1:9/api", "Prefect server http://127.0.0.1:9/api: does not answer ("),
    ],
)
def test_without_a_server_it_is_one_line(
    server: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if server:
        monkeypatch.setenv("PREFECT_API_URL", server)
    done = quantgate("matrix")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("quantgate: ")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_format_without_a_dry_run_is_refused() -> None:
    done = quantgate("matrix", "--format", "csv")
    assert (done.status, done.out) == (2, "")
    assert done.err == "quantgate: matrix: --format is for --dry-run. Add --dry-run, or leave --format out.\n"
