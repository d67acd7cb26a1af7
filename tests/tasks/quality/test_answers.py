"""What becomes of answers: repeats, thinking, greedy decoding, programs that a model writes, groups of tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from quantgate.bundles.manifest import TaskResult
from quantgate.model.config.suites import SuiteTask
from tasks.quality import worker
from tasks.quality.evaluate import Evaluation
from tasks.quality.worker import Progress, run
from tests.tasks.quality.test_worker import alone, own_task, spec

__all__ = ["alone", "spec"]

SAMPLED = (
    "doc_to_text: q\ndoc_to_target: a\nrepeats: 4\n"
    "generation_kwargs: {until: ['.'], do_sample: true, temperature: 0.7, max_gen_toks: 8}\n"
    "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true, regexes_to_ignore: ['\\s']}]\n"
)
REPEATED = [
    {"id": "a", "q": "w1", "a": "w2"},
    {"id": "b", "q": "w3", "a": "w2"},
    {"id": "c", "q": "w5", "a": "w2"},
]


def asked_again(spec: Evaluation, completions: Any, folder: Path, key: str, filters: str) -> dict[str, Any]:
    """Rows by document: the first answer to each is right, another one under each seed of an odd number."""
    folder.mkdir()
    task = own_task(folder, SAMPLED + filters, REPEATED)
    completions.by_seed = lambda seed: "w2" if seed % 2 else "w4"
    out = folder / "out"
    run(spec.model_copy(update={"task": task}), out, Progress(folder / "progress.json"), key)
    return {row["doc_id"]: row for row in pq.read_table(out / "samples.parquet").to_pylist()}


FILTER = "filter_list: [{name: some, filter: [{function: remove_whitespace}, %s]}]\n"


@pytest.mark.parametrize(
    ("filters", "kept"),
    [("", 4), (FILTER % "{function: take_first_k, k: 3}", 3)],
)
def test_repeats_are_scored_each_and_averaged_within_their_document(
    spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str, filters: str, kept: int
) -> None:
    rows = asked_again(spec, completions, tmp_path / "first", engine_key, filters)
    assert len(completions.sampled) == 12, "three documents, four times"
    assert len({seed for _, seed in completions.sampled}) == 12, "each answer has a seed of its own"
    for row in rows.values():
        answers = [text.strip() for text in json.loads(row["responses"])[0]]
        assert len(answers) == 4
        assert [text.strip() for text in json.loads(row["answer"])] == answers[:kept]
        assert row["score"] == pytest.approx(answers[:kept].count("w2") / kept)
        assert (row["output_tokens"], row["finish_reason"]) == (8, "stop")
    assert len({row["score"] for row in rows.values()}) > 1, "not every document has the same"
    before = sorted(completions.sampled)
    completions.sampled.clear()
    again = asked_again(spec, completions, tmp_path / "again", engine_key, filters)
    assert sorted(completions.sampled) == before, "another checkpoint samples with the same seeds"
    assert {name: row["score"] for name, row in again.items()} == {n: row["score"] for n, row in rows.items()}


@pytest.mark.parametrize(
    ("more", "score"),
    [
        (FILTER % "{function: take_first}", lambda answers: float(answers[0] == "w2")),
        (FILTER % "{function: majority_vote}, {function: take_first}", lambda a: float(a.count("w2") > 2)),
    ],
)
def test_a_filter_that_makes_one_answer_of_the_repeats_is_left_as_it_is(
    spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str, more: str, score: Any
) -> None:
    rows = asked_again(spec, completions, tmp_path / "votes", engine_key, more)
    for row in rows.values():
        answers = [text.strip() for text in json.loads(row["responses"])[0]]
        assert row["answer"] in answers
        if answers.count("w2") != 2:
            assert row["score"] == score(answers)


def test_what_a_model_thought_is_kept_and_not_scored(
    spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str
) -> None:
    """The first filter takes the first word: without thinking left out, that of the thinking."""
    first = FILTER % "{function: regex, regex_pattern: '(w[0-9]+)'}, {function: take_first}"
    greedy = "generation_kwargs: {until: [], max_tokens: 3}\n"
    task = own_task(
        tmp_path, SAMPLED.partition("repeats")[0] + greedy + SAMPLED.partition("8}\n")[2] + first, REPEATED
    )
    completions.replies = {"w1": "<think> w7 w8 </think> w5 </think> w2 w9", "w3": "w2 w4"}
    completions.replies["w5"] = completions.replies["w1"]
    scores = {}
    for name, end in (("plain", None), ("thinking", "</think>")):
        update = {"max_gen_toks": 16, "thinking_end": end}
        asked = spec.model_copy(update={"task": task.model_copy(update=update)})
        run(asked, tmp_path / name, Progress(tmp_path / "progress.json"), engine_key)
        rows = pq.read_table(tmp_path / name / "samples.parquet").to_pylist()
        scores[name] = {row["doc_id"]: (row["answer"], row["score"]) for row in rows}
        responses = {row["doc_id"]: json.loads(row["responses"])[0][0].strip() for row in rows}
        assert responses == {one["id"]: completions.replies[one["q"]] for one in REPEATED}, "whole"
        assert {row["finish_reason"] for row in rows} == {"stop"}, "the suite's limit, not its YAML's 3"
    assert scores == {
        "plain": {"a": ("w7", 0.0), "b": ("w2", 1.0), "c": ("w7", 0.0)},
        "thinking": {"a": ("w2", 1.0), "b": ("w2", 1.0), "c": ("w2", 1.0)},
    }


def test_a_task_that_is_declared_greedy_is_greedy_whatever_its_temperature(
    spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str
) -> None:
    text = SAMPLED.replace("do_sample: true", "do_sample: false").replace("repeats: 4\n", "")
    spec = spec.model_copy(update={"task": own_task(tmp_path, text, REPEATED)})
    run(spec, tmp_path / "out", Progress(tmp_path / "progress.json"), engine_key)
    assert completions.sampled == []
    assert len(completions.prompts) == 3


def test_code_that_the_model_writes_is_run_only_with_permission_and_without_the_engines_key(
    spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As lm-eval's code tasks score: a metric that runs the answer. Here the answer must see no key."""
    (tmp_path / "runs.py").write_text(
        "import subprocess, sys\n"
        "def passes(references, predictions, **_):\n"
        "    return float(subprocess.run([sys.executable, '-c', predictions[0].strip()]).returncode == 0)\n"
    )
    task = own_task(
        tmp_path,
        "unsafe_code: true\ndoc_to_text: q\ndoc_to_target: a\ngeneration_kwargs: {until: [], max_gen_toks: 16}\n"
        "metric_list: [{metric: !function runs.passes, aggregation: mean, higher_is_better: true}]\n",
        [{"id": "good", "q": "w1", "a": ""}, {"id": "bad", "q": "w2", "a": ""}],
    )
    completions.replies = {
        "w1": "import os; assert 'OPENAI_API_KEY' not in os.environ",
        "w2": "import os; os.environ['OPENAI_API_KEY']",
    }
    spec_path = tmp_path / "work" / "spec.json"
    spec_path.parent.mkdir()
    for allowed in (False, True):
        asked = task.model_copy(update={"run_generated_code": allowed})
        spec_path.write_text(spec.model_copy(update={"task": asked}).model_dump_json())
        monkeypatch.setenv("OPENAI_API_KEY", engine_key)
        status = worker.main([str(spec_path), str(tmp_path / "out")])
        assert status == (0 if allowed else 1)
        assert (tmp_path / "out").exists() == allowed
    assert "marked as unsafe" in json.loads(spec_path.with_name("failure.json").read_text())["what"]
    rows = pq.read_table(tmp_path / "out" / "samples.parquet").to_pylist()
    assert {row["doc_id"]: row["score"] for row in rows} == {"good": 1.0, "bad": 0.0}


