"""Measuring on the real engine: damaged checkpoints through `quantgate validate`, one engine asked again and again."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from demo.damage import SOURCE
from demo.task_files import task_yaml
from quantgate.bundles.manifest import Manifest
from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.enums import Family
from quantgate.model.home import ROOT, Home
from quantgate.model.yaml_file import load_yaml
from tasks.checkpoint.resolve import resolve
from tasks.engine import environment as engine_env
from tasks.engine import server
from tasks.engine.process import child_environment, run_tied
from tasks.engine.server import RunningEngine
from tasks.progress import Reporter
from tasks.quality.evaluate import Evaluation

STEMS = ("cloze", "arithmetic", "chain")
SUITE = load_yaml(ROOT / "configs" / "suites" / "demo.yaml", Suite)


def bundles(home: Path) -> dict[str, tuple[Manifest, pa.Table]]:
    """Manifest and samples of every run of a home, by the checkpoint's name."""
    found = {}
    for file in sorted(home.glob("bundles/*/manifest.json")):
        manifest = Manifest.model_validate_json(file.read_text(encoding="utf-8"))
        found[manifest.checkpoint.name] = (manifest, pq.read_table(file.with_name("samples.parquet")))
    return found


@contextmanager
def serving(home: Path) -> Iterator[RunningEngine]:
    """The demo's BF16 checkpoint on an engine of its own."""
    report = Reporter(print)
    name, config = engine_env.load_engine(None, "cpu")
    environment = engine_env.prepare(name, config, Home.current(), report)
    log = home / "logs" / f"engine-{len(list(home.glob('logs/engine-*')))}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with server.serve(resolve(str(SOURCE)), environment, {}, log=log, report=report) as running:
        yield running


def ask(
    running: RunningEngine,
    task: SuiteTask,
    out: Path,
    *,
    documents: int | None = None,
    num_concurrent: int = 8,
    batch_size: int = 32,
) -> pa.Table:
    """The samples of a task's first documents, as the pipeline's own worker takes them from a running engine."""
    out.parent.mkdir(parents=True, exist_ok=True)
    spec = Evaluation(
        task=task,
        end=documents,
        engine=running.endpoint,
        tokenizer=str(SOURCE),
        timeout_s=600,
        num_concurrent=num_concurrent,
        batch_size=batch_size,
    )
    written = out.with_suffix(".json")
    written.write_text(spec.model_dump_json(), encoding="utf-8")
    run_tied(
        [sys.executable, "-m", "tasks.quality.worker", str(written), str(out)],
        what=f"lm-eval task {task.task}",
        log=out.with_suffix(".log"),
        environment={
            **child_environment(),
            "OPENAI_API_KEY": running.endpoint.api_key,
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(out.with_suffix(".datasets")),
            "TQDM_MININTERVAL": "30",
        },
        timeout_s=3000,
        cwd=ROOT,
        poll=running.endpoint.check_alive,
        poll_s=0.2,
    )
    return pq.read_table(out / "samples.parquet")


def shuffled_tasks(folder: Path, seed: int) -> list[SuiteTask]:
    """The demo's tasks with their documents in another order in the file."""
    folder.mkdir(parents=True)
    for stem in STEMS:
        shutil.copy(ROOT / "demo" / "tasks" / f"{stem}.yaml", folder)
        lines = (
            (ROOT / "demo" / "tasks" / f"{stem}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        )
        random.Random(f"{seed} {stem}").shuffle(lines)
        (folder / f"{stem}.jsonl").write_text("".join(lines), encoding="utf-8")
    shutil.copy(ROOT / "demo" / "tasks" / "loader.py", folder)
    return [task.model_copy(update={"path": str(folder)}) for task in SUITE.tasks]


def sampled_task(folder: Path, runs: int, temperature: float) -> SuiteTask:
    """The demo's arithmetic with answers drawn at a temperature, every document as often as there are runs.

    lm-eval would send the same seed with every request: all documents would share their luck, and all runs. Without
    one the engine draws each answer from its own stream.
    """
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "demo" / "tasks" / "loader.py", folder)
    documents = (ROOT / "demo" / "tasks" / "arithmetic.jsonl").read_text(encoding="utf-8")
    (folder / "arithmetic.jsonl").write_text(documents * runs, encoding="utf-8")
    greedy = "do_sample: false\n  temperature: 0.0\n"
    drawn = f"do_sample: true\n  temperature: {temperature}\n  seed: null\n"
    plain, name = task_yaml("arithmetic"), "qg_sampled"
    assert plain.count(greedy) == 1
    text = plain.replace("qg_demo_arithmetic", name).replace(greedy, drawn)
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return SuiteTask(task=name, path=str(folder), family=Family.MATH, metric="exact_match", filter="answer")


def runs_of(samples: pa.Table) -> list[pa.Table]:
    """The n-th answers to all documents are the n-th run."""
    repeats = samples["doc_repeat"]
    return [samples.filter(pc.equal(repeats, run)) for run in range(pc.max(repeats).as_py() + 1)]


def recorded_to(name: str) -> Path | None:
    """Where a recording is to be written: `make test-damage OUT=folder` says so."""
    folder = os.environ.get("QUANTGATE_VERDICTS_OUT")
    return Path(folder) / f"{name}.parquet" if folder else None
