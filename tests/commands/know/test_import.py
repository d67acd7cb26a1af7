"""``quantgate import`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from commands.main import cli
from quantgate.model.errors import ConfigError

RESULT = {
    "ID": "5.0-0999",
    "Submitter": "Nobody",
    "Availability": "available",
    "Category": "closed",
    "Suite": "datacenter",
    "System": "8x H200-SXM-141GB",
    "Model": "llama2-70b-99",
    "Scenario": "Offline",
    "Nodes": 1,
    "Accelerator": "NVIDIA H200-SXM-141GB",
    "a#": 8,
    "Software": "TensorRT 10.8, CUDA 12.8",
    "version": "v5.0",
    "weight_data_types": "fp8",
    "Performance_Result": 30000.0,
    "Performance_Units": "Tokens/s",
}


def test_a_round_is_imported_and_asked_for(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "summary_results.json"
    file.write_text(json.dumps([RESULT | {"Nodes": 0}]))
    refused = CliRunner().invoke(cli, ["import", str(file)], standalone_mode=False)
    assert isinstance(refused.exception, ConfigError)
    assert str(refused.exception).startswith("summary_results.json: element 0: key 'Nodes': ")
    assert not (home / "warehouse.duckdb").exists()

    file.write_text(json.dumps([RESULT]))
    imported = CliRunner().invoke(cli, ["import", str(file)], standalone_mode=False)
    assert (imported.return_value, imported.exception) == (0, None)
    assert imported.stdout.startswith(
        f"1 result imported, 0 others left out, kept in {home}/evidence/mlperf-v5.0-"
    )
    sql = (
        "SELECT round(usd_per_mtok_output, 3) AS usd FROM published_costs_at('2026-04-01') "
        "WHERE entry = '5.0-0999' AND price_kind = 'spot'"
    )
    asked = CliRunner().invoke(cli, ["sql", sql, "--format", "csv"], standalone_mode=False)
    assert asked.stdout == "usd\n0.132\n"
