"""Arguments that an engine doesn't know. (Its interpreter is a stand-in that prints a help, or fails to.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from quantgate.model.config.engines import EngineConfig
from quantgate.model.enums import EngineKind
from quantgate.model.errors import ConfigError
from quantgate.model.home import Home
from tasks.engine.arguments import EVERY_VLLM, check_known
from tasks.engine.environment import EngineEnvironment
from tasks.progress import Reporter
from tests.tasks.engine.test_process import plant

HELP = """usage: api_server.py [-h] [--max-model-len MAX_MODEL_LEN]
  --enable-prefix-caching, --no-enable-prefix-caching
                        Whether to.
  --max-num-seqs N, -mns N
  --max-num-batched-tokens N
"""


def engine(folder: Path, *, help_text: str = HELP, status: int = 0) -> EngineEnvironment:
    python = folder / "python"
    (folder / "help").write_text(help_text)
    python.write_text(
        f"#!/bin/sh\necho asked >> {folder}/asked\nenv > {folder}/environment\ncat {folder}/help\nexit {status}\n"
    )
    python.chmod(0o755)
    config = EngineConfig(
        description="x", kind=EngineKind.PYTHON, distribution="vllm", interpreter=str(python)
    )
    return EngineEnvironment("fake", config, python, "9.9")


def asked(folder: Path) -> int:
    file = folder / "asked"
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def own_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_ENGINES", str(tmp_path / "engines"))


def test_a_misspelt_argument_is_told_with_the_nearest(tmp_path: Path, lines: list[str]) -> None:
    found, report = engine(tmp_path), Reporter(lines.append)
    check_known(
        ["max-num-batched-tokens", "no-enable-prefix-caching", "dtype"], found, Home.current(), report
    )
    with pytest.raises(ConfigError) as caught:
        check_known(["max-num-batchd-tokens"], found, Home.current(), report)
    assert str(caught.value) == (
        "engine arguments: fake 9.9 has no argument 'max-num-batchd-tokens'. Did you mean 'max-num-batched-tokens'?"
    )
    with pytest.raises(ConfigError, match="See `vllm serve --help=all` of that version"):
        check_known(["xyzzy"], found, Home.current(), report)
    assert asked(tmp_path) == 1, "the list is kept"
    assert len([line for line in lines if line.endswith("asking for its arguments (once) …")]) == 1


def test_the_help_is_asked_for_without_secrets(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    check_known(["max-num-batched-tokens"], engine(tmp_path), Home.current(), Reporter(lines.append))
    got = (tmp_path / "environment").read_text()
    assert "planted" not in got
    assert "OMP_NUM_THREADS=2\n" in got


def test_arguments_of_every_version_ask_nothing(tmp_path: Path, lines: list[str]) -> None:
    check_known(sorted(EVERY_VLLM), engine(tmp_path), Home.current(), Reporter(lines.append))
    assert (asked(tmp_path), lines) == (0, [])


@pytest.mark.parametrize("how", [{"status": 1}, {"help_text": "9.9.9"}])
def test_an_engine_that_does_not_tell_lets_everything_through(
    tmp_path: Path, lines: list[str], how: dict[str, object]
) -> None:
    found = engine(tmp_path, **how)  # type: ignore[arg-type]
    check_known(["xyzzy"], found, Home.current(), Reporter(lines.append))
    assert asked(tmp_path) == 1


def test_a_list_that_was_spoilt_is_asked_for_anew(tmp_path: Path, lines: list[str]) -> None:
    found, report = engine(tmp_path), Reporter(lines.append)
    check_known(["max-num-batched-tokens"], found, Home.current(), report)
    (kept,) = (tmp_path / "engines").glob(".arguments-*.json")
    kept.write_text("[")
    check_known(["max-num-batched-tokens"], found, Home.current(), report)
    assert asked(tmp_path) == 2
