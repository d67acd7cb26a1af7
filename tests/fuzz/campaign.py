"""Try every kind of input with everything wrong that a mutation makes of it, and print what came of it.

``python -m tests.fuzz.campaign EACH``: so many inputs of each kind and mutation, and twelve times as many command
lines of each verb, each in a child of its own. The same number tries the same inputs.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

from quantgate.model.home import ROOT
from tests.fuzz.command_lines import VERBS, words
from tests.fuzz.entry import FLOW_BEGINS, in_child
from tests.fuzz.inputs import KINDS, warehouse

COLUMNS = ("inputs", "accepted", "refused", "failed", "tracebacks and crashes", "wrong statuses", "lost data")
REPLACED = "warehouse.duckdb"
"""A load replaces it; that it is there afterwards is checked."""


def main() -> int:
    """Print the table; return 1 if anything is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("each", type=int)
    parser.add_argument("--only", default="", help="pattern of the kinds to try")
    parser.add_argument("--most", type=int, default=1 << 30, help="inputs of a kind, drawn among all")
    arguments = parser.parse_args()
    for room in ("tasks", "warehouse", "flows", "commands"):  # once, and not in each child
        for path in (ROOT / room).rglob("[a-z]*.py"):
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    total: Counter[str] = Counter()
    sys.stdout.write(f"| kind | {' | '.join(COLUMNS)} |\n|---|{'--:|' * len(COLUMNS)}\n")
    for name in [*KINDS, *(f"command line: {verb}" for verb in VERBS)]:
        if not re.search(arguments.only, name):
            continue
        counts: Counter[str] = Counter()
        for number, mutation in _tries(name, arguments.each, arguments.most):
            counts += _try(name, mutation, Random(f"{name} {mutation} {number}"))
        _row(name, counts)
        total += counts
    _row("all", total)
    return int(any(total[column] for column in COLUMNS[4:]))


def _tries(name: str, each: int, most: int) -> list[tuple[int, str]]:
    mutations = KINDS[name].mutations if name in KINDS else [f"words {n}" for n in range(12)]
    tries = [(number, mutation) for mutation in mutations for number in range(each)]
    return tries if most >= len(tries) else Random(name).sample(tries, most)


def _row(name: str, counts: Counter[str]) -> None:
    sys.stdout.write(f"| {name} | {' | '.join(f'{counts[column]:,}' for column in COLUMNS)} |\n")
    sys.stdout.flush()


def _try(name: str, mutation: str, random: Random) -> Counter[str]:
    """Return the columns that one input counts in."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    home = {
        "QUANTGATE_HOME": str(folder / "home"),
        "QUANTGATE_LOCKS": str(folder / "locks"),
        "HF_HUB_OFFLINE": "1",
    }
    if name in KINDS:
        line, environment = KINDS[name].write(folder, mutation, random)
    else:
        line, environment = words(name.removeprefix("command line: "), random), {}
        (folder / "home").mkdir()
        (folder / "home" / "warehouse.duckdb").write_bytes(warehouse())
    before = _contents(folder)
    ended = in_child(line, home | environment)
    after = _contents(folder)
    shutil.rmtree(folder)
    begun = ended.err.endswith(f"{FLOW_BEGINS}\n")
    column = (
        "accepted"
        if begun
        else {0: "accepted", 3: "accepted", 2: "refused", 1: "failed"}.get(
            ended.status or 0, "wrong statuses"
        )
    )
    counts = Counter({"inputs": 1, column: 1})
    if ended.fault:
        counts = Counter(
            {"inputs": 1, "wrong statuses" if ended.fault.startswith("status") else COLUMNS[4]: 1}
        )
        last = " / ".join(ended.fault.strip().splitlines()[-3:])
        sys.stderr.write(f"{name}, {mutation}: {line}\n    {last[-900:]}\n")
    if column == "failed" and not ended.fault:
        sys.stderr.write(f"{name}, {mutation}: {line}\n    failed: {ended.err[-600:]}\n")
    if any(after.get(file) != digest for file, digest in before.items()):
        counts["lost data"] += 1
        sys.stderr.write(f"{name}, {mutation}: {line}\n    lost data\n")
    return counts


def _contents(folder: Path) -> dict[str, str]:
    """Return what lies in a folder: a hash of each file, and what links and others are."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.name != REPLACED and path.stat().st_size < 1 << 30
        else "is there"
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


if __name__ == "__main__":
    raise SystemExit(main())
