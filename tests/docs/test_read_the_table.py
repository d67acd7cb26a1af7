"""docs/read-the-table.md explains the verdicts, kernel modes and reasons that there are."""

from __future__ import annotations

import re

from quantgate.model.enums import Evidence, KernelMode, Verdict
from quantgate.model.home import ROOT

PAGE = (ROOT / "docs" / "read-the-table.md").read_text(encoding="utf-8")
TABLE = (ROOT / "warehouse" / "views" / "050_validated_table.sql").read_text(encoding="utf-8")


def test_every_value_is_explained() -> None:
    assert all(f"| **{verdict}** |" in PAGE for verdict in Verdict)
    assert all(f"`{value}`" in PAGE for value in [*KernelMode, *Evidence])


def test_the_reasons_are_those_of_the_view() -> None:
    cells = "".join(re.findall(r"^\| (`[^|]*)\|", PAGE.split("## Missing")[1], re.MULTILINE))
    explained = set(re.findall(r"`(\w+)`", cells))
    coalesced = {
        name
        for call in re.findall(r"coalesce\(([^)]*)", TABLE)
        for name in re.findall(r"(?<!= )'(\w+)'", call)
    }
    reasons = set(re.findall(r"(?:THEN|ELSE) '([a-z]+_?[a-z_]+)'", TABLE)) | coalesced
    elsewhere = {"no_kernel_named"}  # given by another view
    no_reasons = {"measurement", "verdict", "price"}  # what is stale
    assert explained == (reasons | elsewhere) - no_reasons