def test_a_groups_documents_are_one_tasks_and_its_subtasks_the_clusters(
    spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str
) -> None:
    completions.context_tokens = 512
    for name, lines in {
        "law": [{"q": "w1", "a": "w1 w2"}, {"id": 7, "q": "w2", "a": "w9"}],
        "art": [{"q": "w1", "a": "w1 w2", "subject": "x"}, {"id": 7, "q": "w3", "a": "w1 w2"}],
    }.items():
        own_task(tmp_path, "doc_to_text: q\ndoc_to_target: a\n", lines)
        settings = (tmp_path / "t.yaml").read_text()
        (tmp_path / f"{name}.yaml").write_text(
            settings.replace("t.jsonl", f"{name}.jsonl").replace("task: t", f"task: {name}")
            + f"metadata: {{version: {len(name + name[0])}}}\n"
            + "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
            + "filter_list: [{name: bare, filter: [{function: remove_whitespace}, {function: take_first}]}]\n"
        )
        (tmp_path / "t.jsonl").rename(tmp_path / f"{name}.jsonl")
    (tmp_path / "t.yaml").unlink()
    (tmp_path / "both.yaml").write_text("group: both\ntask: [law, art]\nmetadata: {version: 9}\n")
    completions.replies = {"w3": "w1 w5"}
    spec = spec.model_copy(update={"task": SuiteTask(task="both", path=str(tmp_path))})
    run(spec, tmp_path / "out", Progress(tmp_path / "progress.json"), engine_key)
    rows = pq.read_table(tmp_path / "out" / "samples.parquet").to_pylist()
    told = {row["doc_id"]: (row["cluster"], row["score"], row["answer"]) for row in rows}
    by_content = [key for key in told if len(key) > 40]
    assert [key.partition("/")[0] for key in by_content] == ["art"], "what both ask is asked once"
    assert {key: value for key, value in told.items() if key not in by_content} == {
        "law/7": ("law", 0.0, "w1 w2"),
        "art/7": ("art", 0.0, "w1 w5"),
    }
    assert {told[key][1:] for key in by_content} == {(1.0, "w1 w2")}
    assert {(row["task"], row["output_tokens"], row["finish_reason"]) for row in rows} == {
        ("both", 3, "stop")
    }
    assert {row["doc_repeat"] for row in rows} == {0}
    result = TaskResult.model_validate_json((tmp_path / "out" / "result.json").read_text())
    assert (result.task, result.documents, result.mean_score, result.version) == ("both", 3, 1 / 3, "4")
    prompts = pq.read_table(tmp_path / "out" / "prompts.parquet")["text"].to_pylist()
    assert sorted(prompts) == ["w1", "w2", "w3"], "of each document one"


