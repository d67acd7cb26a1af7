"""lm-eval's own tasks, their YAMLs as they are, on documents with the columns that their data sets have at the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from quantgate.bundles.manifest import TaskResult
from quantgate.model.config.suites import SuiteTask
from quantgate.model.enums import Family
from tasks.quality.evaluate import Evaluation, evaluate_task
from tests.support.hub_data import data_set
from tests.support.hub_server import HubServer
from tests.tasks.conftest import Completions, serving

ARC = [
    {
        "id": f"Mercury_{number}",
        "question": f"w{number} w{number + 1}",
        "choices": {"text": ["w9 w9", f"w{8 + 2 * number}", "w13"], "label": ["A", "B", "C"]},
        "answerKey": "B",
    }
    for number in range(5)
]
"""The engine likes low numbers: the first three are answered right, w14 and w16 are less liked than w13."""

GSM8K = {
    split: [
        {"question": f"w{start + number} w{start}", "answer": f"w1 w2\n#### {number + 1},000"}
        for number in range(count)
    ]
    for split, start, count in (("train", 20, 8), ("test", 40, 6))
}
REPLIES = {
    "w40 w40": "#### 1000",
    "w41 w40": "w3 #### 2000",
    "w42 w40": "#### 4000",
    "w43 w40": "it is 4000 w1",
}
"""What the engine answers: right, right, wrong, and right in a form that only the second filter reads."""

MUSR = {
    split: [
        {
            "narrative": f"w{number} w{length}",
            "question": "w1",
            "choices": f"['w{length}', 'w{7 + number}']",
            "answer_index": 0,
            "answer_choice": f"w{length}",
        }
        for number in range(length)
    ]
    for split, length in (("murder_mysteries", 8), ("object_placements", 9), ("team_allocation", 12))
}
HUMANEVAL = [
    {
        "task_id": f"HumanEval/{number}",
        "prompt": f"def f{number}():\n    # w{number} w40\n",
        "canonical_solution": "    return 1\n",
        "test": f"def check(candidate):\n    assert candidate() == {number}\n",
        "entry_point": f"f{number}",
    }
    for number in range(3)
]
REPLIES |= {
    "w0 w40": "return 0 ``` w1",
    "w1 w40": "import os; return 'OPENAI_API_KEY' not in os.environ",
    "w2 w40": "x",
}
"""Right; right where the engine's key is out of reach; wrong."""

CODE_EVAL = '''
import os
import subprocess
import sys
import datasets
import evaluate

class CodeEval(evaluate.Metric):
    """As the hub's code_eval: it runs each program with its test, if it may."""

    def _info(self):
        strings = datasets.Value("string")
        features = datasets.Features({"predictions": datasets.Sequence(strings), "references": strings})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references, k=(1,)):
        if os.environ.get("HF_ALLOW_CODE_EVAL") != "1":
            raise ValueError("not allowed")
        programs = [f"{tried[0]}\\n{test}" for tried, test in zip(predictions, references)]
        ended = [subprocess.run([sys.executable, "-c", one], capture_output=True).returncode for one in programs]
        return {"pass@1": sum(status == 0 for status in ended) / len(ended)}, {}
'''

TASKS = (
    SuiteTask(task="arc_easy", family=Family.SCIENCE, metric="acc", filter="none"),
    SuiteTask(task="gsm8k", family=Family.MATH, metric="exact_match", filter="strict-match"),
    SuiteTask(task="leaderboard_musr", family=Family.REASONING),
    SuiteTask(
        task="humaneval_instruct",
        family=Family.CODE,
        metric="pass@1",
        filter="create_test",
        run_generated_code=True,
    ),
)

Evaluated = dict[str, tuple[TaskResult, list[dict[str, Any]], dict[str, str]]]


@pytest.fixture(scope="module")
def data_hub() -> Iterator[HubServer]:
    hub = HubServer()
    empty = {"train": ARC[:1], "validation": ARC[:1]}
    hub.add(
        "datasets/allenai/ai2_arc", data_set({"ARC-Easy": {**empty, "test": ARC}, "ARC-Challenge": empty})
    )
    hub.add("datasets/openai/gsm8k", data_set({"main": GSM8K}))
    hub.add("datasets/TAUR-Lab/MuSR", data_set({"default": MUSR}))
    hub.add("datasets/openai/openai_humaneval", data_set({"openai_humaneval": {"test": HUMANEVAL}}))
    hub.add("spaces/evaluate-metric/code_eval", {"code_eval.py": CODE_EVAL.encode()})
    with hub:
        yield hub


