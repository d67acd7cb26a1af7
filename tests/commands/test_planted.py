"""Fake tokens planted in every way in, and looked for in everything that a command prints, writes and stores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from commands.main import VERBS
from quantgate.model.home import ROOT
from tests.commands.test_command import BASELINE, CANDIDATE, here, validate
from tests.stub_engine.make import make
from tests.support.command import Ended, quantgate
from tests.support.planted import FAKE, PLANTED, URLS

__all__ = ["here"]
ARITHMETIC = str(ROOT / "demo" / "tasks" / "arithmetic.yaml")
TOKEN = PLANTED["hub token"]
OPTIONS = sorted(
    {
        option.opts[0]
        for verb in VERBS
        if verb.name == "validate"
        for option in verb.params
        if option.param_type_name == "option" and not getattr(option, "is_flag", False)
    }
)


def left_in(*folders: Path) -> list[Path]:
    """Files that hold any of the planted tokens."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if FAKE.encode() in path.read_bytes()]


@pytest.mark.parametrize("option", OPTIONS)
def test_no_option_keeps_or_prints_a_secret(option: str, here: Callable[..., Ended], home: Path) -> None:
    for value in (TOKEN, f"seed={TOKEN}", "hf-token=" + FAKE, URLS["signed"]):
        done = here(*validate(option, value))
        assert done.status == 2, done
        assert FAKE not in done.out + done.err
        assert left_in(home) == []


def with_note(source: str, folder: Path) -> str:
    """A copy of a checkpoint whose config.json holds a token."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"_comment": TOKEN, "hf_token": FAKE}))
    (folder / "README.md").write_text(TOKEN)
    return str(folder)


@pytest.mark.usefixtures("prefect_ready")
def test_a_run_leaves_no_secret_of_its_host_its_checkpoints_or_its_engine(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine prints every form at its start, as one does that quotes its configuration."""
    engines = make(tmp_path / "engine", STUB_START_S="0")
    interpreter = tmp_path / "engine" / "python"
    (tmp_path / "said").write_text("\n".join(PLANTED.values()))
    first, rest = interpreter.read_text().split("\n", 1)
    said = f'case "$*" in *api_server*) cat "{tmp_path}/said";; esac'
    interpreter.write_text(f"{first}\n{said}\n{rest}")
    monkeypatch.setenv("QUANTGATE_ENGINES_FILE", str(engines))
    for name in ("HF_TOKEN", "WANDB_API_KEY", "VLLM_NOTE", "OMP_NOTE", "NCCL_API_KEY"):
        monkeypatch.setenv(name, TOKEN)
    monkeypatch.setenv("HTTPS_PROXY", URLS["basic auth"])
    baseline, candidate = (
        with_note(source, tmp_path / Path(source).name) for source in (BASELINE, CANDIDATE)
    )
    given = ("--limit", "5", "--workload", "demo", "--concurrency", "2", "--policy", "demo")
    done = quantgate(*validate(*given, baseline=baseline, candidate=candidate, tasks=ARITHMETIC))
    assert done.status == 0, done.err
    ended = [
        done,
        quantgate("status"),
        quantgate("sql", "FROM runs"),
        quantgate("flips"),
        quantgate("publish"),
    ]
    assert [command.status for command in ended] == [0] * len(ended)
    assert FAKE not in "".join(command.out + command.err for command in ended)
    kept = {path.name for path in home.rglob("*") if path.is_file()}
    assert kept >= {
        "prefect.db",
        "manifest.json",
        "warehouse.duckdb",
        "validated_table.csv",
        "prefect-server.log",
    }
    assert any(b"*****" in log.read_bytes() for log in (home / "logs").rglob("engine-*.log"))
    assert left_in(home) == []
    for folder in (home / "prefect", home / "staging", home / "logs"):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert (home / "prefect" / "prefect.db").stat().st_mode & 0o777 == 0o600
