"""Loading: idempotent, whole or not at all, and readers go on."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from quantgate.model.errors import ConfigError, RunError
from quantgate.model.home import ROOT
from warehouse.load import load_bundles
from warehouse.query import query
from warehouse.report.render import render
from warehouse.swap import exclusive

COUNTS = """
    SELECT (SELECT count(*) FROM store.runs), (SELECT count(*) FROM store.samples),
        (SELECT count(*) FROM store.prompts), (SELECT count(*) FROM store.load_points),
        (SELECT count(*) FROM store.requests), (SELECT count(*) FROM store.telemetry),
        (SELECT count(*) FROM store.run_tasks), (SELECT count(*) FROM store.engine_starts),
        (SELECT count(*) FROM store.verdicts), (SELECT count(*) FROM store.task_verdicts),
        (SELECT count(*) FROM validated_table)
"""


def counts(warehouse: Path) -> list[int]:
    row = query(warehouse, COUNTS).to_pylist()[0]
    return list(row.values())


def leftovers(place: Any) -> list[str]:
    return [path.name for path in place.path.iterdir() if ".next-" in path.name]


def test_every_part_arrives_and_a_second_load_changes_nothing(place: Any, three: Any) -> None:
    place.write(*three)
    report = load_bundles(place.warehouse, place.bundles)
    assert report.loaded == ("run-bf16", "run-fp8", "run-nvfp4")
    assert report.judged == ("run-fp8", "run-nvfp4")
    assert report.problems == ()
    assert report.swapped
    # 3 runs × 2 tasks × 100 documents, the prompts shared; 3 × 2 points, each with 3 requests; 2 × 3 uses
    runs, samples, prompts, points, requests, telemetry, tasks, starts, verdicts, task_verdicts, table = (
        counts(place.warehouse)
    )
    assert (runs, samples, prompts, points, requests) == (3, 600, 200, 6, 18)
    assert (telemetry, tasks, starts, verdicts, task_verdicts) == (3, 6, 3, 6, 8)
    assert table == 3 * 2 * 2 * 3, "runs × operating points × offers (on-demand, spot) × uses"
    assert leftovers(place) == []
    assert not place.warehouse.with_name("warehouse.duckdb.wal").exists()
    before, inode = place.warehouse.read_bytes(), place.warehouse.stat().st_ino
    report = load_bundles(place.warehouse, place.bundles)
    assert (report.loaded, report.present, report.judged, report.swapped) == ((), 3, (), False)
    assert (place.warehouse.read_bytes(), place.warehouse.stat().st_ino) == (before, inode)


def test_bundle_by_bundle_gives_what_all_at_once_gives(place: Any, three: Any, tmp_path: Path) -> None:
    once = tmp_path / "once.duckdb"
    for number, spec in enumerate(reversed(three), start=1):  # candidates before their baseline
        place.write(spec)
        report = load_bundles(place.warehouse, place.bundles)
        assert (report.loaded, report.present) == ((spec.run_id,), number - 1)
    assert report.judged == ("run-fp8", "run-nvfp4"), "they waited for their baseline"
    load_bundles(once, place.bundles)
    for sql in ("FROM validated_table_at('2026-06-01')", "FROM quality_delta ORDER BY ALL"):
        assert render(query(place.warehouse, sql), "csv") == render(query(once, sql), "csv")


def test_a_candidate_without_its_baseline_is_not_comparable(place: Any, three: Any) -> None:
    place.write(three[1])
    load_bundles(place.warehouse, place.bundles)
    rows = query(place.warehouse, "SELECT DISTINCT verdict, reason FROM verdicts").to_pylist()
    assert rows == [
        {"verdict": "NOT_COMPARABLE", "reason": "the baseline's run run-bf16 was not judged against"}
    ]


def test_an_empty_place_makes_an_empty_warehouse(place: Any) -> None:
    report = load_bundles(place.warehouse, place.bundles)
    assert (report.loaded, report.problems) == ((), ())
    assert query(place.warehouse, "FROM validated_table").num_rows == 0
    assert query(place.warehouse, "SELECT count(*) AS n FROM prices").to_pylist() == [{"n": 8}]


def test_unfinished_folders_are_not_bundles(place: Any, three: Any) -> None:
    place.write(three[0])
    (place.bundles / "run-unfinished").mkdir()
    (place.bundles / ".run-hidden").mkdir()
    (place.bundles / ".run-hidden" / "manifest.json").write_text("{}")
    (place.bundles / "notes.txt").write_text("not a bundle")
    report = load_bundles(place.warehouse, place.bundles)
    assert (report.loaded, report.problems) == (("run-bf16",), ())


def test_bundles_may_lie_behind_a_url(place: Any, three: Any) -> None:
    place.write(three[0])
    assert load_bundles(place.warehouse, f"file://{place.bundles}").loaded == ("run-bf16",)
    with pytest.raises(ConfigError, match="QUANTGATE_BUNDLES"):
        load_bundles(place.warehouse, "nosuchscheme://bucket/bundles")


def _flip_a_byte(folder: Path) -> None:
    path = folder / "samples.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(folder: Path) -> None:
    path = folder / "load_points.parquet"
    path.write_bytes(path.read_bytes()[:-200])


def _truncate_with_a_fitting_checksum(folder: Path) -> None:
    _truncate(folder)
    data = (folder / "load_points.parquet").read_bytes()
    _edit(
        folder,
        lambda m: m["files"]["load_points.parquet"].update(
            sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)
        ),
    )


def _edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def _swap_files(folder: Path) -> None:
    data = (folder / "prompts.parquet").read_bytes()
    (folder / "requests.parquet").write_bytes(data)
    _edit(folder, lambda m: m["files"].update({"requests.parquet": m["files"]["prompts.parquet"]}))


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "checksum": (_flip_a_byte, "samples.parquet doesn't match its checksum"),
    "truncated": (_truncate, "load_points.parquet has"),
    "not parquet": (_truncate_with_a_fitting_checksum, "load_points.parquet is not a whole Parquet file"),
    "file missing": (lambda f: (f / "requests.parquet").unlink(), "requests.parquet is missing"),
    "file unlisted": (
        lambda f: _edit(f, lambda m: m["files"].pop("telemetry.parquet")),
        "its manifest doesn't list telemetry.parquet",
    ),
    "other schema": (_swap_files, "requests.parquet has other columns than it should"),
    "rows": (
        lambda f: _edit(f, lambda m: m["files"]["samples.parquet"].update(rows=7)),
        "samples.parquet has 200 rows where the manifest says 7",
    ),
    "newer version": (
        lambda f: _edit(f, lambda m: m.update(schema_version=99)),
        "schema_version 99 is unknown",
    ),
    "no version": (lambda f: _edit(f, lambda m: m.pop("schema_version")), "schema_version None is unknown"),
    "unknown key": (lambda f: _edit(f, lambda m: m.update(verdit="x")), "unknown key 'verdit'"),
    "not json": (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is not JSON"),
    "other run": (lambda f: _edit(f, lambda m: m.update(run_id="run-x")), "its manifest is of run run-x"),
    "engine start": (
        lambda f: _edit(f, lambda m: m["engine_starts"][0].update(engine_start_id="start-9")),
        "names engine start start-1, which the manifest lacks",
    ),
}


@pytest.fixture(scope="module")
def damaged(module_place: Any, three: Any) -> tuple[Any, dict[str, str]]:
    """A sound bundle beside one of each damage, loaded; and the line that each of them got."""
    module_place.write(three[0])
    for damage, (spoil, _) in DAMAGES.items():
        module_place.write(replace(three[1], run_id=f"run {damage}"))
        spoil(module_place.bundles / f"run {damage}")
    report = load_bundles(module_place.warehouse, module_place.bundles)
    assert report.loaded == ("run-bf16",)
    return module_place, {line.split(":")[0].removeprefix("bundle run "): line for line in report.problems}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_bundle_is_one_clear_line(damaged: Any, damage: str) -> None:
    line = damaged[1][damage]
    assert DAMAGES[damage][1] in line
    assert "\n" not in line


def test_no_damaged_bundle_is_half_loaded(damaged: Any) -> None:
    place, lines = damaged
    assert len(lines) == len(DAMAGES)
    for table in ("runs", "samples", "load_points", "requests", "telemetry", "run_tasks", "engine_starts"):
        rows = query(place.warehouse, f"SELECT DISTINCT run_id FROM store.{table}").to_pylist()
        assert rows == [{"run_id": "run-bf16"}], table
    again = load_bundles(place.warehouse, place.bundles)
    assert (again.loaded, again.swapped, sorted(again.problems)) == ((), False, sorted(lines.values()))


def test_a_mended_bundle_is_loaded_and_judged(place: Any, three: Any) -> None:
    place.write(*three[:2])
    path = place.bundles / "run-fp8" / "requests.parquet"
    data = path.read_bytes()
    path.unlink()
    load_bundles(place.warehouse, place.bundles)
    path.write_bytes(data)
    report = load_bundles(place.warehouse, place.bundles)
    assert (report.loaded, report.judged, report.problems) == (("run-fp8",), ("run-fp8",), ())


def test_a_candidate_that_cannot_be_judged_is_said_and_nothing_is_swapped(
    place: Any, three: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write(*three[:2])
    (place.bundles / "run-bf16").rename(place.path / "kept")
    load_bundles(place.warehouse, place.bundles)
    (place.path / "kept").rename(place.bundles / "run-bf16")

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise ConfigError("no margin for family 'code'", where="policy toys")

    monkeypatch.setattr("warehouse.judge_runs.judge_evidence", refuse)
    line = "run run-fp8 could not be judged: policy toys: no margin for family 'code'"
    first, second = (load_bundles(place.warehouse, place.bundles) for _ in range(2))
    assert (first.loaded, first.judged, first.problems) == (("run-bf16",), (), (line,))
    assert (second.judged, second.problems, second.swapped) == ((), (line,), False)
    monkeypatch.undo()
    assert load_bundles(place.warehouse, place.bundles).judged == ("run-fp8",)


def test_a_loader_waits_for_the_other_and_then_says_so(place: Any, three: Any) -> None:
    place.write(three[0])
    with exclusive(place.warehouse), pytest.raises(RunError, match="another process has been writing it"):
        load_bundles(place.warehouse, place.bundles, wait_s=0)
    assert not place.warehouse.exists()
    reports = []
    threads = [
        threading.Thread(target=lambda: reports.append(load_bundles(place.warehouse, place.bundles)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(report.loaded) for report in reports) == [0, 0, 1]


def test_a_foreign_write_ahead_log_stops_the_load(place: Any, three: Any) -> None:
    place.write(three[0])
    load_bundles(place.warehouse, place.bundles)
    place.write(three[1])
    place.warehouse.with_name("warehouse.duckdb.wal").write_bytes(b"x")
    with pytest.raises(RunError, match="another program opened it for writing"):
        load_bundles(place.warehouse, place.bundles)
    assert leftovers(place) == []


def test_a_file_that_is_no_warehouse_is_named(place: Any) -> None:
    place.warehouse.write_bytes(b"not a database" * 1000)
    with pytest.raises(RunError, match="Move it away and run `quantgate load`"):
        load_bundles(place.warehouse, place.bundles)


_READER = """
import sys
from pathlib import Path
from warehouse.query import query, read_only
sql = "SELECT (SELECT count(*) FROM runs) AS runs, (SELECT count(*) FROM samples) AS samples"
with read_only(Path(sys.argv[1])) as connection:
    print(connection.sql(sql).fetchall(), flush=True)
    sys.stdin.readline()
    print(connection.sql(sql).fetchall(), flush=True)
