"""Which documents lm-eval asks, in batches and all at once: the same prompts, ids and places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantgate.bundles.manifest import TaskResult
from quantgate.model.config.suites import SuiteTask
from tasks.quality.evaluate import Evaluation
from tasks.quality.worker import Progress, run
from tests.tasks.quality.test_worker import alone, spec, with_task

__all__ = ["alone", "spec"]

LINES = [
    {"id": "a", "prompt": "w1", "answer": "w11"},
    {"prompt": "w2", "answer": "w12"},
    {"prompt": "w3", "answer": "w13"},
    {"prompt": "w2", "answer": "w12"},
    {"id": "e", "prompt": "w5", "answer": "w15", "subject": "odd"},
    {"prompt": "w2", "answer": "w12"},
    {"id": "g", "prompt": "w7", "answer": "w17", "subject": "odd"},
]


def asked(
    spec: Evaluation, folder: Path, start: int, end: int | None, key: str
) -> tuple[list[dict[str, Any]], TaskResult]:
    out = folder / f"out-{start}-{end}"
    run(
        spec.model_copy(update={"start": start, "end": end}),
        out,
        Progress(folder / "progress.json"),
        key,
    )
    result = TaskResult.model_validate_json((out / "result.json").read_text())
    prompts = {row["prompt_hash"]: row["text"] for row in pq.read_table(out / "prompts.parquet").to_pylist()}
    rows = pq.read_table(out / "samples.parquet").to_pylist()
    return [row | {"prompt": prompts[row["prompt_hash"]]} for row in rows], result


def by_position(*batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted((row for batch in batches for row in batch), key=lambda row: row["position"])


def test_batches_together_are_the_whole(
    spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str
) -> None:
    """Every answer lies with its own document, though lm-eval counts from 0 in each batch; no prompt is asked twice."""
    completions.replies = {f"w{i}": f"w{10 + i}" + " w1" * (i % 3) for i in range(8)}
    spec = with_task(spec, tmp_path, LINES)
    whole, result = asked(spec, tmp_path, 0, None, engine_key)
    assert (result.documents, result.documents_available, result.copies) == (5, 5, 2)
    completions.prompts.clear()
    batches = [asked(spec, tmp_path, *ends, engine_key) for ends in ((0, 1), (1, 3), (3, 5))]
    assert [(one.documents, one.documents_available) for _, one in batches] == [(1, 5), (2, 5), (2, 5)]
    assert {one.content_sha256 for _, one in batches} == {result.content_sha256}
    assert by_position(*(rows for rows, _ in batches)) == by_position(whole)
    assert [row["position"] for row in by_position(whole)] == list(range(5))
    assert sorted(completions.prompts) == [[6], [7], [8], [10], [12]]
    told = {(row["prompt"], row["doc_repeat"], row["output_tokens"], row["cluster"]) for row in whole}
    assert told == {
        ("w1", 0, 3, None),
        ("w2", 0, 4, None),
        ("w3", 0, 2, None),
        ("w5", 0, 4, "odd"),
        ("w7", 0, 3, "odd"),
    }


FEWSHOT = """task: shots
dataset_path: json
dataset_kwargs: {data_files: {test: test.jsonl, train: train.jsonl}}
test_split: test
fewshot_split: SPLIT
num_fewshot: 2
doc_to_text: prompt
doc_to_target: answer
output_type: generate_until
generation_kwargs: {until: ["\\n"], max_gen_toks: 4}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_prompts_examples_do_not_depend_on_what_else_is_asked(
    spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str, split: str
) -> None:
    (tmp_path / "shots.yaml").write_text(FEWSHOT.replace("SPLIT", split))
    for name, begin in (("test", 0), ("train", 20)):
        lines = [json.dumps({"prompt": f"w{begin + i}", "answer": f"w{begin + i + 1}"}) for i in range(9)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    completions.context_tokens = 512
    task = SuiteTask(task="shots", path=str(tmp_path))
    spec = spec.model_copy(update={"task": task})
    whole, _ = asked(spec, tmp_path, 0, None, engine_key)
    first, _ = asked(spec, tmp_path, 0, 4, engine_key)
    last, _ = asked(spec, tmp_path, 4, 9, engine_key)
    assert by_position(first, last) == by_position(whole)
    assert all(row["doc_id"] == row["doc_hash"] for row in whole), "they have no id of their own"
    examples = {row["prompt"].rsplit("\n\n", 1)[0] for row in whole}
    assert len(examples) > 3, "they are drawn anew for each document"


SHUFFLED = """import random
def docs(data):
    def shuffle(document):
        choices = list(document["choices"])
        random.shuffle(choices)
        return {"choices": choices, "gold": choices.index(document["answer"])}
    return data.map(shuffle)
"""


def test_a_task_that_shuffles_choices_as_it_loads_asks_the_same_in_every_process(
    spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As lm-eval's gpqa does; each time its data set is prepared anew."""
    (tmp_path / "shuffled.py").write_text(SHUFFLED)
    (tmp_path / "shuffled.yaml").write_text(
        "task: shuffled\ndataset_path: json\ndataset_kwargs: {data_files: {test: shuffled.jsonl}}\n"
        "test_split: test\nprocess_docs: !function shuffled.docs\noutput_type: multiple_choice\n"
        "doc_to_text: prompt\ndoc_to_choice: choices\ndoc_to_target: gold\n"
    )
    lines = [
        {"prompt": f"w{i}", "choices": ["w1", "w2", "w3", "w4", "w5", "w6"], "answer": f"w{1 + i % 6}"}
        for i in range(12)
    ]
    (tmp_path / "shuffled.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    spec = spec.model_copy(update={"task": SuiteTask(task="shuffled", path=str(tmp_path))})
    found = []
    for time in range(2):
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / f"datasets-{time}")
        rows, _ = asked(spec, tmp_path, 0, 6 if time else None, engine_key)
        found.append(by_position(rows))
    assert found[1] == found[0][:6]
    table = pa.Table.from_pylist(found[0])
    assert len(set(table["target_hash"].to_pylist())) > 1, "they are shuffled"
    # The engine likes low numbers, so it takes w1 of whatever is shown: what is logged is what was asked.
    assert set(table["answer"].to_pylist()) == {"w1"}
