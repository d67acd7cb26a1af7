"""Bundles: whole or not there, immutable, found again by fingerprint."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantgate.bundles import seal
from quantgate.bundles.history import RunHistory
from quantgate.bundles.identity import run_fingerprint
from quantgate.bundles.manifest import SCHEMA_VERSION, FidelityResult
from quantgate.bundles.schema import BUNDLE_FILES, FIDELITY, PROMPTS, SAMPLES
from quantgate.bundles.staging import Staging, open_staging
from quantgate.bundles.store import BundleStore
from quantgate.model.config.policy import load_policy
from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.enums import Family
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.home import Home
from quantgate.model.records import Hardware, RunPlan
from tasks.fidelity.text import read_text
from tasks.throughput import bench
from tests.quantgate.bundles.test_staging import finish_task, inputs, start
from tests.support.tiny_checkpoints import bare_checkpoint
from tests.tasks.throughput.test_bench import WORKLOAD, finish

TASKS = ("a", "b")


def plan() -> RunPlan:
    return RunPlan(
        inputs=inputs(),
        checkpoint=bare_checkpoint(),
        baseline=None,
        hardware=Hardware(gpu="cpu", device_name="a CPU", sm_arch="x86_64-avx2"),
        suite=Suite(name="s", tasks=tuple(SuiteTask(task=t, family=Family.MATH) for t in TASKS)),
        workload=WORKLOAD.model_copy(update={"concurrency": (1,)}),
        policy_name="demo",
        policy=load_policy("demo"),
    )


def sample(task: str, number: int) -> dict[str, object]:
    texts = (
        "filter",
        "metric",
        "doc_hash",
        "target",
        "target_hash",
        "responses",
        "answer",
        "engine_start_id",
    )
    return {
        **dict.fromkeys(texts, "x"),
        "task": task,
        "family": "math",
        "doc_id": str(number),
        "doc_repeat": 0,
        "prompt_hash": f"shared{number}",
        "score": float(number % 2),
    }


def finish_fidelity(staging: Staging) -> None:
    """Two tokens of the default text."""
    suite = plan().suite
    assert suite is not None
    told = FidelityResult(
        text_id=read_text(suite).text_id, tokens=2, k=1, vocab_size=9, duration_s=1.0, engine_start_id="s1"
    )
    row = {
        "text_id": told.text_id,
        "token_id": 5,
        "logprob": -0.5,
        "top_token_ids": [5],
        "top_logprobs": [-0.5],
    }
    rows = [row | {"token_index": i, "k": 1, "vocab_size": 9, "engine_start_id": "s1"} for i in (1, 2)]
    staging.fidelity_dir.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, FIDELITY), staging.fidelity_dir / "fidelity.parquet")
    (staging.fidelity_dir / "result.json").write_text(told.model_dump_json())


def finished(home: Home) -> Staging:
    """Every part of the plan, as the steps leave them; both tasks ask the same four prompts."""
    staging = open_staging(home, plan().inputs, {"checkpoint": "x"})
    staging.add_start(start(1))
    for task in TASKS:
        finish_task(staging, task, "s1")
        rows = [sample(task, number) for number in range(4)]
        pq.write_table(pa.Table.from_pylist(rows, SAMPLES), staging.task_dir(task) / "samples.parquet")
        prompts = [{"prompt_hash": f"shared{number}", "text": f"prompt {number}"} for number in range(4)]
        pq.write_table(pa.Table.from_pylist(prompts, PROMPTS), staging.task_dir(task) / "prompts.parquet")
    finish_fidelity(staging)
    staging.load_dir.mkdir()
    finish(staging.load_dir, 1)
    staging.add_telemetry([{"at": datetime.now(UTC), "phase": "load", "engine_start_id": "s1"}])
    return staging


def load_of(staging: Staging) -> seal.LoadRows:
    workload = plan().workload
    assert workload is not None
    return bench.rows(workload, staging.load_dir)


def test_a_bundle_holds_every_part_with_its_checksum() -> None:
    home = Home.current()
    staging = finished(home)
    manifest = seal.seal(staging, home.bundles, plan(), load_of(staging))
    folder = Path(home.bundles) / manifest.run_id
    assert sorted(p.name for p in folder.iterdir()) == sorted([*BUNDLE_FILES, "manifest.json"])
    rows = {}
    for name, entry in manifest.files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == entry.sha256
        table = pq.read_table(folder / name)
        assert table.schema.equals(BUNDLE_FILES[name])
        assert table.num_rows == entry.rows
        rows[name] = entry.rows
    assert rows == {
        "samples.parquet": 8,
        "prompts.parquet": 4,
        "load_points.parquet": 1,
        "requests.parquet": 32,
        "telemetry.parquet": 1,
        "control_samples.parquet": 0,
        "fidelity.parquet": 2,
    }
    assert manifest.fidelity is not None
    assert (manifest.fidelity.tokens, manifest.fidelity.skipped) == (2, "")
    assert RunHistory.read(BundleStore(home.bundles)).of(run_fingerprint(plan().inputs)) == (manifest,)
    assert RunHistory.read(BundleStore(home.bundles)).of("another") == ()
    assert not staging.path.exists()
    assert json.loads((folder / "manifest.json").read_text())["schema_version"] == SCHEMA_VERSION


def test_a_run_without_load_or_quality_has_empty_files() -> None:
    home = Home.current()
    bare = plan().model_copy(update={"suite": None, "workload": None})
    manifest = seal.seal(open_staging(home, bare.inputs, {"checkpoint": "x"}), home.bundles, bare)
    assert {entry.rows for entry in manifest.files.values()} == {0}


def test_a_kill_between_writing_and_renaming_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home.current()
    staging = finished(home)
    original = Path.rename

    def killed(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        seal.seal(staging, home.bundles, plan())
    monkeypatch.setattr(Path, "rename", original)
    assert BundleStore(home.bundles).manifests() == []
    assert [p.name[0] for p in Path(home.bundles).iterdir()] == ["."]
    again = open_staging(home, plan().inputs, {"checkpoint": "x"})
    manifest = seal.seal(again, home.bundles, plan())
    assert [m.run_id for m in BundleStore(home.bundles).manifests()] == [manifest.run_id]
    assert [p.name for p in Path(home.bundles).iterdir()] == [manifest.run_id]


def test_an_object_store_gets_the_manifest_last(monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home.current()
    place = "memory://bundles"
    manifest = seal.seal(finished(home), place, plan())
    assert [m.run_id for m in BundleStore(place).manifests()] == [manifest.run_id]
    filesystem, root = fsspec.core.url_to_fs(place)
    filesystem.rm(f"{root}/{manifest.run_id}/manifest.json")
    assert BundleStore(place).manifests() == []
    filesystem.rm(root, recursive=True)


def test_a_store_without_its_package_is_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"nosuch://x: can't be opened \(.*\)\. Set QUANTGATE_BUNDLES to a folder"
    ):
        BundleStore("nosuch://x").manifests()


def test_a_store_that_refuses_leaves_the_finished_parts() -> None:
    home = Home.current()
    staging = finished(home)
    Path(home.bundles).parent.mkdir(parents=True, exist_ok=True)
    Path(home.bundles).write_text("a file where the folder should be")
    with pytest.raises(RunError, match=r"bundles can't be written there .* what was measured is kept"):
        seal.seal(staging, home.bundles, plan())
    assert staging.task_result("a") is not None
    Path(home.bundles).unlink()
    assert seal.seal(staging, home.bundles, plan()).run_id == staging.run_id


def test_the_last_of_a_fingerprint_is_found() -> None:
    home = Home.current()
    first = seal.seal(finished(home), home.bundles, plan())
    newer = Path(home.bundles) / f"30{first.run_id[2:]}"
    shutil.copytree(Path(home.bundles) / first.run_id, newer)
    text = (newer / "manifest.json").read_text().replace(first.run_id, newer.name)
    (newer / "manifest.json").write_text(text)
    runs = RunHistory.read(BundleStore(home.bundles)).of(run_fingerprint(plan().inputs))
    assert [run.run_id for run in runs] == [first.run_id, newer.name]
