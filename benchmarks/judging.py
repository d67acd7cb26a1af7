"""Judge 10 million samples: `python -m benchmarks.judging --out FOLDER`.

For each number of runs a synthetic fleet (benchmarks/fleet.py) that holds the samples between them is written in a
run's own bundle format, and every candidate is judged from the bundles as a load judges it: read and checked, paired,
counted and tested. Each repeat is a process of its own, whose peak of resident memory is reported. The cost of a test
where no two candidates have the same counts is measured separately.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path

from benchmarks.fleet import Size
from benchmarks.warehouse import Result, begun, number, numbers, run_step, save

DOCUMENTS = (1_319, 12_000)
"""Documents of a task whose counts are drawn: as many as GSM8K and the largest tasks of a large suite have."""


_COLUMNS = (
    "runs",
    "samples",
    "documents a task",
    "candidates",
    "tasks",
    "distinct exact tests",
    "seconds (each repeat)",
    "CPU, s",
    "reading, s",
    "counting, s",
    "testing, s",
    "peak memory, GB",
    "load average",
)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; 1 if a step failed."""
    options = _parser().parse_args(argv)
    result = begun("judging", argv, options) | {"shapes": [], "figures": {}}
    for runs in options.runs:
        result["shapes"].append(_shape(Size(runs, options.samples, runs), options))
        save(result, options.out, _markdown)
    arguments = {"documents": DOCUMENTS, "candidates": options.candidates, "seed": options.seed}
    result["figures"] = run_step("figures", arguments, options)
    save(result, options.out, _markdown)
    print(_markdown(result))
    steps = [step for shape in result["shapes"] for step in (shape["write"], *shape["judge"])]
    return 1 if any("failed" in step for step in (*steps, result["figures"])) else 0


def _shape(size: Size, options: argparse.Namespace) -> Result:
    """Write the bundles of a fleet and judge them ``options.repeats`` times."""
    folder = options.out / f"{size.samples}-of-{size.runs}-runs-{options.seed}"
    location, kept = {"folder": str(folder)}, folder / "written.json"
    try:
        if kept.exists():
            written: Result = json.loads(kept.read_text())
        else:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            written = run_step("write", {**location, "size": vars(size), "seed": options.seed}, options)
            kept.write_text(json.dumps(written))
        repeats = 0 if "failed" in written else options.repeats
        judged = [run_step("judge", location, options) for _ in range(repeats)]
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return {
        "runs": size.runs,
        "samples": size.samples_in_all,
        "samples_a_task": size.documents,
        "write": written,
        "judge": judged,
    }


def _markdown(result: Result) -> str:
    """Write the tables that docs/benchmarks.md quotes."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---:" * len(_COLUMNS) + "|"]
    for shape in result["shapes"]:
        passed = [step for step in shape["judge"] if "failed" not in step]
        if not passed:
            lines.append(f"| {shape['runs']:,} | failed |")
            continue
        first = passed[0]
        took = [step["seconds"]["all"] for step in passed]
        parts = (
            statistics.median(step["seconds"].get(part, 0.0) for step in passed)
            for part in ("judge_read", "judge_count", "judge_test")
        )
        cells = [
            *(f"{n:,}" for n in (shape["runs"], first["samples"], shape["samples_a_task"])),
            *(f"{first[name]:,}" for name in ("candidates", "tasks", "exact_tests")),
            f"{statistics.median(took):.2f} ({', '.join(f'{s:.2f}' for s in took)})",
            f"{statistics.median(step['cpu_seconds'] for step in passed):.2f}",
            *(f"{seconds:.2f}" for seconds in parts),
            f"{max(step['peak_memory_bytes'] for step in passed) / 1e9:.2f}",
            ", ".join(f"{step['load_average'][1]:.1f}" for step in passed),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| documents a task | candidates | distinct exact tests | a candidate of 5 tasks, ms | again, ms |",
        "|---:|---:|---:|---:|---:|",
    ]
    for test in result["figures"].get("tests", ()):
        new, known = (1e3 * test["seconds"][name] / test["candidates"] for name in ("new", "known"))
        lines.append(
            f"| {test['documents']:,} | {test['candidates']:,} | {test['exact_tests']:,} "
            f"| {new:.1f} | {known:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judging", description=__doc__)
    parser.add_argument(
        "--samples", type=number, default=10_000_000, help="sample rows, of all runs together"
    )
    parser.add_argument(
        "--runs",
        type=numbers,
        default=[15, 360, 10_000],
        help="runs that contain them; two of three are candidates",
    )
    parser.add_argument("--candidates", type=number, default=400, help="candidates whose counts are drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3, help="times that each fleet is judged")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundles and the results")
    parser.add_argument(
        "--memory-limit", type=number, default=8 * 10**9, help="bytes; a step above it is ended"
    )
    parser.add_argument(
        "--time-limit", type=float, default=1800, help="seconds; a step that takes longer is ended"
    )
    parser.add_argument("--keep", action="store_true", help="keep the bundles; the next run reuses them")
    return parser


if __name__ == "__main__":
    sys.exit(main())
