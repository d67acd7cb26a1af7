"""Singular and plural in messages."""

from __future__ import annotations

from quantgate.model.words import counted


def test_one_is_singular() -> None:
    assert [counted(number, "load level") for number in (0, 1, 2)] == [
        "0 load levels",
        "1 load level",
        "2 load levels",
    ]
    assert counted(1000, "document", ",") == "1,000 documents"
