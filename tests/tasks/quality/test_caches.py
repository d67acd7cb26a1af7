"""A cache that a user shares between runs can't give one checkpoint another's answers.

lm-eval's caches know nothing of the model that answered. The worker is the real one, in a process of its own as in a
run, with every cache variable that a user may have set; each of the two servers answers as a checkpoint of its own.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from quantgate.model.enums import Family
from tasks.quality.evaluate import Evaluation, evaluate_task
from tasks.quality.sources import suite_from
from tests.tasks.conftest import Completions, serving

DOCUMENTS = [{"id": n, "prompt": f"w{n} w1", "answer": "w5"} for n in range(6)]
CACHES = ("LM_HARNESS_CACHE_PATH", "HF_DATASETS_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HF_EVALUATE_CACHE")


def answered(place: Path, server: Completions, tokenizer: Path, task: Any) -> list[dict[str, Any]]:
    evaluation = Evaluation(
        task=task, engine=server.endpoint(place.name), tokenizer=str(tokenizer), timeout_s=120
    )
    evaluate_task(evaluation, out_dir=place, log=place.with_suffix(".log"), on_progress=lambda *_: None)
    rows: list[dict[str, Any]] = pq.read_table(place / "samples.parquet").sort_by("doc_id").to_pylist()
    return rows


def test_the_second_checkpoints_answers_are_its_own(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared-cache"
    for name in CACHES:
        monkeypatch.setenv(name, str(shared / name.lower()))
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in DOCUMENTS))
    (task,) = suite_from([str(file)], family=Family.MATH, limit=None, out_dir=tmp_path / "made").tasks
    with serving() as first, serving() as second:
        first.replies = {line["prompt"]: "w5" for line in DOCUMENTS}
        second.replies = {line["prompt"]: "w6" for line in DOCUMENTS}
        one = answered(tmp_path / "one", first, tokenizer_folder, task)
        two = answered(tmp_path / "two", second, tokenizer_folder, task)
        assert len(first.prompts) == len(second.prompts) == len(DOCUMENTS), "each is asked everything itself"
    assert [row["answer"] for row in one] == ["w5"] * len(DOCUMENTS)
    assert [row["answer"] for row in two] == ["w6"] * len(DOCUMENTS)
    assert [row["score"] for row in one + two] == [1.0] * 6 + [0.0] * 6
    assert [row["prompt_hash"] for row in one] == [row["prompt_hash"] for row in two], (
        "what a cache would key by"
    )
    kept = [Path(folder) / name for folder, _, names in os.walk(shared) for name in names]
    assert not [path for path in kept if b"w6" in path.read_bytes() or b"w5" in path.read_bytes()]
