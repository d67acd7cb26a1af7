"""Stored candidates get the verdicts of the judge that takes one pair at a time, whatever becomes of a bundle."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from quantgate.bundles.manifest import Manifest
from quantgate.bundles.schema import SAMPLES
from quantgate.bundles.store import BundleStore, Columns
from quantgate.judge.judge import judge_runs
from quantgate.judge.pair_counts import COLUMNS, REPETITIVE
from quantgate.model.enums import TestKind, Verdict
from quantgate.model.errors import RunError
from warehouse.judge_runs import judge_stored


def rewrite(folder: Path, change: Any) -> None:
    """Change a bundle's samples, and its manifest so that it is whole again."""
    buffer = io.BytesIO()
    table = change(pq.read_table(folder / "samples.parquet"))
    pq.write_table(table, buffer)
    data = buffer.getvalue()
    (folder / "samples.parquet").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["samples.parquet"] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "rows": table.num_rows,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def with_scores(table: pa.Table, scores: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index("score"), "score", scores)


def partial_credit(table: pa.Table) -> pa.Table:
    """Nine tenths where it was right."""
    return with_scores(table, pc.multiply(table["score"], 0.9))


def backwards(table: pa.Table) -> pa.Table:
    return table.take(list(range(table.num_rows))[::-1])


@pytest.fixture
def pairs(place: Any, three: Any) -> list[tuple[str, str]]:
    """Candidates of two baselines: sound, worse, in another order, of partial credit, cut short, of another engine."""
    baseline, fp8, nvfp4 = three
    second = replace(baseline, run_id="run-second", checkpoint="second", wrong={"cloze": [1, 2, 3]})
    candidates = [
        fp8,
        nvfp4,
        *(replace(nvfp4, run_id=f"run-{name}") for name in ("backwards", "partial", "short")),
        replace(fp8, run_id="run-other-engine", engine_version="9"),
        *(replace(run, run_id=f"{run.run_id}-of-second", baseline=second) for run in (fp8, nvfp4)),
    ]
    place.write(baseline, second, *candidates)
    for name, change in (
        ("backwards", backwards),
        ("partial", partial_credit),
        ("short", lambda t: t.slice(0, 150)),
    ):
        rewrite(place.bundles / f"run-{name}", change)
    return [(spec.run_id, spec.baseline.run_id) for spec in candidates]


def one_by_one(store: BundleStore, pairs: list[tuple[str, str]]) -> list[Any]:
    def whole(run_id: str) -> tuple[Manifest, pa.Table]:
        manifest = store.read_manifest(run_id)
        return manifest, store.read_table(manifest, "samples.parquet")

    return [judge_runs(*whole(baseline), *whole(candidate)) for candidate, baseline in pairs]


