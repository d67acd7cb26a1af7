from __future__ import annotations

import gc
import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tenacity

from quantgate.bundles.manifest import TaskResult
from quantgate.model.config.suites import SuiteTask
from quantgate.model.enums import Family
from quantgate.model.errors import ConfigError, RunError
from tasks.quality import worker
from tasks.quality.evaluate import ChatTemplate, Evaluation
from tasks.quality.sources import suite_from
from tasks.quality.worker import Progress, run


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine_key: str) -> Iterator[None]:
    """No waiting between attempts; data sets are prepared below the test's own folder."""
    logger = logging.getLogger("asyncio")
    level = logger.level
    monkeypatch.setattr("lm_eval.models.api_models.wait_exponential", lambda **_: tenacity.wait_none())
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("datasets.config.HF_UPDATE_DOWNLOAD_COUNTS", False)
    monkeypatch.setenv("OPENAI_API_KEY", engine_key)
    yield
    gc.collect()  # failures that lm-eval left unread would be logged amid another test
    logger.setLevel(level)


@pytest.fixture
def spec(completions: Any, tokenizer_folder: Path) -> Evaluation:
    return Evaluation(
        task=SuiteTask(task="unset"),
        engine=completions.endpoint(),
        tokenizer=str(tokenizer_folder),
        timeout_s=20,
        num_concurrent=3,
        batch_size=2,
    )


def with_task(spec: Evaluation, folder: Path, lines: list[dict[str, Any]]) -> Evaluation:
    path = folder / "own.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    suite = suite_from([str(path)], family=Family.MATH, limit=None, out_dir=folder / "made")
    return spec.model_copy(update={"task": suite.tasks[0]})


GENERATED = [
    {"id": "a", "prompt": "w1 w2 w3", "answer": "w4", "subject": "odd"},
    {"id": "b", "prompt": "w1 w2", "answer": "w5 w6", "subject": "even"},
    {"prompt": "w9", "answer": "w1"},
    {"id": "d", "prompt": "w1 w2", "answer": "w5 w9"},
    {"id": "e", "prompt": "w7 w7 w7 w7", "answer": "w7"},
]
CHOSEN = [
    {"id": i, "prompt": f"w{i} w1", "choices": ["w9 w9", f"w{8 + 2 * i}", "w13"], "answer": f"w{8 + 2 * i}"}
    for i in range(4)
]


def test_generated_answers(spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str) -> None:
    completions.replies = {"w1 w2 w3": "w4", "w1 w2": "w5 w6", "w9": "w2 " * 40, "w7 w7 w7 w7": "w7 w7"}
    out = tmp_path / "out"
    run(with_task(spec, tmp_path, GENERATED), out, Progress(tmp_path / "progress.json"), engine_key)
    assert sorted(path.name for path in out.iterdir()) == [
        "prompts.parquet",
        "result.json",
        "samples.parquet",
    ]
    rows = pq.read_table(out / "samples.parquet").to_pylist()
    assert [row["doc_id"] for row in rows][:2] == ["a", "b"]
    assert [row["score"] for row in rows] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert [row["answer"] for row in rows] == ["w4", "w5 w6", " ".join(["w2"] * 32), "w5 w6", "w7 w7"]
    assert [row["finish_reason"] for row in rows] == ["stop", "stop", "length", "stop", "stop"]
    assert [row["output_tokens"] for row in rows] == [2, 3, 32, 3, 3]
    assert [row["target"] for row in rows] == ["w4", "w5 w6", "w1", "w5 w9", "w7"]
    assert [row["cluster"] for row in rows] == ["odd", "even", None, None, None]
    assert {(row["engine_start_id"], row["family"], row["metric"], row["filter"]) for row in rows} == {
        ("start-1", "math", "exact_match", "trimmed")
    }
    prompts = {row["prompt_hash"]: row["text"] for row in pq.read_table(out / "prompts.parquet").to_pylist()}
    assert [prompts[row["prompt_hash"]] for row in rows] == [line["prompt"] for line in GENERATED]
    assert len(prompts) == 4
    result = TaskResult.model_validate_json((out / "result.json").read_text())
    assert (result.task, result.version, result.output_type) == ("own", "1", "generate_until")
    assert (len(result.content_sha256 or ""), result.copies, result.floor) == (64, 0, 0.0)
    assert (result.documents, result.mean_score, result.truncated_prompts) == (5, 0.4, 0)
    assert json.loads((tmp_path / "progress.json").read_text()) == {"done": 5, "total": 5}


