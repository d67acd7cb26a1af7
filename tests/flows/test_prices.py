"""The flow ``prices``: what the command does, for a schedule."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.prices import PricesParameters, prices
from quantgate.model.errors import ConfigError
from warehouse.query import query

HEADER = "provider,gpu,price_kind,usd_per_hour,valid_from,source\n"


def test_a_file_is_imported_and_everything_priced_with_it(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "offers.csv"
    file.write_text(HEADER + "acme,b300,spot,-1,2026-06-01,x\n")
    with pytest.raises(ConfigError, match="1 of 1 offers are wrong"):
        prices.fn(PricesParameters(file=file))
    assert f"prices: {file}:2: key 'usd_per_hour'" in capsys.readouterr().err
    file.write_text(HEADER + "acme,b300,spot,9,2026-06-01,x\n")
    assert prices.fn(PricesParameters(file=file)).imported == 1
    found = query(home / "warehouse.duckdb", "SELECT usd_per_hour FROM prices WHERE gpu = 'b300'")
    assert found.to_pylist() == [{"usd_per_hour": 9.0}]
