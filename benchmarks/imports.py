"""Time large imports beside those of another checkout.

``python -m benchmarks.imports --before FOLDER``: both checkouts import the same 100,000 price offers into an empty home
and load them (``quantgate prices import``), and read a JSONL line with 30,000 choices. They run in turn with this
environment's Python, so that both see the machine in the same state; each figure is CPU seconds of a process, the
median of the runs.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import date, timedelta
from pathlib import Path

from quantgate.model.home import ROOT

_PRICES = """
import sys, tomllib
from importlib import import_module
from pathlib import Path
checkout, file = sys.argv[1:]
sys.path.insert(0, checkout)
command = tomllib.loads(Path(checkout, "pyproject.toml").read_text())["project"]["scripts"]["quantgate"]
module, _, function = command.partition(":")
sys.argv = ["quantgate", "prices", "import", file]
getattr(import_module(module), function)()
"""
_CHOICES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
try:
    from tasks.quality.jsonl import read_documents
except ImportError:  # where it was earlier
    from tasks.jsonl_task import read_documents
read_documents(Path(sys.argv[2]))
"""


def cpu_s(checkout: Path, script: str, file: Path) -> float:
    """Return the CPU seconds of a script in a process of its own, with an empty home.

    Args:
        checkout: whose code runs.
        script: it gets the checkout and the file.
        file: what is imported.

    Raises:
        SystemExit: the script failed.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUANTGATE_")}
    with tempfile.TemporaryDirectory() as home:
        before = os.times()
        done = subprocess.run(
            [sys.executable, "-c", script, str(checkout), str(file)],
            cwd=checkout,
            env=kept | {"QUANTGATE_HOME": home},
            capture_output=True,
            text=True,
            check=False,
        )
        after = os.times()
    if done.returncode:
        sys.exit(f"{checkout}: {done.stderr[-500:]}")
    return after.children_user + after.children_system - before.children_user - before.children_system


def write_offers(path: Path, offers: int) -> Path:
    """Write a CSV of price offers, 1,000 days in a series."""
    first = date(2020, 1, 1)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = "provider,region,gpu,price_kind,usd_per_hour,valid_from,valid_to,source"
        writer.writerow(names.split(","))
        for number in range(offers):
            day = first + timedelta(days=number % 1000)
            terms = (1.5 + number % 7, day, day + timedelta(days=1))
            writer.writerow([f"p{number // 1000}", "eu", "h100", "on_demand", *terms, f"list {number}"])
    return path


def write_choices(path: Path, choices: int) -> Path:
    """Write a JSONL file of one line with so many choices."""
    line = {"prompt": "Which?", "answer": "choice 7", "choices": [f"choice {n}" for n in range(choices)]}
    path.write_text(json.dumps(line) + "\n", encoding="utf-8")
    return path


def main() -> None:
    """Time both checkouts in turn and print a table in markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imports", description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="the other checkout")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--offers", type=int, default=100_000)
    parser.add_argument("--choices", type=int, default=30_000)
    arguments = parser.parse_args()
    print("| what | before, CPU s | this, CPU s | ratio |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        measured = {
            f"{arguments.offers:,} price offers, imported and loaded": (
                _PRICES,
                write_offers(Path(folder) / "offers.csv", arguments.offers),
            ),
            f"a JSONL line with {arguments.choices:,} choices, read": (
                _CHOICES,
                write_choices(Path(folder) / "choices.jsonl", arguments.choices),
            ),
        }
        for label, (script, file) in measured.items():
            pairs = [
                [cpu_s(checkout, script, file) for checkout in (arguments.before.resolve(), ROOT)]
                for _ in range(arguments.runs)
            ]
            before, this = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
            print(f"| {label} | {before:.1f} | {this:.1f} | {this / before:.3f} |", flush=True)


if __name__ == "__main__":
    main()
