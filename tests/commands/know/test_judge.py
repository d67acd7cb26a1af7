"""``quantgate judge`` on the demo's bundles."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from quantgate.model.config.policy import load_policy
from quantgate.model.home import ROOT
from tests.support.command import quantgate
from tests.support.demo_bundles import BUNDLES
from warehouse.load import load_bundles
from warehouse.query import query
from warehouse.rejudge import rejudge
from warehouse.report.post_hoc import post_hoc_table


def test_the_demo_under_another_policy(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_BUNDLES", str(BUNDLES))
    policies = yaml.safe_load((ROOT / "configs" / "policy.yaml").read_text())["policies"]
    for rule in policies["demo"]["families"].values():
        rule["margin"] = 0.12
    file = tmp_path / "looser.yaml"
    file.write_text(yaml.safe_dump({"policies": {"looser": policies["demo"]}}))
    done = quantgate("judge", "--policy", "looser", "--policy-file", str(file))
    assert (done.status, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 100
    assert "2 judged under 'looser'" in done.out
    assert "The declared verdict remains in force" in done.out
    nvfp4 = next(line for line in done.out.splitlines() if line.startswith("quantgate-demo-NVFP4  all"))
    assert "REJECTED (demo)" in nvfp4
    assert "VALIDATED" in nvfp4
    table = query(
        home / "warehouse.duckdb",
        "SELECT DISTINCT policy, verdict FROM validated_table WHERE precision = 'nvfp4' AND use = 'all'",
    )
    assert table.to_pylist() == [{"policy": "demo", "verdict": "REJECTED"}]


@pytest.mark.parametrize("width", [80, 100])
def test_the_table_fits_the_terminal_and_cuts_nothing(home: Path, width: int) -> None:
    load_bundles(home / "warehouse.duckdb", BUNDLES)
    report = rejudge(home / "warehouse.duckdb", str(BUNDLES), "standard", load_policy("standard"))
    lines = post_hoc_table(home / "warehouse.duckdb", report, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    (nvfp4,) = (
        line for line in lines if line.startswith(("nvfp4 ", "quantgate-demo-NVFP4 ")) and " all " in line
    )
    assert nvfp4.endswith("-7.70 [-10.08, -5.36]")


def test_an_unknown_policy_is_one_line() -> None:
    done = quantgate("judge", "--policy", "standart")
    assert (done.status, done.out) == (2, "")
    assert (
        done.err == "quantgate: configs/policy.yaml: nothing is called 'standart'. Did you mean 'standard'?\n"
    )
