"""The command as a user meets it: help, one-line faults, exit status.

Where a case is one of many it runs in this process (``in_process``): an interpreter of its own costs seconds.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect._internal.analytics.ci_detection import CI_ENV_VARS

from commands.main import VERBS
from quantgate.model.home import ROOT
from tests.support import command_in_process
from tests.support.command import QUANTGATE, Ended, at_terminal, quantgate
from tests.support.fake_engine import make

BASELINE = str(ROOT / "demo" / "checkpoints" / "quantgate-demo-BF16")
CANDIDATE = str(ROOT / "demo" / "checkpoints" / "quantgate-demo-FP8")


HOST_TAKEN = (
    "engine arguments: 'host' is set by Quantgate. "
    "Leave it out; a port is the key 'port' of the engine in engines.yaml."
)


def validate(
    *more: str, baseline: str = BASELINE, candidate: str = CANDIDATE, tasks: str = "demo"
) -> list[str]:
    return ["validate", "--baseline", baseline, "--candidate", candidate, "--tasks", tasks, *more]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """``quantgate ARGUMENTS`` in this process."""
    return lambda *arguments: command_in_process.run(monkeypatch, capfd, *arguments)


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_every_verb_has_help(here: Callable[..., Ended], verb: str) -> None:
    done = here(verb, "--help")
    assert done.status == 0
    assert done.out.startswith(f"Usage: quantgate {verb}")


def test_help_lists_every_verb() -> None:
    done = quantgate("--help")
    assert all(f"  {verb.name} " in done.out for verb in VERBS)


@pytest.mark.parametrize("group", [[], ["fleet"], ["prices"]])
def test_a_bare_group_prints_its_help_as_click_does(group: list[str]) -> None:
    """On standard error and with status 2, which is click's convention."""
    done = quantgate(*group)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(" ".join(["Usage: quantgate", *group, "[OPTIONS] COMMAND"]))
    assert done.err == quantgate(*group, "--help").out


def test_help_breaks_no_word() -> None:
    assert "(only with --require-validated)" in " ".join(quantgate("--help").out.split())
    assert not re.search(r"\w-$", quantgate("validate", "--help").out, re.MULTILINE)


