"""What can't be loaded is left out with one line, and stops nothing else; what can't be is never priced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantgate.bundles.schema import LOAD_POINTS, SAMPLES
from quantgate.bundles.store import DECLARED, BundleStore
from quantgate.model.errors import RunError
from tests.support.written_runs import FP8
from warehouse import load
from warehouse.load import load_bundles
from warehouse.query import query

Spoil = Callable[[Path], object]


def edit(change: Callable[[dict[str, Any]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return spoil


def columns(file: str, schema: pa.Schema, **values: object) -> Spoil:
    """Give every row of a file of the bundle these values, with a checksum that fits."""

    def spoil(folder: Path) -> None:
        table = pq.read_table(folder / file)
        for name, value in values.items():
            kind = schema.field(name).type
            column = (
                pa.array([value] * table.num_rows, pa.binary()).cast(kind, safe=False)
                if isinstance(value, bytes)
                else pa.array([value] * table.num_rows).cast(kind)
            )
            table = table.set_column(table.schema.get_field_index(name), schema.field(name), column)
        pq.write_table(table, folder / file)
        data = (folder / file).read_bytes()
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        edit(lambda manifest: manifest["files"][file].update(entry))(folder)

    return spoil


def points(**values: object) -> Spoil:
    return columns("load_points.parquet", LOAD_POINTS, **values)


LEFT_OUT: dict[str, tuple[Spoil, str]] = {
    "wide count": (edit(lambda m: m["hardware"].update(gpu_count=3 * 10**9)), "the warehouse refuses it ("),
    "wide size": (edit(lambda m: m["checkpoint"].update(size_bytes=10**30)), "the warehouse refuses it ("),
    "wide order": (
        edit(lambda m: m.update(declared_order=2**63 - 1)),
        "key 'declared_order': input should be less",
    ),
    "sum of documents": (
        edit(lambda m: [task.update(documents=2**63 - 1) for task in m["tasks"]]),
        "the warehouse refuses it (ConversionException",
    ),
    "sum of tokens": (
        points(isl_tokens=2**31 - 1, osl_tokens=2**31 - 1),
        "the warehouse refuses it (OutOfRangeException: Out of Range Error: Overflow in addition of INT32",
    ),
    "half a character": (
        edit(lambda m: m["inputs"]["serving"].update(x="\ud800")),
        "manifest.json is not JSON",
    ),
    "other structure": (
        edit(lambda m: m["inputs"]["serving"].update(arguments=[1])),
        "the warehouse refuses",
    ),
    "deep": (lambda folder: (folder / "manifest.json").write_text("[" * 100_000), ""),
    "no text": (
        columns("samples.parquet", SAMPLES, answer=b"\xff\xfe"),
        "samples.parquet holds a value that is none of its column's type (",
    ),
    "far time": (
        points(measured_at=2**62),
        "load_points.parquet holds times in measured_at that no calendar has",
    ),
    "start twice": (
        edit(lambda m: m.update(engine_starts=m["engine_starts"] * 2)),
        "manifest.json lists an engine start twice",
    ),
    "early time": (
        points(measured_at=-(2**56)),
        "load_points.parquet holds times in measured_at that no calendar has",
    ),
    "late start": (
        edit(lambda m: m.update(started_at="9999-12-31T23:59:59-23:59")),
        "key 'started_at': no calendar has this time",
    ),
    "last year": (edit(lambda m: m.update(measured_at="9999-01-01T00:00:00Z")), "no calendar has this time"),
    "no number": (edit(lambda m: m["policy"].update(alpha=float("nan"))), "key 'policy.alpha'"),
}
IMPOSSIBLE: dict[str, tuple[Spoil, str]] = {
    "no concurrency": (points(concurrency=0), "impossible_concurrency"),
    "negative concurrency": (points(concurrency=-1), "impossible_concurrency"),
    "nan speed": (points(output_tok_s=float("nan")), "impossible_speed"),
    "infinite speed": (points(total_tok_s=float("inf")), "impossible_speed"),
    "negative speed": (points(output_tok_s=-5.0), "impossible_speed"),
    "vanishing speed": (points(output_tok_s=1e-320), "impossible_speed"),
    "negative duration": (points(duration_s=-1.0), "impossible_duration"),
    "vanishing duration": (points(duration_s=5e-324), "impossible_duration"),
    "no duration": (points(duration_s=-0.0), "impossible_duration"),
    "endless duration": (points(duration_s=1e308), "impossible_duration"),
    "all tokens": (points(output_tokens=2**63 - 1), "impossible_tokens"),
    "all cached": (points(prefix_cache_hit_tokens=2**63 - 1), "impossible_tokens"),
    "more answers than requests": (points(completed=2**31 - 1), "impossible_requests"),
    "more failures than requests": (points(failed=2**31 - 1), "impossible_requests"),
    "endless latency": (points(e2el_mean_ms=1e308), "impossible_latency"),
    "negative tokens": (points(output_tokens=-1), "impossible_tokens"),
    "negative requests": (points(failed=-1), "impossible_requests"),
    "negative latency": (points(ttft_p99_ms=-1.0), "impossible_latency"),
    "unknown validity": (points(validity="fine"), "unknown_validity"),
    "negative size": (edit(lambda m: m["checkpoint"].update(size_bytes=-1)), "impossible_size"),
    "negative documents": (edit(lambda m: m["tasks"][0].update(documents=-1)), "impossible_size"),
    "infinite score": (edit(lambda m: m["tasks"][0].update(mean_score=float("inf"))), "impossible_score"),
    "endless start": (
        edit(lambda m: m["engine_starts"][0].update(start_duration_s=float("nan"))),
        "impossible_duration",
    ),
    "negative cache": (edit(lambda m: m["engine_starts"][0].update(kv_cache_tokens=-1)), "impossible_tokens"),
}


@pytest.fixture(scope="module")
def odd(module_place: Any, three: Any) -> tuple[Any, Any]:
    """Sound bundles among odd ones, loaded together; and the report."""
    module_place.write(*three)
    for name, (spoil, _) in (LEFT_OUT | IMPOSSIBLE).items():
        module_place.write(replace(FP8, run_id=f"run {name}", checkpoint=f"toy {name}"))
        spoil(module_place.bundles / f"run {name}")
    return module_place, load_bundles(module_place.warehouse, module_place.bundles)


def test_an_odd_bundle_stops_only_itself(odd: Any) -> None:
    place, report = odd
    sound = {"run-bf16", "run-fp8", "run-nvfp4", *(f"run {name}" for name in IMPOSSIBLE)}
    assert set(report.loaded) == sound
    assert {"run-fp8", "run-nvfp4"} <= set(report.judged)
    assert len(report.problems) == len(LEFT_OUT)
    kept = query(place.warehouse, "FROM store.left_out ORDER BY ALL").column("line").to_pylist()
    assert kept == sorted(report.problems)
    again = load_bundles(place.warehouse, place.bundles)
    assert (again.loaded, again.swapped, again.problems) == ((), False, report.problems)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_is_one_line(odd: Any, name: str) -> None:
    (line,) = (line for line in odd[1].problems if line.startswith(f"bundle run {name}: "))
    assert LEFT_OUT[name][1] in line
    assert "\n" not in line
    for table in ("runs", "samples", "load_points", "engine_starts", "run_tasks", "telemetry"):
        rows = query(odd[0].warehouse, f"FROM store.{table} WHERE run_id = 'run {name}'")
        assert rows.num_rows == 0


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_is_quarantined_and_has_no_cost(odd: Any, name: str) -> None:
    sql = f"""
        SELECT DISTINCT validity, validity_reasons, usd_per_mtok_output, usd_per_mtok_total, output_tok_s,
            speedup_vs_baseline, null_reasons['usd_per_mtok_output'] AS why
        FROM validated_table WHERE run_id = 'run {name}'
    """
    (row,) = query(odd[0].warehouse, sql).to_pylist()
    assert row.pop("validity_reasons") == [IMPOSSIBLE[name][1]]
    assert (row.pop("validity"), row.pop("why")) == ("quarantined", "quarantined")
    assert set(row.values()) == {None}


def test_a_latency_that_is_no_number_is_missing(place: Any, three: Any) -> None:
    place.write(three[0])
    points(itl_p50_ms=float("nan"))(place.bundles / "run-bf16")
    load_bundles(place.warehouse, place.bundles)
    rows = query(place.warehouse, "SELECT DISTINCT validity, itl_p50_ms, itl_p99_ms FROM throughput_points")
    assert rows.to_pylist() == [{"validity": "valid", "itl_p50_ms": None, "itl_p99_ms": 10.0}]


def test_a_line_has_one_full_stop_between_what_is_wrong_and_the_hint(odd: Any) -> None:
    assert not [line for line in odd[1].problems if ".." in line]


def test_every_code_of_what_cannot_be_is_known_to_the_table(odd: Any) -> None:
    codes = query(odd[0].warehouse, "SELECT DISTINCT unnest(validity_reasons) AS code FROM throughput_points")
    assert set(codes.column("code").to_pylist()) == {code for _, code in IMPOSSIBLE.values()}


def test_a_warehouse_that_refuses_itself_is_one_line(
    place: Any, three: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write(*three)

    def refuse(_connection: Any) -> None:
        raise duckdb.ConversionException("too wide")

    monkeypatch.setattr(load, "refresh_materialized", refuse)
    with pytest.raises(
        RunError, match=r"its next state can't be made \(ConversionException: too wide\). Move it"
    ):
        load_bundles(place.warehouse, place.bundles)
    assert not place.warehouse.exists()


def test_a_damaged_declaration_stops_only_itself(place: Any, begun: None, three: Any) -> None:
    place.write(three[0])
    folder = place.bundles / DECLARED
    (folder / "000000001-run-1-abcdefgh.json").mkdir(parents=True)
    (folder / "000000002-run-2-abcdefgh.json").write_bytes(b"\xff")
    (folder / "000000003-run-3-abcdefgh.json").write_text("{}")
    (folder / "000000004-run-4-abcdefgh.json").write_text("[" * 10_000)
    (folder / "000000005-run-5-abcdefgh.json").symlink_to("/proc/version")
    (folder / "\u00b2\u00b2\u00b2\u00b2\u00b2\u00b2\u00b2\u00b2\u00b2-run").write_text("")
    report = load_bundles(place.warehouse, place.bundles)
    assert report.loaded == ("run-bf16",)
    assert [line.partition(": ")[0] for line in report.problems] == [
        f"{DECLARED}/00000000{number}-run-{number}-abcdefgh.json" for number in (1, 2, 3, 4, 5)
    ]
    assert not [line for line in report.problems if "Linux" in line], "no line quotes another file"
    assert BundleStore(place.bundles).latest_order() == 5
    again = load_bundles(place.warehouse, place.bundles)
    assert (again.swapped, again.problems) == (False, report.problems)


def test_a_damaged_imported_file_stops_only_itself(place: Any, begun: None, three: Any) -> None:
    place.write(three[0])
    prices, evidence = place.path / "prices", place.path / "evidence"
    prices.mkdir()
    evidence.mkdir()
    offer = (
        '{"provider": "acme", "gpu": "GPU", "price_kind": "on_demand", "usd_per_hour": 1.5, '
        '"valid_from": "2026-06-01", "source": "list", "gpu_count": COUNT}'
    )
    head = "# Imported.\nprices:\n- "
    (prices / "a.yaml").write_bytes(b"\xff")
    (prices / "b.yaml").mkdir()
    (prices / "c.yaml").write_text(head + offer.replace("GPU", "h100").replace("COUNT", "3000000000"))
    (prices / "d.yaml").write_text(head + offer.replace("GPU", "gone").replace("COUNT", "1"))
    (prices / "e.yaml").write_text(head + offer.replace("GPU", "h100").replace("COUNT", "1"))
    (evidence / "a.csv").write_bytes(b"\xff")
    (evidence / "b.csv").write_text("round,entry\n1\n")
    (evidence / "c.csv").mkdir()
    report = load_bundles(place.warehouse, place.bundles)
    assert report.loaded == ("run-bf16",)
    names = [line.partition(".")[0].rpartition("/")[2] for line in report.problems]
    assert names == ["a", "b", "c", "d", "a", "b", "c"]
    offers = query(place.warehouse, "SELECT origin FROM prices WHERE provider = 'acme'").to_pylist()
    assert offers == [{"origin": "prices/e.yaml"}]
    assert sorted(path.name[0] for path in [*prices.iterdir(), *evidence.iterdir()]) == sorted("abcdeabc")
    again = load_bundles(place.warehouse, place.bundles)
    assert (again.swapped, again.problems) == (False, report.problems)


SHORT: dict[str, tuple[Spoil, str]] = {
    "a quarter of the tokens": (points(output_tokens=16 * 64 * 3 // 4), "fewer_output_tokens"),
    "short prompts": (points(input_tokens=16 * 128 * 98 // 100), "fewer_input_tokens"),
    "half of the requests": (
        points(completed=8, input_tokens=8 * 128, output_tokens=8 * 64),
        "fewer_requests",
    ),
    "another duration": (points(duration_s=1e6), "duration_mismatch"),
}


def test_levels_that_fell_short_are_quarantined_in_earlier_bundles_too(place: Any, three: Any) -> None:
    place.write(*three)
    for name, (spoil, _) in SHORT.items():
        place.write(replace(FP8, run_id=f"run {name}", checkpoint=f"toy {name}"))
        spoil(place.bundles / f"run {name}")
    assert load_bundles(place.warehouse, place.bundles).problems == ()
    sql = "SELECT run_id, validity, validity_reasons, output_tok_s FROM throughput_points"
    levels = query(place.warehouse, sql).to_pylist()
    assert {level["validity"] for level in levels if level["run_id"] in {"run-bf16", "run-fp8"}} == {"valid"}
    for name, (_, code) in SHORT.items():
        spoilt = [level for level in levels if level["run_id"] == f"run {name}"]
        assert len(spoilt) == 2
        assert {level["validity"] for level in spoilt} == {"quarantined"}
        assert all(code in level["validity_reasons"] for level in spoilt), name
        assert all(level["output_tok_s"] for level in spoilt), "shown and marked"
