"""Batches of a quality task: each finished one is kept, and together they become the task's part of the run."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from quantgate.bundles.manifest import TaskResult
from quantgate.bundles.schema import PROMPTS, PROMPTS_FILE, SAMPLES, SAMPLES_FILE, TEXT_COLUMNS
from quantgate.bundles.staging import REMOVE, RESULT, Staging, named_run, write_json
from quantgate.bundles.store import Answers
from quantgate.model.disk import writing_to
from quantgate.model.errors import RunError
from quantgate.model.records import RunPlan
from quantgate.model.yaml_file import load_json

_BATCHES = ".batches"
_CONTINUES = "continues.json"


def batch_dir(staging: Staging, task: str, start: int) -> Path:
    """Return where the batch lies that begins at a position of the task's order."""
    return batches_dir(staging) / task / _name(start)


def _name(start: int) -> str:
    return f"{start:09d}"


def batches_dir(staging: Staging) -> Path:
    """Return where the batches of all unfinished tasks lie, beside the finished tasks."""
    return staging.quality_dir / _BATCHES


def begun(staging: Staging) -> bool:
    """Return True if any document was asked, or inherited."""
    return staging.quality_dir.is_dir() and any(staging.quality_dir.iterdir())


def continues(staging: Staging) -> str | None:
    """Return the run whose answers this one began with; None where it began with none, or they were discarded."""
    return named_run(batches_dir(staging) / _CONTINUES)


def again_wanted(plan: RunPlan, result: TaskResult) -> int:
    """Return how many second answers (A/A) a baseline's run is to have of a task, whoever gave some of them.

    Args:
        plan: a baseline's.
        result: what was answered of the task so far.
    """
    available = result.documents_available or result.documents
    limit = available if plan.suite.limit is None else plan.suite.limit
    return min(plan.policy.aa_documents, available, limit)


def inherit_run(staging: Staging, plan: RunPlan, earlier: Answers) -> None:
    """Begin a run with the answers of the one that it continues, as the first batch of each task.

    All of it is there, or nothing if a kill comes between. The engine's starts are those that gave the answers: the
    next one that differs from them discards these as it does any part. Second answers (A/A) are a finished part where
    they suffice for this run, and otherwise the first batch of one.

    Args:
        staging: of a run that has not begun.
        plan: its plan.
        earlier: the answers of the run that is continued.
    """
    inherited = staging.path / ".inherited"
    shutil.rmtree(inherited, ignore_errors=True)
    for result in earlier.manifest.tasks:
        answered = _of(result.task, earlier.samples, earlier.prompts)
        write_part(inherited / "quality" / result.task / _name(0), result, *answered)
        again, asked_again = _of(result.task, earlier.controls, earlier.prompts)
        if again.num_rows:
            part = result.model_copy(update={"documents": again.num_rows, "looks": ()})
            whole = again.num_rows >= again_wanted(plan, result)
            folder = Path(result.task) if whole else Path(_BATCHES, result.task, _name(0))
            write_part(inherited / "control" / folder, part, again, asked_again)
    write_json(inherited / "quality" / _CONTINUES, {"run_id": earlier.manifest.run_id})
    for start in earlier.manifest.engine_starts:
        staging.add_start(start)
    shutil.rmtree(staging.controls.quality_dir, ignore_errors=True)
    if (inherited / "control").exists():
        (inherited / "control").rename(staging.controls.quality_dir)
    staging.quality_dir.mkdir(exist_ok=True)
    (inherited / "quality").rename(batches_dir(staging))
    shutil.rmtree(inherited)


def _of(task: str, samples: pa.Table, prompts: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return a task's samples, and their prompts."""
    own = samples.filter(pc.equal(samples["task"], task))
    return own, prompts.filter(pc.is_in(prompts["prompt_hash"], own["prompt_hash"].unique()))


def finished(staging: Staging, task: str) -> list[TaskResult]:
    """Read the results of the task's finished batches, in the order they were asked."""
    return [load_json(folder / RESULT, TaskResult, REMOVE) for folder in _folders(staging, task)]


def answered(staging: Staging, task: str) -> tuple[int, int | None]:
    """Return how many documents of a task are answered, in batches too, and how many it has, None if unknown."""
    result = staging.task_result(task)
    parts = [result] if result else finished(staging, task)
    available = parts[-1].documents_available if parts else None
    return sum(part.documents for part in parts), available


def _folders(staging: Staging, task: str) -> list[Path]:
    """List the folders of finished batches; hidden ones are in progress."""
    return sorted((batches_dir(staging) / task).glob("[!.]*"))


def samples_so_far(staging: Staging, task: str) -> pa.Table:
    """Read the samples of the finished batches as the judge needs them, without texts."""
    columns = [name for name in SAMPLES.names if name not in TEXT_COLUMNS]
    return pa.concat_tables(
        pq.read_table(folder / SAMPLES_FILE, schema=SAMPLES, columns=columns)
        for folder in _folders(staging, task)
    )


def together(batches: Sequence[TaskResult], samples: pa.Table, *, judged: bool) -> TaskResult:
    """Return the task's result after some batches.

    Args:
        batches: in the order they were asked, one at least; the first may be what an earlier run answered, with
            its interim looks.
        samples: of them all.
        judged: whether there was an interim look after each of them.

    Raises:
        RunError: no score is a number.
    """
    looks, documents = list(batches[0].looks), 0
    for batch in batches:
        documents += batch.documents
        if documents not in looks:
            looks.append(documents)
    return batches[-1].model_copy(
        update={
            "documents": documents,
            "mean_score": mean_score(samples.column("score").to_pylist(), batches[-1].task),
            "duration_s": math.fsum(batch.duration_s for batch in batches),
            "truncated_prompts": sum(batch.truncated_prompts for batch in batches),
            "looks": tuple(looks) if judged else (),
        }
    )


def mean_score(scores: Sequence[float], where: str = "") -> float:
    """Return the mean of the scores that are numbers.

    Args:
        scores: of a task's documents.
        where: the task, for a message.

    Raises:
        RunError: none is.
    """
    numbers = [score for score in scores if not math.isnan(score)]
    if not numbers:
        raise RunError("no document has a score", where=where, hint="See its log.")
    return math.fsum(numbers) / len(numbers)


def join(staging: Staging, task: str, *, judged: bool) -> TaskResult:
    """Make the finished batches the task's finished part, which appears whole.

    Args:
        staging: the run in progress.
        task: its name; it has one batch at least.
        judged: whether there was an interim look after each batch.
    """
    folders, out_dir = _folders(staging, task), staging.task_dir(task)
    samples = pa.concat_tables(pq.read_table(folder / SAMPLES_FILE, schema=SAMPLES) for folder in folders)
    prompts = pa.concat_tables(pq.read_table(folder / PROMPTS_FILE, schema=PROMPTS) for folder in folders)
    result = together(finished(staging, task), samples, judged=judged)
    shutil.rmtree(out_dir, ignore_errors=True)
    write_part(out_dir, result, samples, prompts)
    shutil.rmtree(batches_dir(staging) / task, ignore_errors=True)
    return result


def write_part(folder: Path, result: TaskResult, samples: pa.Table, prompts: pa.Table) -> None:
    """Write a part's folder so that it appears whole with its files, or not at all.

    Raises:
        RunError: the disk is full, or takes nothing more for another reason.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with writing_to(folder):
            partial.mkdir(parents=True)
            pq.write_table(samples, partial / SAMPLES_FILE)
            pq.write_table(prompts, partial / PROMPTS_FILE)
            (partial / RESULT).write_text(result.model_dump_json(indent=1), encoding="utf-8")
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
