"""The plugin's arithmetic, in the engine's environment (torch and vLLM are only there)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from quantgate.model.home import Home
from tasks.engine import environment
from tasks.progress import Reporter


@pytest.mark.e2e
def test_the_plugin_computes_what_the_formats_define() -> None:
    name, config = environment.load_engine(None, "cpu")
    python = environment.prepare(name, config, Home.current(), Reporter(print)).python
    script = Path(__file__).with_name("check_cpu_kernels.py")
    done = subprocess.run([python, script], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.endswith("ALL HOLD\n"), done.stdout + done.stderr
