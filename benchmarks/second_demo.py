"""Time a second demo, which has nothing to measure, beside that of another checkout.

``python -m benchmarks.second_demo --before FOLDER``: both checkouts have been set up and have measured the demo once
(``make demo``). Their ``quantgate demo`` run in turn, so that both see the machine in the same state; each line gives
wall seconds, then the medians and their ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from quantgate.model.home import ROOT


def second_demo_s(checkout: Path) -> float:
    """Return the wall seconds of a demo that measures nothing.

    Args:
        checkout: where ``make demo`` has run.

    Raises:
        SystemExit: the demo failed, or measured something.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUANTGATE_")}
    begin = time.monotonic()
    done = subprocess.run(
        [checkout / ".venv" / "bin" / "quantgate", "demo"],
        cwd=checkout,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    took_s = time.monotonic() - begin
    if done.returncode or "nothing was measured again" not in done.stdout + done.stderr:
        sys.exit(f"{checkout}: not a second demo: run `make demo` there first\n{done.stderr[-500:]}")
    return took_s


def main() -> None:
    """Time both checkouts in turn and print a table in markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.second_demo", description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="the other checkout")
    parser.add_argument("--runs", type=int, default=5, help="of each, after one that does not count")
    arguments = parser.parse_args()
    checkouts = {"before": arguments.before.resolve(), "this": ROOT}
    seconds: dict[str, list[float]] = {name: [] for name in checkouts}
    print("| run | before, s | this, s |\n|---|---|---|")
    for run in range(arguments.runs + 1):
        for name, checkout in checkouts.items():
            seconds[name].append(second_demo_s(checkout))
        print(
            f"| {run or 'not counted'} | {seconds['before'][-1]:.2f} | {seconds['this'][-1]:.2f} |",
            flush=True,
        )
    before, this = (statistics.median(seconds[name][1:]) for name in checkouts)
    print(f"| median | {before:.2f} | {this:.2f} |\n\nratio {this / before:.2f}")


if __name__ == "__main__":
    main()
