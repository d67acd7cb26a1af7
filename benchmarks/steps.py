"""Run one step of the warehouse's benchmark in a process of its own: `python -m benchmarks.steps STEP JSON`.

A step prints one line of JSON. Load and judging are the real ones; their parts are timed where they are called.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fleet import Fleet, Size
from benchmarks.suite import SUITE
from quantgate.bundles.store import BundleStore
from quantgate.judge.judge import judge_evidence
from quantgate.judge.pair_counts import count_pairs
from quantgate.judge.pairing import Counts
from quantgate.judge.stats import exact
from quantgate.model.config.policy import load_policy
from warehouse import judge_runs, load
from warehouse.architectures import refresh_bounds
from warehouse.database import refresh_materialized
from warehouse.query import read_only

Result = dict[str, Any]

_PARTS: dict[str, tuple[Any, str]] = {
    "copy": (shutil, shutil.copyfile.__name__),
    "read": (BundleStore, BundleStore.read.__name__),
    "insert": (load, load._insert.__name__),
    "bounds": (load, refresh_bounds.__name__),
    "judge": (load, load._judge_all.__name__),
    "judge_read": (BundleStore, BundleStore.read_columns.__name__),
    "judge_count": (judge_runs, count_pairs.__name__),
    "judge_test": (judge_runs, judge_runs._judge.__name__),
    "materialize": (load, refresh_materialized.__name__),
}
"""Parts of a load: reading and checking bundles, inserting them, the roofline of each point, judging (of which reading
the samples again, in threads beside the rest of it, counting pairs and testing them), filling the tables that
validated_table reads. `copy` is the copy of the present state that the next one starts from."""

_OF_ONE_MODEL = {
    "validated_table": "FROM validated_table WHERE model = $model",
    "cost_per_token": "FROM cost_per_token WHERE model = $model",
    "verdicts": "FROM verdicts WHERE model = $model",
}
_WHOLE = {
    "cost_per_token": "FROM cost_per_token",
    "validated_table_counted": "SELECT count(*), sum(usd_per_mtok_output) FROM validated_table",
    "samples_mean_score": "SELECT task, avg(score) FROM samples GROUP BY task",
}


def make(folder: Path, size: Size, seed: int) -> Result:
    """Write the bundles and hide the last run, for `again`."""
    fleet, begin = Fleet(size, seed), time.perf_counter()
    fleet.write(folder / "bundles")
    seconds = time.perf_counter() - begin
    last = sorted(path for path in (folder / "bundles").iterdir() if path.is_dir())[-1]
    last.rename(last.with_name(f".{last.name}"))
    return {"seconds": seconds, "bundle_bytes": _size_bytes(folder / "bundles"), "model": fleet.model}


def write(folder: Path, size: Size, seed: int) -> Result:
    """Write the bundles, all to be judged."""
    begin = time.perf_counter()
    Fleet(size, seed).write(folder / "bundles")
    return {"seconds": time.perf_counter() - begin, "bundle_bytes": _size_bytes(folder / "bundles")}


def judge(folder: Path) -> Result:
    """Judge every candidate from its bundle and its baseline's, as a load does, each baseline's side by side."""
    store, seconds = BundleStore(folder / "bundles"), _time_parts()
    manifests = [store.read_manifest(run_id) for run_id in store.run_ids()]
    pairs = sorted((m.baseline.run_id, m.run_id) for m in manifests if m.baseline)
    begin, cpu_begin = time.perf_counter(), time.process_time()
    verdicts, tasks = Counter[str](), 0
    for judged in judge_runs.judge_stored(store, [(candidate, baseline) for baseline, candidate in pairs]):
        for_all = [verdict for verdict in judged.verdicts if verdict.use == "all"]
        verdicts.update(str(verdict.verdict) for verdict in for_all)
        tasks += sum(len(verdict.tasks) for verdict in for_all)
    return {
        "seconds": {**seconds, "all": time.perf_counter() - begin},
        "cpu_seconds": time.process_time() - cpu_begin,
        "samples": sum(manifest.files["samples.parquet"].rows for manifest in manifests),
        "candidates": len(pairs),
        "tasks": tasks,
        "verdicts": dict(verdicts),
        "exact_tests": exact.p_noninferior.cache_info().misses,
    }


def figures(documents: list[int], candidates: int, seed: int) -> Result:
    """Time testing without reading or counting, by the documents of a task."""
    return {"tests": [_tests(n, candidates, seed) for n in documents]}


def _tests(documents: int, candidates: int, seed: int) -> Result:
    """Test candidates of drawn counts twice; the second time every figure is cached."""
    policy, generator = load_policy("standard"), np.random.default_rng(seed)
    flips = generator.binomial(documents, (0.02, 0.018), (candidates, len(SUITE.tasks), 2)).tolist()
    right = int(0.7 * documents)
    drawn = [
        {
            task.task: Counts(documents, worse, better, right, right - worse + better)
            for task, (worse, better) in zip(SUITE.tasks, of_candidate, strict=True)
        }
        for of_candidate in flips
    ]
    seconds, before = {}, exact.p_noninferior.cache_info().misses
    for name in ("new", "known"):
        begin = time.perf_counter()
        for counts in drawn:
            judge_evidence(counts, "standard", policy, SUITE.tasks)
        seconds[name] = time.perf_counter() - begin
    return {
        "documents": documents,
        "candidates": candidates,
        "exact_tests": exact.p_noninferior.cache_info().misses - before,
        "seconds": seconds,
    }


def first(folder: Path) -> Result:
    """Load every bundle into a new warehouse and judge."""
    return _load(folder)


def again(folder: Path) -> Result:
    """Load one bundle more; first delete the others that it doesn't need, to save disk space."""
    bundles = folder / "bundles"
    hidden = next(path for path in bundles.iterdir() if path.is_dir() and path.name.startswith("."))
    manifest = json.loads((hidden / "manifest.json").read_text())
    needed = {hidden.name, (manifest["baseline"] or {}).get("run_id")}
    for path in bundles.iterdir():
        if path.is_dir() and path.name not in needed:
            shutil.rmtree(path)
    hidden.rename(hidden.with_name(hidden.name.removeprefix(".")))
    return _load(folder)


