"""docs/local-fleet.sh as root: PostgreSQL gets a user of its own, or the script says at once what is missing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from quantgate.model.home import ROOT

SCRIPT = ROOT / "docs" / "local-fleet.sh"
AS_ROOT = {"initdb": "", "pg_ctl": "", "createdb": "", "chown": "", "setpriv": ""}


@pytest.mark.parametrize(
    ("programs", "message"),
    [
        (
            {"id": 'test "$1" = -u && echo 0'},
            "PostgreSQL refuses root, and there is no user postgres (useradd --system postgres)",
        ),
        (
            {"id": "echo 0", "setpriv": "exit 1"},
            "its user postgres can't enter {folder}. Name a folder that it can enter: docs/local-fleet.sh /var/tmp/",
        ),
    ],
)
def test_as_root_it_says_at_once_what_is_missing(
    tmp_path: Path, programs: dict[str, str], message: str
) -> None:
    """The programs are stand-ins, so that nothing starts."""
    stand_ins, folder = tmp_path / "bin", tmp_path / "fleet"
    stand_ins.mkdir()
    for name, body in (AS_ROOT | programs).items():
        (stand_ins / name).write_text(f"#!/bin/sh\n{body}\n")
        (stand_ins / name).chmod(0o755)
    environment = dict(os.environ) | {"PATH": f"{stand_ins}:{os.environ['PATH']}"}
    done = subprocess.run(
        [SCRIPT, folder], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("local-fleet: PostgreSQL refuses root")
    assert message.format(folder=folder) in done.stderr
    assert done.stderr.count("\n") == 1