def test_multiple_choice(spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str) -> None:
    out = tmp_path / "out"
    run(with_task(spec, tmp_path, CHOSEN), out, Progress(tmp_path / "progress.json"), engine_key)
    rows = pq.read_table(out / "samples.parquet").to_pylist()
    # The engine likes low numbers: wN is token 5 + N and costs half of that.
    assert [row["answer"] for row in rows] == ["w8", "w10", "w12", "w13"]
    assert [row["target"] for row in rows] == ["w8", "w10", "w12", "w14"]
    assert [row["score"] for row in rows] == [1.0, 1.0, 1.0, 0.0]
    assert json.loads(rows[0]["responses"]) == [[[-14.0, True]], [[-6.5, True]], [[-9.0, True]]]
    assert {(row["output_tokens"], row["finish_reason"], row["filter"]) for row in rows} == {
        (None, None, "none")
    }
    assert json.loads((tmp_path / "progress.json").read_text()) == {"done": 12, "total": 12}
    assert len(completions.prompts) == 12


def test_a_prompt_begins_as_the_engine_would_begin_it(
    spec: Evaluation, completions: Any, tmp_path: Path, bos_tokenizer_folder: Path, engine_key: str
) -> None:
    spec = with_task(spec, tmp_path, GENERATED[:1])
    run(spec, tmp_path / "plain", Progress(tmp_path / "progress.json"), engine_key)
    spec = spec.model_copy(update={"tokenizer": str(bos_tokenizer_folder)})
    run(spec, tmp_path / "bos", Progress(tmp_path / "progress.json"), engine_key)
    assert completions.prompts == [[6, 7, 8], [0, 6, 7, 8]]


TEMPLATE = (
    "{{ bos_token }} {% for one in messages %}{{ 'w50' if one.role == 'user' else 'w51' }} {{ one.content }} "
    "{% endfor %}{% if add_generation_prompt %}w51{% endif %}"
)
"""Says w50 before what a user says, w51 before what an assistant does."""


def test_prompts_go_through_the_chat_template(
    spec: Evaluation, completions: Any, tmp_path: Path, bos_tokenizer_folder: Path, engine_key: str
) -> None:
    spec = with_task(spec, tmp_path, GENERATED[:1])
    spec = spec.model_copy(
        update={"tokenizer": str(bos_tokenizer_folder), "chat_template": ChatTemplate(text=TEMPLATE)}
    )
    run(spec, tmp_path / "out", Progress(tmp_path / "progress.json"), engine_key)
    assert completions.prompts == [[0, 55, 6, 7, 8, 56]], "begun once, by the template"
    (prompt,) = pq.read_table(tmp_path / "out" / "prompts.parquet").to_pylist()
    assert prompt["text"] == "<s> w50 w1 w2 w3 w51"


def test_the_tokenizers_own_chat_template_and_choices_behind_it(
    spec: Evaluation, completions: Any, tmp_path: Path, tokenizer_folder: Path, engine_key: str
) -> None:
    folder = shutil.copytree(tokenizer_folder, tmp_path / "own")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    spec = with_task(spec, tmp_path, CHOSEN[:1])
    plain = spec.model_copy(update={"tokenizer": str(folder)})
    run(plain, tmp_path / "plain", Progress(tmp_path / "progress.json"), engine_key)
    assert completions.prompts[0][:2] == [5, 6], "off unless it is asked for"
    completions.prompts.clear()
    run(
        plain.model_copy(update={"chat_template": ChatTemplate()}),
        tmp_path / "out",
        Progress(tmp_path / "progress.json"),
        engine_key,
    )
    assert sorted(completions.prompts) == sorted(
        [0, 55, 5, 6, 56, *choice] for choice in ([14, 14], [13], [18])
    )
    first, second = (pq.read_table(tmp_path / name / "samples.parquet") for name in ("plain", "out"))
    assert first["prompt_hash"].to_pylist() != second["prompt_hash"].to_pylist()
    assert first["doc_hash"].to_pylist() == second["doc_hash"].to_pylist()


