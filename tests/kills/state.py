"""What a home holds between kills and at the end, and how it compares with that of an undisturbed run."""

from __future__ import annotations

import collections
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from quantgate.bundles.store import DECLARED, ORDER_DIGITS
from warehouse.query import query

COUNTS = """
    SELECT (SELECT count(*) FROM runs) AS runs, (SELECT count(*) FROM samples) AS samples,
           (SELECT count(*) FROM throughput_points) AS points, (SELECT count(*) FROM verdicts) AS verdicts
"""
DOUBLED = """
    SELECT 'sample' AS what, run_id, task || ' ' || doc_id || ' ' || doc_repeat AS which FROM samples
    GROUP BY ALL HAVING count(*) > 1
    UNION ALL
    SELECT 'load point', run_id, operating_point FROM throughput_points GROUP BY ALL HAVING count(*) > 1
"""
# Columns that tell when and by which process something was measured, not what.
OWN = {
    "validated_table": {"run_id", "measured_at", "declared_at", "as_of", "verdict_run_id"},
    "samples": {"run_id", "engine_start_id"},
    "load_points": {"run_id", "engine_start_id", "measured_at", "client_cpu_share"},
    "requests": {"run_id"},
    "fidelity": {"run_id", "engine_start_id"},
}


def visible(home: Path) -> list[Path]:
    """Bundles as a reader sees them."""
    place = home / "bundles"
    return sorted(p for p in place.iterdir() if not p.name.startswith(".")) if place.exists() else []


def damaged(home: Path) -> list[str]:
    """Visible bundles that are not whole."""
    faults = []
    for bundle in visible(home):
        manifest = bundle / "manifest.json"
        if not manifest.exists():
            faults.append(f"{bundle.name} has no manifest")
            continue
        files = json.loads(manifest.read_text())["files"]
        if sorted(files) != sorted(p.name for p in bundle.glob("*.parquet")):
            faults.append(f"{bundle.name} holds other files than its manifest")
        for name, entry in files.items():
            file = bundle / name
            if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
                faults.append(f"{bundle.name}/{name} is not whole")
    return faults


def counts(home: Path) -> dict[str, int]:
    """Rows in the warehouse; nothing where there is none yet."""
    warehouse = home / "warehouse.duckdb"
    return dict(query(warehouse, COUNTS).to_pylist()[0]) if warehouse.exists() else {}


def shrunk(before: dict[str, int], now: dict[str, int]) -> list[str]:
    """Counts that are lower than they were."""
    return [
        f"{what}: {count} became {now.get(what, 0)}"
        for what, count in before.items()
        if now.get(what, 0) < count
    ]


def leftovers(home: Path, bundles_each: int = 1) -> list[str]:
    """What a finished home must not hold, and what it holds more often than it was measured."""
    faults = [
        f"in staging: {p.name}"
        for p in (home / "staging").iterdir()
        if p.name not in {".locks", ".fresh-after"}
    ]
    faults += [f"in staging/.fresh-after: {p.name}" for p in (home / "staging").glob(".fresh-after/*")]
    hidden = [p.name for p in (home / "bundles").iterdir() if p.name.startswith(".")]
    faults += [f"in bundles: {name}" for name in hidden if name != DECLARED]
    declared = {p.name[ORDER_DIGITS + 1 :] for p in (home / "bundles" / DECLARED).iterdir()}
    faults += [f"never declared: {p.name}" for p in visible(home) if p.name not in declared]
    faults += [f"in the home: {p.name}" for p in home.glob(".*.next-*")]
    faults += [f"in published: {p.name}" for p in (home / "published").glob(".*.next-*")]
    warehouse = home / "warehouse.duckdb"
    loaded = [row["run_id"] for row in query(warehouse, "SELECT run_id FROM runs ORDER BY ALL").to_pylist()]
    if loaded != [p.name for p in visible(home)]:
        faults.append(f"bundles {[p.name for p in visible(home)]}, runs in the warehouse {loaded}")
    prints = [json.loads((p / "manifest.json").read_text())["fingerprint"] for p in visible(home)]
    often = {count for count in collections.Counter(prints).values() if count != bundles_each}
    if often:
        faults.append(f"a fingerprint has {often} bundles, not {bundles_each}")
    faults += [f"twice in the warehouse: {row}" for row in query(warehouse, DOUBLED).to_pylist()]
    return faults


def measured_anew(home: Path) -> bool:
    """Whether each fingerprint has a second bundle and no measuring anew is under way: once more would be a third."""
    return len(visible(home)) == 4 and not list((home / "staging" / ".fresh-after").glob("*.json"))


def _rows(table: pa.Table, name: str, checkpoint: str = "") -> list[str]:
    """Rows as text without the columns of its own, in an order of their own."""
    kept: list[dict[str, Any]] = table.drop_columns(
        [column for column in table.column_names if column in OWN[name]]
    ).to_pylist()
    return sorted(json.dumps({"of": checkpoint, **row}, default=str, sort_keys=True) for row in kept)


def measured(home: Path) -> dict[str, list[str]]:
    """Everything that an undisturbed run would have too: the table, samples, load points, requests, fidelity."""
    found = {
        "validated_table": _rows(
            pq.read_table(home / "published" / "validated_table.parquet"), "validated_table"
        )
    }
    for name in ("samples", "load_points", "requests", "fidelity"):
        found[name] = []
        for bundle in visible(home):
            checkpoint = json.loads((bundle / "manifest.json").read_text())["checkpoint"]["name"]
            found[name] += _rows(pq.read_table(bundle / f"{name}.parquet"), name, checkpoint)
        found[name].sort()
    return found


def differences(reference: dict[str, list[str]], found: dict[str, list[str]]) -> list[str]:
    """Where two homes differ in what was measured."""
    faults = []
    for name, rows in reference.items():
        lost = [row for row in rows if row not in set(found[name])]
        new = [row for row in found[name] if row not in set(rows)]
        if rows != found[name]:
            faults.append(
                f"{name}: {len(rows)} rows became {len(found[name])}; gone {lost[:1]}, new {new[:1]}"
            )
    return faults