def query(folder: Path, model: str, repeats: int) -> Result:
    """Time queries of one model's rows, every column fetched to Arrow.

    cold: in a process that has read nothing, with the file out of the page cache. fresh: a new connection, the file in
    the page cache. warm: the same connection again.
    """
    warehouse = folder / "warehouse.duckdb"
    latencies: Result = {}
    for name, sql in _OF_ONE_MODEL.items():
        cold = []
        for _ in range(3):
            _evict(warehouse)
            cold.append(_opened(warehouse, sql, model)["ms"])
        fresh = [_opened(warehouse, sql, model)["ms"] for _ in range(repeats)]
        with read_only(warehouse) as connection:
            runs = [_fetched(connection, sql, model) for _ in range(repeats + 1)][1:]
        latencies[name] = {
            **runs[0],
            "cold_ms": statistics.median(cold),
            "fresh_ms": statistics.median(fresh),
            "ms": statistics.median(run["ms"] for run in runs),
            "ms_min": min(run["ms"] for run in runs),
            "ms_max": max(run["ms"] for run in runs),
        }
    return latencies


def whole(folder: Path, *, every_column: bool) -> Result:
    """Time queries over all models, their rows streamed through Arrow, once each."""
    queries = _WHOLE | ({"validated_table": "FROM validated_table"} if every_column else {})
    return {name: _streamed(folder / "warehouse.duckdb", sql) for name, sql in queries.items()}


def _streamed(warehouse: Path, sql: str) -> Result:
    with read_only(warehouse) as connection:
        begin, rows, size_bytes = time.perf_counter(), 0, 0
        for batch in connection.sql(sql).to_arrow_reader(100_000):
            rows += batch.num_rows
            size_bytes += batch.nbytes
        return {"rows": rows, "arrow_bytes": size_bytes, "ms": 1e3 * (time.perf_counter() - begin)}


def _load(folder: Path) -> Result:
    seconds = _time_parts()
    warehouse, begin = folder / "warehouse.duckdb", time.perf_counter()
    report = load.load_bundles(warehouse, folder / "bundles")
    seconds["all"] = time.perf_counter() - begin
    with read_only(warehouse) as connection:
        rows = {
            table: connection.execute(f"SELECT count(*) FROM store.{table}").fetchall()[0][0]  # noqa: S608
            for table in ("runs", "samples", "load_points", "task_verdicts", "verdicts", "table_points")
        }
    return {
        "seconds": dict(seconds),
        "loaded": len(report.loaded),
        "judged": len(report.judged),
        "problems": list(report.problems[:3]),
        "rows": rows,
        "warehouse_bytes": warehouse.stat().st_size,
    }


def _time_parts() -> dict[str, float]:
    """Start adding up the seconds that each part takes; return the sums, which grow."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for part, (owner, name) in _PARTS.items():
        setattr(owner, name, _timed(getattr(owner, name), part, seconds))
    return seconds


def _timed(function: Callable[..., Any], part: str, seconds: dict[str, float]) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[part] += time.perf_counter() - begin

    return timed


def _opened(warehouse: Path, sql: str, model: str) -> Result:
    begin = time.perf_counter()
    with read_only(warehouse) as connection:
        result = _fetched(connection, sql, model)
    return {**result, "ms": 1e3 * (time.perf_counter() - begin)}


def _fetched(connection: Any, sql: str, model: str) -> Result:
    begin = time.perf_counter()
    table = connection.sql(sql, params={"model": model}).to_arrow_table()
    milliseconds = 1e3 * (time.perf_counter() - begin)
    return {
        "rows": table.num_rows,
        "columns": table.num_columns,
        "arrow_bytes": table.nbytes,
        "ms": milliseconds,
    }


def _evict(path: Path) -> None:
    """Drop a file's clean pages from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _size_bytes(folder: Path) -> int:
    """Return the size of a folder's files, hard links counted once."""
    sizes = {}
    for root, _, names in os.walk(folder):
        for name in names:
            stat = (Path(root) / name).stat()
            sizes[stat.st_ino] = stat.st_size
    return sum(sizes.values())


def main(step: str, arguments: Result) -> Result:
    """Run a step with its arguments from JSON."""
    if "folder" in arguments:
        arguments["folder"] = Path(arguments["folder"])
    if "size" in arguments:
        arguments["size"] = Size(**arguments["size"])
    steps: dict[str, Callable[..., Result]] = {
        "make": make,
        "write": write,
        "judge": judge,
        "figures": figures,
        "first": first,
        "again": again,
        "query": query,
        "whole": whole,
    }
    return steps[step](**arguments)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))) + "\n")
