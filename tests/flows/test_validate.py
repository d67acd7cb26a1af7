"""What the flow ``validate`` says: where its lines go, and how it ends when not all went well."""

from __future__ import annotations

import pytest

from flows import validate as module
from flows.parameters import PublishMode, ValidateParameters
from flows.validate import validate
from flows.validation import Validation, incomplete
from quantgate.model.errors import ConfigError, RunError
from tasks.progress import Reporter


def test_what_a_task_tells_goes_where_the_flows_own_lines_go(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []

    def pulls(_parameters: object, _home: object, report: Reporter) -> Validation:
        report.line("the flow's own")
        Reporter.current().line("a pull's")
        return Validation(run_ids=[], measured=0, published=None)

    monkeypatch.setenv("HF_TOKEN", "of-no-use")
    monkeypatch.setattr(module, "reporter", lambda: Reporter(lines.append))
    monkeypatch.setattr(module, "_validate", pulls)
    monkeypatch.setattr(module, "_ending", lambda _: "VALIDATED for all: fp8")
    validate.fn(ValidateParameters(model="quantgate-demo"))
    assert lines == ["the flow's own", "a pull's"]


DIED = RunError("the engine ended", where="fp8")


@pytest.mark.parametrize(
    ("failures", "lost", "afterwards", "told"),
    [
        (
            [DIED],
            [],
            PublishMode.HERE,
            "1 of 3 checkpoints were not measured: fp8: the engine ended. What was measured is in the table",
        ),
        (
            [DIED],
            [],
            PublishMode.NOBODY,
            "1 of 3 checkpoints were not measured: fp8: the engine ended. All that was measured is kept",
        ),
        (
            [],
            ["load/warehouse ended Failed"],
            PublishMode.FLEET,
            "what was measured is not all loaded: load/warehouse ended Failed. All that was measured is kept",
        ),
        (
            [DIED],
            ["a: damaged", "b: damaged"],
            PublishMode.HERE,
            (
                "1 of 3 checkpoints were not measured, and what was measured is not all loaded: "
                "fp8: the engine ended | a: damaged | b: damaged. All that was measured is kept"
            ),
        ),
    ],
)
def test_an_incomplete_validation_says_what_is_where(
    failures: list[RunError], lost: list[str], afterwards: PublishMode, told: str
) -> None:
    what = str(incomplete(failures, lost, 3, afterwards))
    assert what == f"{told}; the same command tries the rest again."


def test_who_was_refused_is_refused_again() -> None:
    refused = ConfigError("is on its way elsewhere", where="fp8", hint="Finish it there.")
    assert str(incomplete([refused], [], 3, PublishMode.HERE)) == (
        "1 of 3 checkpoints were not measured: fp8: is on its way elsewhere. Finish it there. What was measured is in "
        "the table."
    )
