"""A stub engine: an interpreter that has a package ``vllm`` which computes nothing (packages/vllm).

It stands where a user's engine stands (kind ``python`` of an engines.yaml, named by QUANTGATE_ENGINES_FILE),
starts in a fraction of a second, and gives the same answers and figures every time, so that what a kill did to a
run can be told from what the engine said. The real bench driver runs in it. For fault injection only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from quantgate.model.home import ROOT

VERSION = "0.0.1"


def make(folder: Path, *, fault: str = "", start_timeout_s: float = 30, **told: str) -> Path:
    """Write the interpreter and an engines.yaml that names it; returns the latter.

    Args:
        folder: where they go.
        fault: ``MODE:N`` of the stub's server; none if empty. It is no part of a run's fingerprint.
        start_timeout_s: until the engine has to answer.
        told: more of the stub's own variables (STUB_SKILLS, STUB_KERNEL); no part of a run's fingerprint either.
    """
    metadata = folder / f"vllm-{VERSION}.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True, exist_ok=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}\n")
    interpreter = folder / "python"
    packages = Path(__file__).parent / "packages"
    # Without site-packages it starts faster; the stub needs the standard library alone.
    interpreter.write_text(
        f'#!/bin/sh\nPYTHONPATH="{packages}:{folder}" exec "{sys.executable}" -S -B "$@"\n'
    )
    interpreter.chmod(0o755)
    engine = {
        "description": "a stub for fault injection",
        "kind": "python",
        "distribution": "vllm",
        "interpreter": str(interpreter),
        "start_timeout_s": start_timeout_s,
        "environment": {"STUB_FAULT": fault, "STUB_ANSWERS": str(ROOT / "demo" / "tasks"), **told},
        "arguments": {"max-model-len": 512},
    }
    file = folder / "engines.yaml"
    file.write_text(yaml.safe_dump({"default": {"cpu": "stub", "gpu": "stub"}, "engines": {"stub": engine}}))
    return file
