from __future__ import annotations

import json
import math
import pickle
from typing import Any

import pyarrow as pa
import pytest

from quantgate.bundles.batches import mean_score
from quantgate.bundles.schema import PROMPTS, SAMPLES
from quantgate.model.config.suites import SuiteTask
from quantgate.model.enums import Family
from quantgate.model.errors import RunError
from tasks.quality.content.document import content_of
from tasks.quality.documents import Placed, keys_of
from tasks.quality.rows import Generation, prompt_rows, sample_rows

TASK = SuiteTask(task="colours", family=Family.KNOWLEDGE)


def sample(number: int = 0, **changes: Any) -> dict[str, Any]:
    base = {
        "doc_id": number,
        "doc": {"prompt": "sky?"},
        "target": "blue",
        "arguments": [("sky?", {"until": []})],
        "resps": [["blue\n"]],
        "filtered_resps": ["blue"],
        "filter": "trimmed",
        "metrics": ["exact_match"],
        "doc_hash": "d" * 64,
        "prompt_hash": "p" * 64,
        "target_hash": "t" * 64,
        "exact_match": 1.0,
    }
    return base | changes


def rows(*samples: dict[str, Any], **changes: Any) -> list[dict[str, Any]]:
    arguments: dict[str, Any] = {"metric": "exact_match", "choices_of": None, "generations": {}}
    contents = [content_of(one["doc"], None) for one in samples]
    keys = keys_of([one["doc"] for one in samples], contents)
    documents = {one["doc_id"]: Placed(key, 7) for one, key in zip(samples, keys, strict=True)}
    made = sample_rows(samples, TASK, documents, engine_start_id="start", **(arguments | changes))
    assert pa.Table.from_pylist(made, schema=SAMPLES).num_rows == len(samples)
    return made


def test_a_generated_answer() -> None:
    made = Generation("blue\n", output_tokens=3, finish_reason="stop")
    document = {"id": "sky", "prompt": "sky?", "subject": "light"}
    (row,) = rows(sample(doc=document), generations={0: [made]})
    assert row == {
        "task": "colours",
        "family": "knowledge",
        "filter": "trimmed",
        "metric": "exact_match",
        "doc_id": "sky",
        "doc_repeat": 0,
        "doc_hash": "d" * 64,
        "prompt_hash": "p" * 64,
        "target": "blue",
        "target_hash": "t" * 64,
        "responses": '[["blue\\n"]]',
        "answer": "blue",
        "score": 1.0,
        "output_tokens": 3,
        "finish_reason": "stop",
        "cluster": "light",
        "engine_start_id": "start",
        "position": 7,
    }


def test_of_several_generations_one_cut_off_is_told() -> None:
    made = [
        Generation("a", output_tokens=3, finish_reason="stop"),
        Generation("b", output_tokens=8, finish_reason="length"),
    ]
    (row,) = rows(sample(), generations={0: made})
    assert (row["output_tokens"], row["finish_reason"]) == (11, "length")


@pytest.mark.parametrize(
    ("metric", "answer"), [("acc", "no"), ("acc_norm", "certainly"), ("acc_bytes", "çççççç")]
)
def test_the_chosen_option_is_the_one_the_metric_takes(metric: str, answer: str) -> None:
    choices = [" no", " certainly", " çççççç"]
    logprobs = [(-1.2, False), (-1.4, False), (-1.5, True)]
    (row,) = rows(
        sample(
            target=1,
            resps=[[pair] for pair in logprobs],
            filtered_resps=logprobs,
            **{metric: 0.0, "metrics": [metric]},
        ),
        metric=metric,
        choices_of=lambda _: choices,
    )
    assert row["answer"] == answer
    assert row["target"] == "certainly"
    assert json.loads(row["responses"]) == [[[-1.2, False]], [[-1.4, False]], [[-1.5, True]]]
    assert (row["output_tokens"], row["finish_reason"]) == (None, None)


def test_scores_of_every_kind() -> None:
    made = rows(sample(exact_match=True), sample(exact_match=None), sample(exact_match=0))
    assert made[0]["score"] == 1.0
    assert math.isnan(made[1]["score"])
    assert mean_score([row["score"] for row in made]) == 0.5
    with pytest.raises(RunError, match="no document has a score"):
        mean_score([row["score"] for row in made[1:2]])
    with pytest.raises(RunError, match="metric 'exact_match' is no number per document"):
        rows(sample(exact_match=(1, [0.2, 0.8])))
    with pytest.raises(RunError, match=r"lm-eval gave no metric 'acc'\. Choose one of: exact_match"):
        rows(sample(), metric="acc")


def test_each_prompt_once() -> None:
    made = prompt_rows([sample(0), sample(1), sample(2, prompt_hash="q", arguments=[("sea?", {})])])
    assert made == [{"prompt_hash": "p" * 64, "text": "sky?"}, {"prompt_hash": "q", "text": "sea?"}]
    assert pa.Table.from_pylist(made, schema=PROMPTS).num_rows == 2


def test_a_generation_is_a_string() -> None:
    made = Generation("blue", output_tokens=2, finish_reason=None)
    assert made == "blue"
    assert type(str(made)) is str
    assert pickle.dumps(str(made))
