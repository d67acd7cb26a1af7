"""The lock files against the recorded advisories, without asking anybody; and what the audit says of others."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.version import Version
from pydantic import ValidationError

from quantgate.model.home import ROOT

AUDIT = ROOT / "requirements" / "audit.py"
_SPEC = importlib.util.spec_from_file_location("audit", AUDIT)
assert _SPEC is not None
assert _SPEC.loader is not None
audit = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(audit)
ADVISORIES = audit.recorded()
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())


def test_no_locked_version_has_a_recorded_advisory() -> None:
    done = subprocess.run([sys.executable, AUDIT, "--recorded"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (
        0,
        f"4 lock files: none of {len(ADVISORIES)} recorded advisories applies\n",
    )


def test_an_affected_version_is_named_with_its_advisory(tmp_path: Path) -> None:
    lock = tmp_path / "pipeline.txt"
    lock.write_text("requests==2.31.0 \\\n    --hash=sha256:0\nrequests==2.33.0 ; sys\ntorch==2.5.1+cpu\n")
    found = audit.affected(lock, ADVISORIES)
    assert [re.search(r"CVE-\d+-\d+", line)[0] for line in found] == [  # type: ignore[index]
        "CVE-2024-35195",
        "CVE-2024-47081",
        "CVE-2025-32434",
    ]
    assert "fixed in 2.6.0" in found[-1]


def test_recorded_advisories_have_a_source_and_are_about_what_is_locked() -> None:
    locked = {name for file in AUDIT.parent.glob("*.txt") for name, _ in audit.locked(file)}
    assert len({known.id for known in ADVISORIES}) == len(ADVISORIES)
    for known in ADVISORIES:
        assert known.package in locked
        assert Version(known.fixed) > Version("0")
    record = ADVISORIES[0].model_dump()
    for wrong in ({"source": "from memory"}, {"fixed": 3.7}, {"severity": "high"}):
        with pytest.raises(ValidationError):
            audit.Advisory(**(record | wrong))
    with pytest.raises(ValidationError):
        audit.Advisory(**{key: part for key, part in record.items() if key != "source"})


def test_ci_audits_and_lists_what_is_locked_in_a_job_of_its_own() -> None:
    commands = [step.get("run") for step in WORKFLOW["jobs"]["audit"]["steps"]]
    assert {"make audit", "make sbom"} <= set(commands)
    makefile = (ROOT / "Makefile").read_text()
    for target in ("test", "test-fast", "lint"):
        rule = re.search(rf"^{target}: (.*?)\n\n", makefile, re.MULTILINE | re.DOTALL)
        assert rule is not None
        assert "audit" not in rule[1], "tests need no internet"
    locks = re.search(r"^SBOM_LOCKS := (.*)$", makefile, re.MULTILINE)
    assert locks is not None
    assert set(locks[1].split()) == {file.stem for file in AUDIT.parent.glob("*.txt") if audit.locked(file)}
    assert "--output-reproducible" in makefile