@pytest.mark.parametrize("batch_rows", [1, 500, 10**6])
def test_verdicts_are_those_of_the_judge_that_takes_one_pair(
    place: Any, pairs: list[tuple[str, str]], batch_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warehouse.judge_runs._BATCH_ROWS", batch_rows)
    store = BundleStore(place.bundles)
    judged = list(judge_stored(store, pairs))
    assert [(found.run_id, found.baseline_run_id) for found in judged] == pairs
    assert [found.verdicts for found in judged] == one_by_one(store, pairs), "to the last bit"
    assert all(found.error is None and found.manifest.run_id == found.run_id for found in judged)
    by_run = {found.run_id: found.verdicts[0] for found in judged}
    assert by_run["run-fp8"].verdict is Verdict.VALIDATED
    assert by_run["run-backwards"] == by_run["run-nvfp4"]
    assert {task.test for task in by_run["run-partial"].tasks} == {TestKind.BETTING}
    assert "50 documents without a pair" in by_run["run-short"].reason
    assert by_run["run-other-engine"].verdict is Verdict.NOT_COMPARABLE


def test_a_baseline_is_read_once_for_its_candidates(
    place: Any, pairs: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = BundleStore.read_columns

    def noted(store: BundleStore, manifest: Manifest, *arguments: Any, **options: Any) -> Columns:
        read.append(manifest.run_id)
        return real(store, manifest, *arguments, **options)

    monkeypatch.setattr(BundleStore, "read_columns", noted)
    assert len(list(judge_stored(BundleStore(place.bundles), pairs))) == len(pairs)
    assert sorted(read) == sorted({run_id for pair in pairs for run_id in pair})


def test_a_bundle_that_is_gone_or_damaged_costs_only_its_own_candidates(
    place: Any, pairs: list[tuple[str, str]]
) -> None:
    (place.bundles / "run-second" / "manifest.json").unlink()
    path = place.bundles / "run-nvfp4" / "samples.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    judged = {found.run_id: found for found in judge_stored(BundleStore(place.bundles), pairs)}
    failed = {run_id: str(found.error) for run_id, found in judged.items() if found.error}
    assert failed.keys() == {"run-nvfp4", "run-fp8-of-second", "run-nvfp4-of-second"}
    assert "bundle run-nvfp4: samples.parquet doesn't match its checksum" in failed["run-nvfp4"]
    assert "bundle run-second: manifest.json is missing" in failed["run-fp8-of-second"]
    assert all(len(found.verdicts) == 3 for run_id, found in judged.items() if run_id not in failed)


def test_a_policy_that_cannot_judge_a_run_is_an_error_of_that_run(place: Any, three: Any) -> None:
    place.write(*three)

    def without_math(manifest: Manifest) -> Manifest:
        families = {f: rule for f, rule in manifest.policy.families.items() if f != "math"}
        return manifest.model_copy(
            update={"policy": manifest.policy.model_copy(update={"families": families})}
        )

    judged = list(
        judge_stored(
            BundleStore(place.bundles), [("run-fp8", "run-bf16"), ("run-nvfp4", "run-bf16")], without_math
        )
    )
    assert ["no margin for family 'math'" in str(found.error) for found in judged] == [True, True]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop_columns(["answer"]), "samples.parquet has other columns than it should (answer)"),
        (
            lambda t: t.select([*t.schema.names[::-1]]),
            "samples.parquet has other columns than it should (their order)",
        ),
        (lambda t: with_scores(t, pc.cast(t["score"], pa.int8())), "samples.parquet has column score as"),
        (
            lambda t: with_scores(t, pa.nulls(t.num_rows, pa.float64())),
            "samples.parquet has rows without score",
        ),
    ],
)
def test_columns_are_read_as_critically_as_the_whole(place: Any, three: Any, change: Any, said: str) -> None:
    place.write(three[0])
    loose = pa.schema([field.with_nullable(True) for field in SAMPLES])
    rewrite(place.bundles / "run-bf16", lambda table: change(table.cast(loose)))
    store = BundleStore(place.bundles)
    manifest = store.read_manifest("run-bf16")
    with pytest.raises(RunError) as whole:
        store.read_table(manifest, "samples.parquet")
    with pytest.raises(RunError) as columns:
        store.read_columns(manifest, "samples.parquet", COLUMNS, REPETITIVE)
    assert str(columns.value) == str(whole.value)
    assert said in str(whole.value)


def test_columns_of_the_first_layout_are_read_and_what_it_lacks_is_null(place: Any, three: Any) -> None:
    place.write(three[0])
    folder = place.bundles / "run-bf16"
    rewrite(folder, lambda table: table.drop_columns(["position"]))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 1}))
    store = BundleStore(place.bundles)
    read = store.read_columns(store.read_manifest("run-bf16"), "samples.parquet", COLUMNS, REPETITIVE).table
    whole = store.read_table(store.read_manifest("run-bf16"), "samples.parquet")
    assert read.schema.names == list(COLUMNS)
    assert read.cast(pa.schema([SAMPLES.field(name) for name in COLUMNS])) == whole.select(COLUMNS)
    assert read["position"].null_count == read.num_rows == 200


@pytest.mark.parametrize("column", COLUMNS)
def test_only_what_is_stored_as_in_the_baseline_is_taken_from_it(place: Any, three: Any, column: str) -> None:
    """The first row of one column is another: that column is decoded, and every other one is the baseline's own."""
    place.write(*three[:2])

    other = {"doc_repeat": 7, "score": 0.5, "position": 1}.get(column, "x")

    def with_another(table: pa.Table) -> pa.Table:
        values = pa.array([other, *table[column].to_pylist()[1:]], SAMPLES.field(column).type)
        return table.set_column(table.schema.get_field_index(column), SAMPLES.field(column), values)

    rewrite(place.bundles / "run-bf16", lambda table: table)
    rewrite(place.bundles / "run-fp8", with_another)
    store = BundleStore(place.bundles)
    read = (store.read_manifest("run-bf16"), "samples.parquet", COLUMNS, REPETITIVE)
    there = store.read_columns(*read)
    here = store.read_columns(store.read_manifest("run-fp8"), *read[1:], like=there)
    alone = store.read_columns(store.read_manifest("run-fp8"), *read[1:])
    assert here.table.equals(alone.table)
    assert [name for name in COLUMNS if here.stored[name] != there.stored[name]] == [column]
    assert not here.table[column].equals(there.table[column])
    shared = [name for name in COLUMNS if _address(here.table[name]) == _address(there.table[name])]
    assert shared == [name for name in COLUMNS if name != column]


def _address(column: pa.ChunkedArray) -> list[int | None]:
    """Where its values lie in memory."""
    return [
        buffer.address if buffer is not None else None
        for chunk in column.chunks
        for buffer in (chunk.indices if pa.types.is_dictionary(chunk.type) else chunk).buffers()
    ]