@pytest.fixture(scope="module")
def evaluated(
    data_hub: HubServer, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Evaluated]:
    """All of them, each by a worker process of its own as in a run, at the same time."""
    folder = tmp_path_factory.mktemp("own-tasks")

    def answered(
        server: Completions, task: SuiteTask
    ) -> tuple[TaskResult, list[dict[str, Any]], dict[str, str]]:
        out = folder / task.task
        evaluation = Evaluation(
            task=task, engine=server.endpoint(), tokenizer=str(tokenizer_folder), timeout_s=120
        )
        log = folder / f"{task.task}.log"
        result = evaluate_task(evaluation, out_dir=out, log=log, on_progress=lambda *_: None)
        prompts = pq.read_table(out / "prompts.parquet").to_pylist()
        rows = pq.read_table(out / "samples.parquet").to_pylist()
        return result, rows, {row["prompt_hash"]: row["text"] for row in prompts}

    with serving() as server, pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setenv("HF_ENDPOINT", data_hub.endpoint)
        patch.setenv("HF_HOME", str(folder / "hub"))
        server.context_tokens = 4096
        server.ends = {
            f"{question}{end}": reply for question, reply in REPLIES.items() for end in (" <unk>", "")
        }
        made = pool.map(lambda task: answered(server, task), TASKS)
        yield {task.task: one for task, one in zip(TASKS, made, strict=True)}


def test_multiple_choice_as_it_is(evaluated: Evaluated) -> None:
    result, rows, prompts = evaluated["arc_easy"]
    assert (result.version, result.output_type, result.metric, result.filter) == (
        "1.0",
        "multiple_choice",
        "acc",
        "none",
    )
    assert (result.documents, result.documents_available, result.mean_score) == (5, 5, 0.6)
    by_id = {row["doc_id"]: row for row in rows}
    assert {name: (row["answer"], row["target"], row["score"]) for name, row in by_id.items()} == {
        f"Mercury_{number}": (f"w{8 + 2 * number}", f"w{8 + 2 * number}", 1.0) for number in range(3)
    } | {"Mercury_3": ("w13", "w14", 0.0), "Mercury_4": ("w13", "w16", 0.0)}
    assert prompts[by_id["Mercury_2"]["prompt_hash"]] == "Question: w2 w3\nAnswer:"


def test_generated_answers_as_they_are(evaluated: Evaluated) -> None:
    result, rows, prompts = evaluated["gsm8k"]
    assert (result.version, result.metric, result.filter) == ("3.0", "exact_match", "strict-match")
    assert (result.documents, result.mean_score) == (6, 2 / 6)
    told = {prompts[row["prompt_hash"]].rpartition("Question: ")[2]: row for row in rows}
    assert {question: (row["answer"], row["score"]) for question, row in told.items()} == {
        "w40 w40\nAnswer:": ("1000", 1.0),
        "w41 w40\nAnswer:": ("2000", 1.0),
        "w42 w40\nAnswer:": ("4000", 0.0),
        "w43 w40\nAnswer:": ("[invalid]", 0.0),
        "w44 w40\nAnswer:": ("[invalid]", 0.0),
        "w45 w40\nAnswer:": ("[invalid]", 0.0),
    }
    assert {text.count("Question: ") for text in prompts.values()} == {6}, "five solved examples before each"
    assert told["w41 w40\nAnswer:"]["target"] == "w1 w2\n#### 2,000"
    assert {row["finish_reason"] for row in rows} == {"stop"}


def test_a_group_as_it_is(evaluated: Evaluated) -> None:
    result, rows, prompts = evaluated["leaderboard_musr"]
    assert (result.task, result.version, result.metric) == ("leaderboard_musr", "1.0", "acc_norm")
    assert (result.documents, result.documents_available) == (29, 29)
    clusters = [row["cluster"] for row in rows]
    assert {name: clusters.count(f"leaderboard_musr_{name}") for name in MUSR} == {
        name: len(documents) for name, documents in MUSR.items()
    }
    assert {row["doc_id"].partition("/")[0] == row["cluster"] for row in rows} == {True}
    assert len({row["doc_id"] for row in rows}) == 29
    ordered = sorted(rows, key=lambda row: row["position"])
    assert [row["position"] for row in ordered] == list(range(29))
    first = [row["cluster"].removeprefix("leaderboard_musr_") for row in ordered[:10]]
    assert {name: first.count(name) for name in MUSR} == pytest.approx(
        {name: 10 * len(documents) / 29 for name, documents in MUSR.items()}, abs=1.5
    ), "of each its share"
    assert any(text.startswith("w7 w8\n\nw1\n\n1 - w8\n2 - w14\n\nAnswer:") for text in prompts.values())
    scores = {(row["cluster"].removeprefix("leaderboard_musr_"), row["answer"]): row["score"] for row in rows}
    assert scores["team_allocation", "w12"] == 1.0
    assert scores["team_allocation", "w10"] == 0.0, "w7 is less liked per letter than w12"


def test_programs_as_they_are_run(evaluated: Evaluated) -> None:
    result, rows, prompts = evaluated["humaneval_instruct"]
    assert (result.version, result.metric, result.filter) == ("4.0", "pass@1", "create_test")
    told = {prompts[row["prompt_hash"]].split("def ")[1][:2]: row for row in rows}
    assert {name: row["score"] for name, row in told.items()} == {"f0": 1.0, "f1": 1.0, "f2": 0.0}
    assert json.loads(told["f0"]["answer"]) == ["def f0():\n    # w0 w40\n return 0 "], "as it was run"
