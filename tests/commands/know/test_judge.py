"""``quantgate judge`` on the demo's bundles."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from quantgate.model.home import ROOT
from tests.support.command import quantgate
from tests.support.demo_bundles import BUNDLES
from warehouse.query import query


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


def test_an_unknown_policy_is_one_line() -> None:
    done = quantgate("judge", "--policy", "standart")
    assert (done.status, done.out) == (2, "")
    assert (
        done.err == "quantgate: configs/policy.yaml: nothing is called 'standart'. Did you mean 'standard'?\n"
    )