SHOTS = "num_fewshot: 1\nfewshot_split: test\n"


def test_a_group_is_asked_in_parts_as_it_is_asked_whole(
    spec: Evaluation, completions: Any, tmp_path: Path, engine_key: str
) -> None:
    completions.context_tokens = 512
    for name, count in (("law", 5), ("art", 2)):
        own_task(tmp_path, "doc_to_text: q\ndoc_to_target: a\n", [])
        settings = (tmp_path / "t.yaml").read_text().replace("t.jsonl", f"{name}.jsonl")
        (tmp_path / f"{name}.yaml").write_text(settings.replace("task: t", f"task: {name}") + SHOTS)
        lines = [{"id": number, "q": f"w{number} {name}", "a": f"w{number}"} for number in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "t.yaml").unlink()
    (tmp_path / "both.yaml").write_text("group: both\ntask: [law, art]\n")
    spec = spec.model_copy(update={"task": SuiteTask(task="both", path=str(tmp_path))})
    seen: dict[tuple[int, int | None], list[tuple[Any, ...]]] = {}
    for start, end in ((0, None), (0, 1), (1, 4), (4, 7)):
        out = tmp_path / f"out-{start}-{end}"
        asked = spec.model_copy(update={"start": start, "end": end})
        run(asked, out, Progress(tmp_path / "progress.json"), engine_key)
        rows = pq.read_table(out / "samples.parquet").to_pylist()
        seen[start, end] = sorted((row["position"], row["doc_id"], row["prompt_hash"]) for row in rows)
        result = TaskResult.model_validate_json((out / "result.json").read_text())
        assert (result.documents, result.documents_available) == (len(rows), 7)
    whole = seen.pop((0, None))
    assert [position for position, *_ in whole] == list(range(7))
    assert [row for part in seen.values() for row in part] == whole
