"""Measure the warehouse at scale: `python -m benchmarks.warehouse --samples 1e6,1e7,1e8`.

For each number of samples a synthetic fleet (benchmarks/fleet.py) is loaded by the real loader, judged and queried,
each step in a process of its own, whose peak of resident memory is reported. `result.json` and a table in markdown lie
in the output folder; bundles and warehouses are deleted unless --keep is given.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.fleet import RUNS_PER_MODEL, Size
from benchmarks.report import markdown
from quantgate.model.home import ROOT

Result = dict[str, Any]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if a step failed."""
    options = _parser().parse_args(argv)
    result = begun("warehouse", argv, options) | {"sizes": []}
    for samples in options.samples:
        size = Size(options.runs, samples, options.points)
        folder = options.out / f"{samples:.0e}".replace("+0", "")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        steps: dict[str, Result] = {}
        result["sizes"].append(
            {"samples": size.samples_in_all, "points": size.points_in_all, "runs": size.runs, "steps": steps}
        )
        try:
            for name, outcome in _steps(folder, size, options):
                steps[name] = outcome
                save(result, options.out, markdown)
        finally:
            if not options.keep:
                shutil.rmtree(folder, ignore_errors=True)
    print(markdown(result))
    failed = [step for size in result["sizes"] for step in size["steps"].values() if "failed" in step]
    return 1 if failed else 0


def _steps(folder: Path, size: Size, options: argparse.Namespace) -> Iterator[tuple[str, Result]]:
    """Run every step; a failure ends this size."""
    location = {"folder": str(folder)}
    made = run_step("make", {**location, "size": vars(size), "seed": options.seed}, options)
    yield "make", made
    if "failed" in made:
        return
    loaded = run_step("first", location, options)
    yield "first", loaded
    if "failed" in loaded:
        return
    yield (
        "query",
        run_step("query", {**location, "model": made["model"], "repeats": options.repeats}, options),
    )
    yield "whole", run_step("whole", {**location, "every_column": options.every_column}, options)
    yield "again", run_step("again", location, options)


def run_step(step: str, arguments: Result, options: argparse.Namespace) -> Result:
    """Run a step as a child process; return its result, its peak of resident memory and the load averages."""
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {step}\n")
    command = [sys.executable, "-m", "benchmarks.steps", step, json.dumps(arguments)]
    before, begin = os.getloadavg()[0], time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        peak_bytes, ended = 0, ""
        while child.poll() is None:
            peak_bytes = max(peak_bytes, _peak_bytes(child.pid))
            if peak_bytes > options.memory_limit:
                ended = f"took more than {options.memory_limit / 1e9:g} GB of memory"
            elif time.monotonic() - begin > options.time_limit:
                ended = f"took longer than {options.time_limit:g} s"
            if ended:
                child.kill()
                child.wait()
            time.sleep(0.02)
        assert child.stdout is not None
        text = child.stdout.read()
    if child.returncode and not ended:
        ended = f"ended with status {child.returncode}"
    outcome = {"failed": ended} if ended else json.loads(text)
    return {**outcome, "peak_memory_bytes": peak_bytes, "load_average": [before, os.getloadavg()[0]]}


def _peak_bytes(pid: int) -> int:
    """Return a process's peak of resident memory, bytes; 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    peaks_kib = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return int(peaks_kib[0]) * 1024 if peaks_kib else 0


def begun(name: str, argv: list[str] | None, options: argparse.Namespace) -> Result:
    """Make a benchmark's output folder; return what its result begins with."""
    options.out.mkdir(parents=True, exist_ok=True)
    return {
        "benchmark": name,
        "command": " ".join([f"python -m benchmarks.{name}", *(sys.argv[1:] if argv is None else argv)]),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "seed": options.seed,
    }


def save(result: Result, out: Path, markdown: Callable[[Result], str]) -> None:
    """Write a result as JSON and as tables."""
    (out / "result.json").write_text(json.dumps(result, indent=1))
    (out / "result.md").write_text(markdown(result))


def _machine() -> Result:
    """Describe what the figures are measured on."""
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": model[0] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "duckdb": version("duckdb"),
        "pyarrow": version("pyarrow"),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warehouse", description=__doc__)
    parser.add_argument("--samples", type=numbers, default=[1_000_000], help="sample rows: 1e6,1e7,1e8")
    parser.add_argument("--points", type=number, default=1_000_000, help="throughput points")
    parser.add_argument("--runs", type=number, default=10_000, help=f"runs; {RUNS_PER_MODEL} per model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder of the data and the results")
    parser.add_argument(
        "--repeats", type=int, default=9, help="runs of each query, of which the median counts"
    )
    parser.add_argument(
        "--memory-limit", type=number, default=16 * 10**9, help="bytes; a step that takes more is ended"
    )
    parser.add_argument(
        "--time-limit", type=float, default=3600, help="seconds; a step that takes longer is ended"
    )
    parser.add_argument(
        "--every-column", action="store_true", help="also fetch every column of the whole validated_table"
    )
    parser.add_argument("--keep", action="store_true", help="keep bundles and warehouses")
    return parser


def number(text: str) -> int:
    """Read a whole number, which may be written as 1e7."""
    return int(float(text))


def numbers(text: str) -> list[int]:
    """Read whole numbers separated by commas."""
    return [number(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
