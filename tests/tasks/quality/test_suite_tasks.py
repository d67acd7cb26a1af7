"""The tasks of configs/suites/tasks as lm-eval runs them, on documents with the hub's columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from quantgate.model.home import ROOT

TASKS = ROOT / "configs" / "suites" / "tasks"
DOCUMENTS: dict[str, dict[str, Any]] = {
    "gsm8k_boxed": {
        "question": "How many are 1,000 and 8?",
        "answer": "That is <<1000+8=1008>>1008.\n#### 1,008",
    },
    "math500_boxed": {
        "problem": "What is a half of $3$?",
        "answer": "\\frac{3}{2}",
        "solution": "",
        "level": 1,
    },
    "arc_challenge_boxed": {
        "question": "Which is a metal?",
        "choices": {"text": ["wood", "iron"], "label": ["A", "B"]},
        "answerKey": "B",
    },
}


def score(name: str, response: str, folder: Path) -> tuple[str, float]:
    """The prompt of the task's document, and the score of a response to it."""
    file = folder / "documents.jsonl"
    file.write_text(json.dumps(DOCUMENTS[name]) + "\n")
    config = load_yaml(TASKS / f"{name}.yaml") | {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(file)}},
    }
    task = TaskManager(include_defaults=False).load([config])["tasks"][config["task"]]
    task.build_all_requests(limit=None, rank=0, world_size=1)
    (instance,) = task.instances
    instance.resps = [response]
    task.apply_filters()
    result = task.process_results(instance.doc, [instance.filtered_resps["boxed"]])
    assert instance.args[1]["max_gen_toks"] == 16384
    return instance.args[0], float(result["exact_match"])


@pytest.mark.parametrize(
    ("name", "response", "expected"),
    [
        ("gsm8k_boxed", "<think>Is it \\boxed{7}? No.</think> It is \\boxed{1008}.", 1),
        ("gsm8k_boxed", "It is \\boxed{\\$1,008}", 1),
        ("gsm8k_boxed", "It is \\boxed{1009}, since 1008 + 1 = 1009", 0),
        ("gsm8k_boxed", "It is 1008.", 0),
        ("math500_boxed", "So $\\boxed{ \\dfrac{3}{2} }$", 1),
        ("math500_boxed", "So \\boxed{\\frac{2}{3}}", 0),
        ("math500_boxed", "So \\boxed{\\frac{3}{2}", 0),
        ("arc_challenge_boxed", "Iron is. \\boxed{B}", 1),
        ("arc_challenge_boxed", "Wood is. \\boxed{A}", 0),
    ],
)
def test_the_last_boxed_answer_counts(name: str, response: str, expected: float, tmp_path: Path) -> None:
    prompt, found = score(name, response, tmp_path)
    assert found == expected
    assert prompt.endswith("within \\boxed{}.")
    assert next(iter(DOCUMENTS[name].values())) in prompt


def test_a_choice_is_shown_with_its_label(tmp_path: Path) -> None:
    prompt, _ = score("arc_challenge_boxed", "", tmp_path)
    assert prompt.startswith("Which is a metal?\nA. wood\nB. iron\n")
