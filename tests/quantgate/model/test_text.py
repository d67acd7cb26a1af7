"""Text that others wrote is shown and never acts: on a terminal, in Markdown and HTML, in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import markdown_it
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands.output import say, say_rows
from flows.planning.cells import Plan
from flows.planning.table import markdown_of
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.text import csv_text, in_markdown, inert, inert_lines
from tasks.progress import Reporter
from warehouse.report.blocks import Block, markdown, plain
from warehouse.report.flips import flip_text
from warehouse.report.render import aligned, render
from warehouse.report.verdict_page import _places

HOSTILE = {
    "colour": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "C1 escape": "\x9b31mred",
    "overwrite": "VALIDATED\rREJECTED",
    "second line": "one\ntwo: VALIDATED",
    "bidi": "\u202egnp.exe\u202c\u2066x\u2069",
    "zero width": "fp\u200b8",
    "bell": "\x07\x08\x7f",
    "table": "x | VALIDATED | y",
    "escaped pipe": "x \\| y",
    "link": "[click](https://evil.example)",
    "reference": "[click][x]\n[x]: https://evil.example",
    "image": "![x](https://evil.example/pixel.png)",
    "HTML": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "entity": "&lt;b&gt;",
    "emphasis": "**VALIDATED** _x_ ~~y~~",
    "code": "`x` ```\n```",
    "heading": "# VALIDATED",
    "markup": "[red]x[/red] [link=https://evil.example]y[/link]",
    "formula": '=HYPERLINK("https://evil.example")',
    "command": "+cmd|' /C calc'!A0",
    "minus": "-2+3+cmd",
    "at": "@SUM(1)",
    "tab": "\t=1",
    "return": "\r=1",
    "blank": "  =1",
    "wide blank": "\u3000=1",
    "unseen": "\ufeff\u200b=1",
    "wide": "\uff1d1+\uff20",
    "filler": "fp\u31648\u034f",
    "strong": "__VALIDATED__",
    "list": "12. VALIDATED",
    "rule": "---",
    "underline": "===",
    "blank heading": "   # VALIDATED",
    "blank code": "     VALIDATED",
    "blank quote": "  > VALIDATED",
    "OSC 8": "\x1b]8;;https://evil.example\x1b\\x\x1b]8;;\x1b\\",
    "DCS": "\x1bP1$r\x1b\\",
}
each = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
_PAGE = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
ACTING = (
    "<a ",
    "<img",
    "<script",
    "<em>",
    "<strong>",
    "<s>",
    "<code>",
    "<h1>",
    "<pre>",
    "<hr",
    "<ol",
    "<blockquote",
)


def acts(shown: str) -> str:
    """What a terminal would act on."""
    return "".join(c for c in shown if not c.isprintable() and c != "\n")


def block(text: str) -> Block:
    return Block(text, names=("a", "b"), rows=((text, "end"),), right=(False, False), notes=(text,))


@each
def test_a_terminal_shows_it(text: str, capsys: Any) -> None:
    assert inert(text).isprintable()
    assert inert_lines(text).count("\n") == text.count("\n")
    say(text)
    say(text, err=True)
    say_rows(render(pa.table({"a": [text]}), "json"), "json")
    lines: list[str] = []
    Reporter(lines.append).line(text)
    with Reporter(lines.append).step(text):
        pass
    Reporter().line(text)
    error = str(ConfigError(text, where=text, hint=text))
    assert "\n" not in error
    shown = [*lines, error, *capsys.readouterr()]
    shown += [plain(block(text)), aligned([text], [[text]], [False]), render(pa.table({text: [text]}))]
    shown += [render(pa.table({text: [text]}), "record")]
    shown += [flip_text({**FLIP, **dict.fromkeys(TEXTS, text)})]
    for printed in shown:
        assert acts(printed) == ""
    assert len(plain(block(text)).splitlines()) == len(plain(block("x")).splitlines())


TEXTS = ("task", "doc_id", "checkpoint", "prompt", "target", "baseline_answer", "candidate_answer")
FLIP = {
    "direction": "worse",
    "doc_repeat": 0,
    "baseline_responses": json.dumps([["\x1b[31m"]]),
    "candidate_responses": json.dumps([["\x1b[32m"]]),
    **{
        f"{side}_{name}": None
        for side in ("baseline", "candidate")
        for name in ("finish_reason", "output_tokens")
    },
    "baseline_score": 1.0,
    "candidate_score": 0.0,
}


@each
def test_a_page_shows_it(text: str) -> None:
    written = markdown(block(text))
    page = _PAGE.render(written)
    assert not [tag for tag in ACTING if tag in page]
    assert page.count("<td") == 2, "the table has the cells that it should have"
    assert page.count("<li>") == 1
    assert page.count("<h2>") == 1
    (cell,) = re.findall(r"<td>(.*?)</td>\s*<td>end</td>", page)
    assert (
        re.sub(r"&(lt|gt|amp|quot);", lambda m: {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}[m[1]], cell)
        == inert(text).strip()
    )


@given(st.text(alphabet=st.sampled_from("ab12 *_`[]()<>!|\\&;#~-+.:/\n"), max_size=20))
def test_no_text_acts_on_a_page(text: str) -> None:
    page = _PAGE.render(f"| {in_markdown(text)} | end |\n|---|---|")
    assert not [tag for tag in ACTING if tag in page]
    assert page.count("<th") == 3, "thead and two cells"


@each
def test_a_spreadsheet_shows_it_and_a_program_gets_it_back(text: str) -> None:
    written = render(pa.table({text: [text], "end": [-8.1]}), "csv")
    header, row = csv.reader(io.StringIO(written, newline=""))
    for cell in (header[0], row[0]):
        assert not cell.lstrip("\u200b\ufeff \u3000").startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d"))
        assert cell in {text, f"'{text}"}
    assert row[1] == "-8.1"
    assert json.loads(render(pa.table({"a": [text]}), "json")) == [{"a": text}]


@pytest.mark.parametrize("number", ["-8.1", "+3", "-1e-05", "-.5", "-12 %", "-1,024.5"])
def test_numbers_stay_numbers(number: str) -> None:
    assert csv_text(number) == number


def test_what_is_for_programs_is_exact_in_a_pipe_and_inert_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    written = render(pa.table({"a": list(HOSTILE.values())}), "csv")
    say_rows(written, "csv")
    assert capsys.readouterr().out == written + "\n"
    monkeypatch.setattr("commands.output.sys.stdout.isatty", lambda: True, raising=False)
    say_rows(written, "csv")
    assert acts(capsys.readouterr().out) == ""


def test_every_line_of_a_command_goes_one_way_out() -> None:
    """No command prints by itself."""
    printing = re.compile(r"\b(?:click\.s?echo|print|click\.style|sys\.stdout\.write)\(")
    rooms = [path for room in ("commands", "flows", "warehouse") for path in (ROOT / room).rglob("*.py")]
    found = {str(path.relative_to(ROOT)) for path in rooms if printing.search(path.read_text())}
    assert found == {"commands/output.py"}


def test_a_matrix_page_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.planning.table._cells", lambda _: [HOSTILE["link"], HOSTILE["table"]])
    monkeypatch.setattr("flows.planning.table.totals", lambda _: "")
    cell = type("Cell", (), {"reason": HOSTILE["HTML"], "no_usd": "", "state": None})()
    plan = type("Planned", (Plan,), {"cells": [cell]})(())
    page = _PAGE.render(markdown_of(plan, {}, {}, {}))
    assert not [tag for tag in ACTING if tag in page]


@each
def test_the_page_of_a_verdict_shows_it(text: str) -> None:
    row = {"run_id": "run", "precision": text, "gpu_count": 1, "checkpoint": text}
    written = _places([row], f"s3://KEY:{'x' * 9}@bucket", {})
    assert "s3://***@bucket/run" in written
    page = _PAGE.render(written)
    assert not [tag for tag in ACTING if tag in page.replace("<code>s3://***@bucket/run</code>", "")]
    assert page.count("<li>") == 1