FEWSHOT = """task: shots
dataset_path: json
dataset_kwargs: {data_files: {test: shots.jsonl, train: shots.jsonl}}
test_split: test
fewshot_split: train
num_fewshot: 1
fewshot_config: {sampler: first_n}
doc_to_text: prompt
doc_to_target: answer
output_type: generate_until
generation_kwargs: {until: ["\\n"], max_gen_toks: 8}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


def test_examples_are_turns_of_their_own(
    spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str
) -> None:
    (tmp_path / "shots.yaml").write_text(FEWSHOT)
    lines = [{"prompt": "w1", "answer": "w2"}, {"prompt": "w3", "answer": "w4"}]
    (tmp_path / "shots.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = SuiteTask(task="shots", path=str(tmp_path))
    spec = spec.model_copy(update={"task": task, "chat_template": ChatTemplate(text=TEMPLATE)})
    run(spec, tmp_path / "out", Progress(tmp_path / "progress.json"), engine_key)
    assert [0, 55, 6, 56, 7, 55, 8, 56] in completions.prompts


def test_an_adapters_context_is_its_models(
    spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str
) -> None:
    completions.adapters = ["mine"]
    completions.context_tokens = 33
    spec = with_task(spec, tmp_path, GENERATED[:1]).model_copy(
        update={"engine": completions.endpoint(served_model="mine")}
    )
    with pytest.raises(ConfigError, match="generates up to 32 tokens and the engine's context is 33"):
        run(spec, tmp_path / "out", Progress(tmp_path / "progress.json"), engine_key)
    completions.context_tokens = 64
    run(spec, tmp_path / "out", Progress(tmp_path / "progress.json"), engine_key)
    assert completions.models == {"mine"}


def test_prompts_that_are_cut_are_counted_and_answers_that_cannot_fit_refused(
    spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str
) -> None:
    completions.context_tokens = 36
    lines = [{"prompt": "w1 w2 w3 w4 w5", "answer": "w4"}, {"prompt": "w1 w2", "answer": "w4"}]
    spec = with_task(spec, tmp_path, lines)
    run(spec, tmp_path / "out", Progress(tmp_path / "progress.json"), engine_key)
    result = TaskResult.model_validate_json((tmp_path / "out" / "result.json").read_text())
    assert result.truncated_prompts == 1
    assert completions.prompts[0] == [8, 9, 10]
    completions.context_tokens = 32
    with pytest.raises(ConfigError, match="generates up to 32 tokens and the engine's context is 32"):
        run(spec, tmp_path / "other", Progress(tmp_path / "progress.json"), engine_key)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("fault", "lines", "told"),
    [
        ("refuses", GENERATED, "the engine answered 500: out of memory in the attention kernel"),
        ("too few choices", GENERATED, r"the engine answered (0 of 1|1 of 2) prompts"),
        ("too few choices", CHOSEN, "the engine answered 1 of 2 prompts"),
        ("too few logprobs", CHOSEN, "log-probabilities for"),
        ("closes", CHOSEN, "the engine stopped answering: Server disconnected"),
        ("not JSON", GENERATED, "lm-eval failed: TypeError"),
    ],
)
def test_what_the_engine_does_wrong_is_one_line_and_leaves_nothing(
    spec: Evaluation, completions: Any, tmp_path: Path, fault: str, lines: list[dict[str, Any]], told: str
) -> None:
    completions.fault = fault
    spec_path = tmp_path / "work" / "spec.json"
    spec_path.parent.mkdir()
    spec_path.write_text(with_task(spec, tmp_path, lines).model_dump_json())
    assert worker.main([str(spec_path), str(tmp_path / "out")]) == 1
    failure = json.loads(spec_path.with_name("failure.json").read_text())
    assert re.search(told, failure["what"])
    assert "\n" not in failure["what"]
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_an_engine_that_is_gone_or_serves_something_else(
    spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str
) -> None:
    spec = with_task(spec, tmp_path, GENERATED)
    progress = Progress(tmp_path / "progress.json")
    other = completions.endpoint(served_model="other")
    with pytest.raises(RunError, match="the engine serves served, not other"):
        run(spec.model_copy(update={"engine": other}), tmp_path / "out", progress, engine_key)
    with pytest.raises(RunError, match="the engine answered 401: wrong key"):
        run(spec, tmp_path / "out", progress, "another")
    gone = spec.model_copy(update={"engine": completions.endpoint(base_url="http://127.0.0.1:9")})
    with pytest.raises(OSError, match="refused") as raised:
        run(gone, tmp_path / "out", progress, engine_key)
    assert str(worker.describe(raised.value)).startswith(
        "the engine stopped answering: Connection refused. See"
    )


def own_task(folder: Path, text: str, lines: list[dict[str, Any]]) -> SuiteTask:
    (folder / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "t.yaml").write_text(
        "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: t.jsonl}}\ntest_split: test\n"
        + text
    )
    return SuiteTask(task="t", path=str(folder))


def test_a_task_of_someone_elses_with_functions_and_its_second_filter(
    spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str
) -> None:
    (tmp_path / "score.py").write_text(
        "def results(doc, results):\n    return {'words': len(results[0].split()), 'odd': 1}\n"
    )
    task = own_task(
        tmp_path,
        "doc_to_text: '{{q}}'\ndoc_to_target: a\nprocess_results: !function score.results\n"
        "filter_list:\n"
        "  - {name: whole, filter: [{function: take_first}]}\n"
        "  - {name: one, filter: [{function: regex, regex_pattern: '(w3)'}, {function: take_first}]}\n"
        "metric_list:\n"
        "  - {metric: odd, aggregation: mean, higher_is_better: false}\n"
        "  - {metric: words, aggregation: mean, higher_is_better: true}\n",
        [{"q": "w1", "a": "w2"}],
    )
    completions.replies = {"w1": "w2 w3 w4"}
    completions.context_tokens = 512
    progress = Progress(tmp_path / "progress.json")
    for chosen, answer, score in ((None, " w2 w3 w4", 3.0), ("one", "w3", 1.0)):
        suite_task = task.model_copy(update={"metric": "words", "filter": chosen})
        out = tmp_path / f"out-{chosen}"
        run(spec.model_copy(update={"task": suite_task}), out, progress, engine_key)
        (row,) = pq.read_table(out / "samples.parquet").to_pylist()
        assert (row["answer"], row["score"], row["filter"]) == (answer, score, chosen or "whole")
    with pytest.raises(ConfigError, match="metric 'odd' is better when it is lower"):
        run(spec.model_copy(update={"task": task}), tmp_path / "out", progress, engine_key)
    unknown = task.model_copy(update={"metric": "words", "filter": "two"})
    with pytest.raises(ConfigError, match=r"has no filter 'two'\. It has: whole, one"):
        run(spec.model_copy(update={"task": unknown}), tmp_path / "out", progress, engine_key)


def test_a_choice_without_a_token_of_its_own_would_always_win(
    spec: Evaluation, tmp_path: Path, engine_key: str
) -> None:
    task = own_task(
        tmp_path,
        "output_type: multiple_choice\ndoc_to_text: q\ndoc_to_target: 0\ndoc_to_choice: ['w1', ' ']\n",
        [{"q": "w1"}],
    )
    with pytest.raises(ConfigError, match="adds no token to its prompt"):
        run(
            spec.model_copy(update={"task": task}),
            tmp_path / "out",
            Progress(tmp_path / "progress.json"),
            engine_key,
        )


def test_a_task_whose_documents_are_all_left_out(spec: Evaluation, tmp_path: Path, engine_key: str) -> None:
    (tmp_path / "none.py").write_text("def docs(data):\n    return data.filter(lambda _: False)\n")
    task = own_task(
        tmp_path,
        "doc_to_text: q\ndoc_to_target: q\nprocess_docs: !function none.docs\n",
        [{"q": "w1"}],
    )
    spec = spec.model_copy(update={"task": task})
    with pytest.raises(ConfigError, match=r"t\.yaml: holds no documents"):
        run(spec, tmp_path / "out", Progress(tmp_path / "progress.json"), engine_key)
