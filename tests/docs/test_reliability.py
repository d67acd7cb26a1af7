"""docs/reliability.md lists the codes of what can't be, as the views give them."""

from __future__ import annotations

import re

from quantgate.model.home import ROOT

CODE = r"(?:impossible_[a-z]+|unknown_validity)"


def codes(pattern: str, *parts: str) -> list[str]:
    return re.findall(pattern, ROOT.joinpath(*parts).read_text())


def test_the_codes_are_those_of_the_views() -> None:
    listed = re.findall(rf"^\| `({CODE})`", (ROOT / "docs" / "reliability.md").read_text(), re.MULTILINE)
    given = {
        code
        for view in ("020_runs.sql", "030_throughput.sql")
        for code in codes(f"'code': '({CODE})'", "warehouse", "views", view)
    }
    assert given == set(listed) == set(codes(f"'({CODE})'", "warehouse", "views", "010_macros.sql"))
