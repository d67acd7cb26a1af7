"""Write the result of the warehouse's benchmark as tables in markdown, with growth as ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Result = dict[str, Any]


def markdown(result: Result) -> str:
    """Write a table with a column for each size, from the second on with its ratio to the one before."""
    sizes = result["sizes"]
    machine = result["machine"]
    lines = [
        f"`{result['command']}`",
        "",
        ", ".join(
            (
                result["at"],
                f"{machine['cores']} × {machine['cpu']}",
                f"{machine['memory_bytes'] / 2**30:.0f} GiB",
                f"DuckDB {machine['duckdb']}",
                f"Python {machine['python']}",
                f"niceness {machine['niceness']}",
            )
        ),
        "",
        "| | " + " | ".join(f"{size['samples'] / 1e6:g} M samples" for size in sizes) + " |",
        "|---|" + "---:|" * len(sizes),
    ]
    for label, values, write in _rows(sizes):
        cells, last = [], None
        for value in values:
            ratio = f" (×{value / last:.2f})" if value and last else ""
            cells.append("–" if value is None else write(value) + ratio)
            last = value
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _rows(sizes: list[Result]) -> Iterator[tuple[str, list[float | None], Callable[[float], str]]]:
    def of(*path: str) -> list[float | None]:
        return [_find(size, *path) for size in sizes]

    def rate(part: Callable[[Result], float | None]) -> list[float | None]:
        rates: list[float | None] = []
        for size in sizes:
            seconds = part(size["steps"].get("first", {}))
            rates.append((size["samples"] + size["points"]) / seconds if seconds else None)
        return rates

    yield "runs", of("runs"), "{:,.0f}".format
    yield "throughput points", of("points"), "{:,.0f}".format
    yield "bundles, GB", _scaled(of("steps", "make", "bundle_bytes"), 1e-9), "{:.2f}".format
    yield "load and judge, s", of("steps", "first", "seconds", "all"), "{:,.0f}".format
    for part, label in (
        ("read", "of it reading and checking bundles"),
        ("insert", "of it inserting"),
        ("bounds", "of it the points' limits"),
        ("judge", "of it judging"),
        ("judge_read", "judging: reading samples, in threads"),
        ("judge_count", "judging: counting pairs"),
        ("judge_test", "judging: testing"),
        ("materialize", "of it filling the materialized tables"),
    ):
        yield f"{label}, s", of("steps", "first", "seconds", part), "{:,.1f}".format
    yield "rows/s loaded, judging left out", rate(_without_judging), "{:,.0f}".format
    yield "rows/s loaded and judged", rate(lambda step: step.get("seconds", {}).get("all")), "{:,.0f}".format
    yield "judging a candidate, ms", [_per_candidate(size) for size in sizes], "{:,.1f}".format
    yield "load, peak memory, GB", _scaled(of("steps", "first", "peak_memory_bytes"), 1e-9), "{:.2f}".format
    yield "warehouse file, GB", _scaled(of("steps", "first", "warehouse_bytes"), 1e-9), "{:.2f}".format
    yield "one bundle more, s", of("steps", "again", "seconds", "all"), "{:,.1f}".format
    yield "of it the copy of the file, s", of("steps", "again", "seconds", "copy"), "{:,.1f}".format
    for name, label in (
        ("validated_table", "`validated_table`, one model"),
        ("cost_per_token", "`cost_per_token`, one model"),
        ("verdicts", "`verdicts`, one model"),
    ):
        yield f"{label}: rows", of("steps", "query", name, "rows"), "{:,.0f}".format
        yield f"{label}: warm, ms", of("steps", "query", name, "ms"), "{:,.0f}".format
        yield f"{label}: new connection, ms", of("steps", "query", name, "fresh_ms"), "{:,.0f}".format
        yield f"{label}: cold, ms", of("steps", "query", name, "cold_ms"), "{:,.0f}".format
    yield (
        "queries, peak memory, GB",
        _scaled(of("steps", "query", "peak_memory_bytes"), 1e-9),
        "{:.2f}".format,
    )
    for name, label in (
        ("cost_per_token", "`cost_per_token`, whole, every column, s"),
        ("validated_table_counted", "`validated_table`, whole, counted and summed, s"),
        ("validated_table", "`validated_table`, whole, every column, s"),
        ("samples_mean_score", "mean score of every sample by task, s"),
    ):
        if any(value is not None for value in of("steps", "whole", name, "ms")):
            yield label, _scaled(of("steps", "whole", name, "ms"), 1e-3), "{:,.2f}".format
    yield "load average, load", of("steps", "first", "load_average", "1"), "{:.1f}".format
    yield "load average, queries", of("steps", "query", "load_average", "1"), "{:.1f}".format


def _find(node: Any, *path: str) -> float | None:
    for name in path:
        if isinstance(node, list):
            node = dict(enumerate(node)).get(int(name))
        elif isinstance(node, dict):
            node = node.get(name)
        if node is None:
            return None
    return float(node)


def _scaled(values: list[float | None], factor: float) -> list[float | None]:
    return [None if value is None else value * factor for value in values]


def _without_judging(step: Result) -> float | None:
    seconds = step.get("seconds")
    return seconds["all"] - seconds.get("judge", 0) if seconds else None


def _per_candidate(size: Result) -> float | None:
    step = size["steps"].get("first", {})
    return 1e3 * step["seconds"]["judge"] / step["judged"] if step.get("judged") else None
