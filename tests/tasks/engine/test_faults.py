"""An engine that crashes, is killed for its memory or hangs in the middle of a measurement has the last word.

The stub engine (tests/stub_engine) speaks vLLM's protocol; lm-eval's worker and the bench's driver are the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quantgate.model.config.suites import SuiteTask
from quantgate.model.config.workloads import Workload
from quantgate.model.enums import Family
from quantgate.model.errors import RunError
from quantgate.model.home import ROOT, Home
from tasks.checkpoint.resolve import resolve
from tasks.engine import server
from tasks.engine.environment import load_engine, prepare
from tasks.progress import Reporter
from tasks.quality.evaluate import Evaluation, evaluate_task
from tasks.throughput import bench
from tests.stub_engine.make import make
from tests.support.command import nothing_left

CHECKPOINT = ROOT / "demo" / "checkpoints" / "quantgate-demo-BF16"
TASK = SuiteTask(
    task="qg_demo_cloze", path="demo/tasks", family=Family.CONVERSATION, metric="acc", filter="none"
)
CRASHED = "the engine ended with status 1; its last words: RuntimeError: stub: illegal memory access"
CORE_DIED = "vllm.v1.engine.exceptions.EngineDeadError: the stub's core has died"
KILLED = "the engine was ended by SIGKILL (out of memory?)"
TOOK = "its last words: INFO Using AttentionBackendEnum.STUB_ATTN backend. | INFO stub ready | INFO the stub takes"
READY = "the engine: its last words: INFO Using AttentionBackendEnum.STUB_ATTN backend. | INFO stub ready"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "engine.log"


@contextmanager
def served(
    folder: Path, log: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[server.RunningEngine]:
    monkeypatch.setenv("QUANTGATE_ENGINES_FILE", str(make(folder, fault=fault)))
    name, config = load_engine(None, "cpu")
    report = Reporter(lambda _: None)
    environment = prepare(name, config, Home.current(), report)
    with server.serve(resolve(str(CHECKPOINT)), environment, {}, log=log, report=report) as running:
        yield running


def evaluate(running: server.RunningEngine, folder: Path, timeout_s: float = 60) -> None:
    evaluate_task(
        Evaluation(
            task=TASK, engine=running.endpoint, end=40, tokenizer=str(CHECKPOINT), timeout_s=timeout_s
        ),
        out_dir=folder / "quality" / "task",
        log=folder / "lm-eval.log",
        on_progress=lambda *_: None,
    )


def load(running: server.RunningEngine, folder: Path, level_timeout_s: float = 60) -> None:
    workload = Workload(
        name="w",
        isl_tokens=8,
        osl_tokens=8,
        concurrency=(1, 4),
        min_prompts=8,
        level_timeout_s=level_timeout_s,
    )
    bench.measure_load(
        running,
        workload,
        tokenizer=str(CHECKPOINT),
        out_dir=folder / "load",
        log=folder / "bench.log",
        report=Reporter(lambda _: None),
        title="x",
    )


@pytest.mark.parametrize(
    ("fault", "told"), [("crash:40", CRASHED), ("core:40", CORE_DIED), ("oom:40", f"{KILLED}; {TOOK}")]
)
def test_an_engine_that_dies_in_a_task(
    home: Path, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    with served(tmp_path, log, fault, monkeypatch) as running, pytest.raises(RunError) as caught:
        evaluate(running, tmp_path)
    assert str(caught.value).startswith("engine stub: the engine ")
    assert told in str(caught.value)
    assert str(log) in str(caught.value)
    assert list((tmp_path / "quality").iterdir()) == []
    assert nothing_left(home) == []


@pytest.mark.parametrize(
    ("fault", "told"), [("crash:12", CRASHED), ("core:12", CORE_DIED), ("oom:12", f"{KILLED}; {TOOK}")]
)
def test_an_engine_that_dies_under_load_leaves_the_levels_before(
    home: Path, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch, fault: str, told: str
) -> None:
    """The first level has 9 requests, its warm-up included; the second is not finished, whatever the bench wrote."""
    with served(tmp_path, log, fault, monkeypatch) as running, pytest.raises(RunError) as caught:
        load(running, tmp_path)
    assert str(caught.value).startswith("engine stub: the engine ")
    assert told in str(caught.value)
    assert [p.name for p in (tmp_path / "load").glob("c*.json")] == ["c1.json"]
    assert json.loads((tmp_path / "load" / "c1.json").read_text())["result"]["failed"] == 0
    assert nothing_left(home) == []


def test_an_engine_that_never_answers_ends_the_task_within_its_time(
    home: Path, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(tmp_path, log, "hang:40", monkeypatch) as running, pytest.raises(RunError) as caught:
        evaluate(running, tmp_path, timeout_s=8)
    assert str(caught.value).startswith("lm-eval task qg_demo_cloze: did not end within 8 s; ")
    assert READY in str(caught.value)
    assert nothing_left(home) == []


@pytest.mark.parametrize("fault", ["hang:12", "stall:12"])
def test_an_engine_that_stops_emitting_tokens_ends_the_load_within_its_time(
    home: Path, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(bench, "STARTUP_ALLOWANCE_S", 1.0)
    with served(tmp_path, log, fault, monkeypatch) as running, pytest.raises(RunError) as caught:
        load(running, tmp_path, level_timeout_s=2)
    assert str(caught.value).startswith("x: did not end within ")
    assert READY in str(caught.value)
    assert [p.name for p in (tmp_path / "load").glob("c*.json")] == ["c1.json"]
    assert nothing_left(home) == []
