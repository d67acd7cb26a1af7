"""A worker's log ends with the flow's own lines, not with the interpreter's teardown."""

from __future__ import annotations

import subprocess
import sys

import pytest

LEAK = """
import ctypes, sys, duckdb
from flows.progress import _silence_teardown
leaked = duckdb.connect()
ctypes.pythonapi.Py_IncRef(ctypes.py_object(leaked))  # as Prefect's background threads do
if {silenced}: _silence_teardown()
print("the flow's last line", file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.parametrize("silenced", [False, True])
def test_the_bindings_of_duckdb_report_no_leaks(silenced: bool) -> None:
    program = [sys.executable, "-c", LEAK.format(silenced=silenced)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "the flow's last line" in done.stderr
    assert ("nanobind: leaked" in done.stderr) is not silenced
