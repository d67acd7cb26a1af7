"""Make text inert that others wrote: it is shown, and acts neither on a terminal nor on a page nor in a spreadsheet."""

from __future__ import annotations

import json
import re

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""Characters with which a spreadsheet takes a text for a formula, or passes over to the next one."""
_NUMBER = re.compile(r"[+-]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s?%?")
_MARKS = re.compile(
    r"[\\`|]|\*(?=\S)|^\*|(?<!\w)_(?=\S)|~(?=~)|\](?=[(\[:])|!(?=\[)|<(?=[A-Za-z/!?])|&(?=[#\w]+;)"
    r"|^[#>+-](?=[\s#]|$)|(?<=^\d)[.)](?=\s|$)"
)
"""What acts in Markdown: emphasis, code, tables, links, images, HTML, headings, lists. An address is shown whole."""
_HTML = {"<": "&lt;", "&": "&amp;"}


def inert(text: str) -> str:
    """Return a text as one line: control characters, line breaks and bidi overrides are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


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
    return _MARKS.sub(lambda mark: _HTML.get(mark[0]) or f"\\{mark[0]}", inert(text))


def csv_text(text: str) -> str:
    """Return a text for a cell of CSV: an apostrophe comes before what would be a formula; numbers stay."""
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
