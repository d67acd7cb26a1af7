"""``quantgate prices`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from commands.main import cli
from tests.support.command import quantgate
from warehouse.query import query


def answer(*arguments: str) -> str:
    """Standard output of a verb that must end well, run in this process."""
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert (done.return_value, done.exception) == (0, None)
    return done.stdout


HEADER = "provider,gpu,price_kind,usd_per_hour,valid_from,source\n"


def test_offers_are_imported_whole_and_listed(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "offers.csv"
    file.write_text(HEADER + "acme,h100,spot,0,2026-06-01,x\nacme,b300,spot,9.5,2999-01-01,x\n")
    done = quantgate("prices", "import", str(file))
    assert (done.status, done.out) == (2, "")
    first, second, last = done.err.splitlines()
    assert first == (
        f"quantgate: {file}:2: key 'usd_per_hour': input should be greater than or equal to 0.000000001 "
        "(found '0'). Correct the value."
    )
    assert second.startswith(f"quantgate: {file}:3: valid_from 2999-01-01 lies in the future")
    assert last.startswith(f"quantgate: {file}: 2 of 2 offers are wrong, nothing was imported.")
    assert not (home / "prices").exists()
    assert not (home / "warehouse.duckdb").exists()

    file.write_text(HEADER + "acme,b300,spot,9.5,2026-06-01,acme's list\n")
    done = answer("prices", "import", str(file))
    assert done.startswith(f"1 offer imported, 0 known already, kept in {home}/prices/")
    assert done.splitlines()[1] == (
        "b300 has no on-demand price now, costs are at its spot price: import an on-demand offer to compare"
    )
    assert answer("prices", "import", str(file)) == "0 offers imported, 1 known already\n"

    file.write_text(HEADER + "acme,h100,spot,0.9,2026-06-01,acme's list\n")
    assert len(answer("prices", "import", str(file)).splitlines()) == 1, "it has an on-demand price"

    prices = query(home / "warehouse.duckdb", "SELECT usd_per_hour FROM prices WHERE gpu = 'b300'")
    assert prices.to_pylist() == [{"usd_per_hour": 9.5}], "and everything is priced with it"
    told = answer("prices", "list")
    assert "no price: b200 spot, b300 on-demand\n" in told
    assert "reserved: derived from on-demand prices. These are no offers" in told
    assert max(map(len, told.splitlines())) <= 100
    offers = json.loads(answer("prices", "list", "--format", "json"))
    assert [o["USD/h"] for o in offers if o["provider"] == "acme" and o["gpu"] == "b300"] == [9.5]
    assert {o["kind"] for o in offers} == {"on_demand", "spot"}, "a derived range is no offer"