print(query(Path(sys.argv[1]), sql).to_pylist(), flush=True)
"""


def test_a_reader_in_another_process_goes_on_during_a_load(place: Any, three: Any) -> None:
    place.write(three[0])
    load_bundles(place.warehouse, place.bundles)
    with subprocess.Popen(
        [sys.executable, "-c", _READER, str(place.warehouse)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdin is not None
        assert reader.stdout.readline() == "[(1, 200)]\n"
        place.write(*three[1:])
        assert load_bundles(place.warehouse, place.bundles).swapped
        reader.stdin.write("go on\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "[(1, 200)]\n", "an open reader keeps its state"
        assert reader.stdout.readline() == "[{'runs': 3, 'samples': 600}]\n", "a new one sees the new state"


_STOPPED_LOADER = """
import sys, time
from pathlib import Path
import warehouse.load as load
where, original = sys.argv[3], getattr(load, sys.argv[3])
def stop(*arguments):
    result = original(*arguments)
    print("stopped", flush=True)
    time.sleep(60)
    return result
setattr(load, where, stop)
load.load_bundles(Path(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.parametrize("where", ["_insert", "_judge_all"])
def test_a_killed_load_leaves_the_old_state_and_the_next_completes(
    place: Any, three: Any, where: str
) -> None:
    place.write(three[0])
    load_bundles(place.warehouse, place.bundles)
    before = place.warehouse.read_bytes()
    place.write(*three[1:])
    with subprocess.Popen(
        [sys.executable, "-c", _STOPPED_LOADER, str(place.warehouse), str(place.bundles), where],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as loader:
        assert loader.stdout is not None
        assert loader.stdout.readline() == "stopped\n"
        assert query(place.warehouse, "SELECT count(*) AS n FROM runs").to_pylist() == [{"n": 1}]
        os.kill(loader.pid, signal.SIGKILL)
    assert place.warehouse.read_bytes() == before
    assert leftovers(place) != []
    (place.path / ".warehouse.duckdb.next-1-dead.tmp").mkdir()  # where DuckDB spills
    report = load_bundles(place.warehouse, place.bundles)
    assert report.loaded == ("run-fp8", "run-nvfp4")
    assert leftovers(place) == []
    assert counts(place.warehouse)[:4] == [3, 600, 200, 6]