def test_a_mistyped_verb_and_a_mistyped_name() -> None:
    for arguments, told in (
        (["validat"], "No such command 'validat'. Did you mean 'validate'? See `quantgate --help`."),
        (
            ["validate", "quantgate-dmo"],
            "configs/models: nothing is called 'quantgate-dmo'. Did you mean 'quantgate-demo'?",
        ),
    ):
        done = quantgate(*arguments)
        assert (done.status, done.out, done.err) == (2, "", f"quantgate: {told}\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["demo", "--fesh"], "No such option '--fesh'. Did you mean '--fresh'? See `quantgate demo --help`."),
        (
            ["validate", "--tasks", "demo"],
            (
                "validate: no model and no candidate is named. Name a model of configs/models, or give a baseline "
                "and at least one candidate."
            ),
        ),
        (
            ["validate", "--baseline", "x", "--tasks", "demo"],
            (
                "validate: no candidate is named. Name a model of configs/models, or give a baseline and at least "
                "one candidate."
            ),
        ),
        (
            ["validate", "--baseline", "x", "--candidate", "y", "--precision", "fp8"],
            (
                "validate: a precision chooses among a model's candidates, and no model is named. Leave it out, or "
                "name a model."
            ),
        ),
        (
            ["validate", "quantgate-demo", "--precision", "int4"],
            "quantgate-demo: no candidate is declared as 'int4'. Its candidates: fp8, nvfp4.",
        ),
        (
            ["validate", "quantgate-demo", "--baseline", "x"],
            (
                "quantgate-demo: a model and checkpoints of its own are both named. Give one of the two; the folder of "
                "a baseline follows --baseline."
            ),
        ),
        (
            validate("--concurrency", "1,x"),
            "--concurrency: '1,x' is not a list of whole numbers from 1 on. Write e.g. 1,8,32.",
        ),
        (
            validate("--engine-arg", "abc"),
            "--engine-arg: 'abc' is not KEY=VALUE. Write e.g. max-model-len=4096.",
        ),
        (
            validate("--engine-arg", "host=0.0.0.0"),
            HOST_TAKEN,
        ),
        (
            validate("--engine-arg", "tensor_parallel_size=two"),
            "engine arguments: 'tensor-parallel-size' is 'two'. Give a whole number above 0.",
        ),
        (
            validate("--concurrency", "8,8"),
            "--concurrency: key 'concurrency': a level is listed twice (found [8, 8]). Correct the value.",
        ),
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    here: Callable[..., Ended], arguments: list[str], told: str
) -> None:
    done = here(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err == f"quantgate: {told}\n"


def last_line(done: Ended) -> tuple[int, str]:
    """Exit status and the last line; no traceback anywhere."""
    assert "Traceback" not in done.err + done.out
    return done.status, done.err.strip().splitlines()[-1]


def test_faults_of_a_run_are_found_before_any_engine(here: Callable[..., Ended], tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    cases = [
        (validate("--policy", "standart"), "nothing is called 'standart'. Did you mean 'standard'?"),
        (
            validate("--workload", "demoo"),
            "configs/workloads/demoo.yaml: no such file. Did you mean 'demo.yaml'?",
        ),
        (validate("--engine", "vlm"), "engines.yaml: nothing is called 'vlm'. Did you mean 'vllm'?"),
        (validate(candidate=str(tmp_path / "none")), str(tmp_path / "none")),
        (validate(tasks=str(empty)), "empty.jsonl"),
    ]
    for arguments, told in cases:
        status, line = last_line(here(*arguments))
        assert status == 2, line
        assert told in line


@pytest.mark.usefixtures("prefect_ready")
def test_an_engine_that_dies_at_start_is_status_1_and_shows_in_status(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTGATE_ENGINES_FILE", str(make(tmp_path, "dies")))
    status, line = last_line(quantgate(*validate()))
    assert status == 1
    assert line.startswith(
        "quantgate: engine fake: the engine ended with status 1; its last words: RuntimeError: out of cheese. Its log: "
    )
    told = quantgate("status").out
    assert "quantgate-demo-BF16 (bf16)" in told
    assert (
        "0 of 3 tasks and 0 of 3 load levels are kept; failed: engine fake: the engine ended with status 1"
        in told
    )
    assert f"goes on with: quantgate {' '.join(validate())}" in told
    assert str(home / "logs") in told


def test_doctor_finds_nothing_wrong_here() -> None:
    done = quantgate("doctor")
    assert done.status == 0, done.out
    assert done.out.endswith("no problems\n")
    for what in ("Python", "packages", "configs", "hardware", "engine", "disk", "Prefect API", "warehouse"):
        assert what in done.out


def test_doctor_shows_no_notice_of_prefects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first import of Prefect at a terminal prints one, among the findings."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    for name in (*CI_ENV_VARS, "DO_NOT_TRACK"):
        monkeypatch.delenv(name, raising=False)
    assert "Prefect collects" in at_terminal([sys.executable, "-c", "import prefect"])
    shutil.rmtree(tmp_path / "prefect" / ".sdk_telemetry")
    printed = at_terminal([str(QUANTGATE), "doctor"])
    assert "no problems" in printed
    assert "collects" not in printed


def test_doctor_tells_a_fault_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "engines.yaml"
    file.write_text("default: {cpu: a}\nenginees: {}\n")
    monkeypatch.setenv("QUANTGATE_ENGINES_FILE", str(file))
    done = quantgate("doctor")
    assert done.status == 2
    assert "unknown key 'enginees'. Did you mean 'engines'?" in done.out
    assert done.out.splitlines()[-1] in {"1 problem", "2 problems"}


def test_nothing_measured_yet() -> None:
    assert quantgate("status").out.endswith("nothing is unfinished\n")
    done = quantgate("sql", "SELECT 1")
    assert done.status == 2
    assert "there is no warehouse yet" in done.err
    assert done.err.count("\n") == 1
