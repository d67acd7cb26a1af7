"""Make text inert that others wrote: it is shown, and acts neither on a terminal nor on a page nor in a spreadsheet."""

from __future__ import annotations

import json
import re

_FORMULA = re.compile(
    r"[\t\r\n]|[\s\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u180e\u200b-\u206f\ufeff]*[=+\-@＝＋－＠﹢﹣﹦﹫]"
)
"""With what a spreadsheet takes a text for a formula, or passes over to the next one; it may skip what isn't seen."""
_NUMBER = re.compile(r"[+-]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s?%?")
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe00-\ufe0e\uffa0\U000e0100-\U000e01ef]")
"""Printable, as Python has it, and yet not seen."""
_MARKS = re.compile(
    r"[\\`|]|\*(?=\S)|^\*|(?<![^\W_])_(?=\S)|~(?=~)|\](?=[(\[:])|!(?=\[)|<(?=[A-Za-z/!?])|&(?=[#\w]+;)"
    r"|^[#>+-](?=[\s#]|$)|^[-=](?=[-=\s]*$)|^\d{1,9}[.)](?=\s|$)"
)
"""What acts in Markdown: emphasis, code, tables, links, images, HTML, headings, lists, rules.
An address is shown whole."""
_HTML = {"<": "&lt;", "&": "&amp;"}


def inert(text: str) -> str:
    """Return a text as one line: control characters, line breaks and bidi overrides are shown as escapes."""
    if text.isprintable() and (text.isascii() or not _UNSEEN.search(text)):
        return text
    return "".join(c if c.isprintable() and not _UNSEEN.match(c) else ascii(c)[1:-1] for c in text)


def inert_lines(text: str) -> str:
    """Return a text of several lines for a terminal; its line breaks stay."""
    return "\n".join(map(inert, text.split("\n")))


def json_inert(text: str) -> str:
    """Return JSON with escapes for what would act on a terminal; it stands for the same values."""
    return (
        text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    )


def in_markdown(text: str) -> str:
    """Return a text that Markdown shows as it is, in a cell of a table too."""
    return _MARKS.sub(
        lambda mark: _HTML.get(mark[0]) or f"{mark[0][:-1]}\\{mark[0][-1]}", inert(text).strip()
    )


def csv_text(text: str) -> str:
    """Return a text for a cell of CSV: an apostrophe comes before what would be a formula; numbers stay."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text
