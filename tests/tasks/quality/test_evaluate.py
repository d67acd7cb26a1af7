from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quantgate.bundles.manifest import TaskResult
from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.enums import Family
from quantgate.model.errors import ConfigError, RunError
from tasks.quality import evaluate
from tasks.quality.evaluate import check_suite, suite_content
from tasks.quality.sources import suite_from
from tests.tasks.engine.test_process import SECRETS, plant

TASK = """task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl}}
test_split: test
doc_to_text: prompt
doc_to_target: answer
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
  - {metric: ter, aggregation: ter, higher_is_better: false}
filter_list:
  - {name: plain, filter: [{function: take_first}]}
metadata: {version: 3}
"""
LINES = '{"prompt": "sky?", "answer": "blue"}\n\n{"prompt": "sea?", "answer": "green"}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "colours.yaml").write_text(TASK)
    (folder / "colours.jsonl").write_text(LINES)
    return folder


def suite_of(folder: Path, limit: int | None = None, **task: Any) -> Suite:
    return Suite(name="s", tasks=(SuiteTask(task="colours", path=str(folder), **task),), limit=limit)


def test_documents_are_counted_before_anything_starts(folder: Path) -> None:
    assert check_suite(suite_of(folder)) == {"colours": 2}
    assert check_suite(suite_of(folder, limit=1)) == {"colours": 1}
    assert check_suite(suite_of(folder, limit=9)) == {"colours": 2}
    (folder / "colours.jsonl").write_text('[{"prompt": "a"},\n {"prompt": "b"}, {"prompt": "c"}]')
    assert check_suite(suite_of(folder)) == {"colours": 3}
    (folder / "colours.yaml").write_text(TASK.replace("json\n", "parquet\n").replace(".jsonl", ".parquet"))
    pq.write_table(pa.table({"prompt": ["a"] * 5}), folder / "colours.parquet")
    assert check_suite(suite_of(folder)) == {"colours": 5}
    (folder / "colours.yaml").write_text(TASK.replace("json\n", "csv\n").replace(".jsonl", ".csv"))
    (folder / "colours.csv").write_text("prompt,answer\na,b\n")
    assert check_suite(suite_of(folder)) == {"colours": None}


def test_tasks_of_lm_evals_are_checked_for_what_their_yaml_tells() -> None:
    task = SuiteTask(task="gsm8k", family=Family.MATH, filter="flexible-extract")
    assert check_suite(Suite(name="s", tasks=(task,))) == {"gsm8k": None}
    wrong = task.model_copy(update={"filter": "flexible"})
    with pytest.raises(
        ConfigError, match=r"has no filter 'flexible'\. It has: strict-match, flexible-extract"
    ):
        check_suite(Suite(name="s", tasks=(wrong,)))
    with pytest.raises(ConfigError, match="its perplexity is not a score per document"):
        check_suite(Suite(name="s", tasks=(SuiteTask(task="wikitext"),)))
    with pytest.raises(ConfigError, match="no suite and no task of lm-eval's is called so"):
        check_suite(Suite(name="s", tasks=(SuiteTask(task="gsm9k"),)))
    with pytest.raises(ConfigError, match="s: task 'gsm8k' stands twice"):
        check_suite(Suite(name="s", tasks=(task, task)))


@pytest.mark.parametrize(
    ("lines", "text", "task", "told"),
    [
        ("\n", TASK, {}, "colours.jsonl: holds no documents"),
        ("[]", TASK, {}, "colours.jsonl: holds no documents"),
        (LINES + "{\n", TASK, {}, "colours.jsonl:4: is not JSON"),
        (LINES, TASK.replace("test_split: test\n", ""), {}, "has no 'test_split'"),
        (LINES, TASK.replace("split: test", "split: dev"), {}, "split 'dev' has no data files"),
        (LINES, TASK, {"metric": "acc"}, "has no metric 'acc'. It has: exact_match, ter"),
        (LINES, TASK, {"metric": "ter"}, "metric 'ter' is better when it is lower"),
        (LINES, TASK, {"filter": "strict"}, "has no filter 'strict'. It has: plain"),
    ],
)
def test_what_cannot_be_evaluated_is_told_in_one_line(
    folder: Path, lines: str, text: str, task: dict[str, str], told: str
) -> None:
    (folder / "colours.jsonl").write_text(lines)
    (folder / "colours.yaml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        check_suite(suite_of(folder, **task))
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_content_changes_with_every_file_and_setting_and_with_nothing_else(folder: Path) -> None:
    first = suite_content(suite_of(folder))
    assert first["lm_eval"]
    assert first["limit"] is None
    assert first["tasks"][0] | {"sha256": None} == {
        "task": "colours",
        "family": "custom",
        "metric": None,
        "filter": None,
        "version": "3",
        "sha256": None,
    }
    elsewhere = shutil.copytree(folder, folder.parent / "elsewhere")
    assert suite_content(suite_of(elsewhere)) == first
    seen = [first]
    (folder / "base.yaml").write_text("num_fewshot: 0\n")
    for name, text in {
        "colours.jsonl": LINES.replace("blue", "grey"),
        "colours.yaml": TASK + "include: base.yaml\nprocess_docs: !function own.docs\n",
        "base.yaml": "num_fewshot: 1\n",
        "own.py": "def docs(d):\n    return d\n",
    }.items():
        (folder / name).write_text(text)
        seen.append(suite_content(suite_of(folder)))
    seen += [suite_content(suite_of(folder, limit=5)), suite_content(suite_of(folder, metric="exact_match"))]
    assert len({json.dumps(one, sort_keys=True) for one in seen}) == len(seen)


def test_the_content_of_lm_evals_own_is_their_version() -> None:
    task = suite_content(Suite(name="s", tasks=(SuiteTask(task="gsm8k"),)))["tasks"][0]
    assert task["version"] == "3.0"
    assert "sha256" not in task


@pytest.fixture
def own(tmp_path: Path) -> Suite:
    path = tmp_path / "own.jsonl"
    lines = [{"id": i, "prompt": f"w{i} w1", "answer": "w1 w2"} for i in range(20)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return suite_from(str(path), family=None, limit=None, out_dir=tmp_path / "made")


@pytest.fixture
def arguments(completions: Any, tokenizer_folder: Path, tmp_path: Path, engine_key: str) -> dict[str, Any]:
    return {
        "base_url": completions.base_url,
        "api_key": engine_key,
        "served_model": "served",
        "checkpoint_path": tokenizer_folder,
        "engine_start_id": "start-1",
        "out_dir": tmp_path / "staging" / "own",
        "log": tmp_path / "logs" / "own.log",
        "timeout_s": 60,
        "on_progress": lambda *_: None,
    }


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_task_is_evaluated_in_a_process_of_its_own(
    own: Suite, arguments: dict[str, Any], engine_key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    stale = arguments["out_dir"]
    stale.mkdir(parents=True)
    (stale / "result.json").write_text("{}")
    told: list[tuple[int, int | None]] = []
    result = evaluate.evaluate(own.tasks[0], **arguments | {"on_progress": lambda *t: told.append(t)})
    assert isinstance(result, TaskResult)
    assert (result.documents, result.mean_score, result.engine_start_id) == (20, 1.0, "start-1")
    assert told[-1] == (20, 20)
    assert left_in(stale.parent) == ["own"]
    assert left_in(stale) == ["prompts.parquet", "result.json", "samples.parquet"]
    assert pq.read_table(stale / "samples.parquet").num_rows == 20
    assert engine_key not in arguments["log"].read_text()


def test_code_in_the_worker_sees_no_secret(
    folder: Path,
    arguments: dict[str, Any],
    completions: Any,
    engine_key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The task's own code writes down what it sees, as a tokenizer's could."""
    (folder / "spy.py").write_text(
        "import json, os, pathlib\n"
        "def look(docs):\n"
        "    beside = pathlib.Path(__file__).with_name('seen.json')\n"
        "    beside.write_text(json.dumps(dict(os.environ)))\n"
        "    return docs\n"
    )
    (folder / "colours.jsonl").write_text('{"prompt": "w1", "answer": "w1 w2"}\n')
    (folder / "colours.yaml").write_text(
        "task: colours\ndataset_path: json\ndataset_kwargs: {data_files: {test: colours.jsonl}}\ntest_split: test\n"
        "doc_to_text: prompt\ndoc_to_target: answer\nprocess_docs: !function spy.look\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    completions.context_tokens = 512
    plant(monkeypatch)
    suite = suite_of(folder)
    result = evaluate.evaluate(suite.tasks[0], **arguments | {"trust_remote_code": True})
    assert result.documents == 1
    seen = json.loads((folder / "seen.json").read_text())
    assert not [name for name, value in seen.items() if "planted" in value]
    assert ("OPENAI_API_KEY" in seen, seen["OMP_NUM_THREADS"]) == (False, "2")


def test_the_hubs_token_is_for_data_of_a_hub_and_never_beside_a_checkpoints_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plant(monkeypatch)
    local, hub = suite_of(folder).tasks[0], SuiteTask(task="gsm8k")
    for task, code, names in (
        (local, False, set()),
        (local, True, set()),
        (hub, False, {"HF_TOKEN", "HTTPS_PROXY"}),
        (hub, True, {"HTTPS_PROXY"}),
        (hub.model_copy(update={"run_generated_code": True}), False, {"HTTPS_PROXY"}),
    ):
        got = evaluate._environment("key", task, tmp_path, trust_remote_code=code)
        assert {name for name in SECRETS if "planted" in got.get(name, "")} == names
        assert got["OPENAI_API_KEY"] == "key"
        assert ("HF_ALLOW_CODE_EVAL" in got) == task.run_generated_code


def test_an_evaluation_that_hangs_is_stopped_in_time(
    own: Suite, completions: Any, arguments: dict[str, Any]
) -> None:
    completions.fault = "hang"
    with pytest.raises(RunError, match="lm-eval task own: did not end within 4 s") as raised:
        evaluate.evaluate(own.tasks[0], **arguments | {"timeout_s": 4})
    assert str(arguments["log"]) in str(raised.value)
    assert left_in(arguments["out_dir"].parent) == []


def test_an_engine_that_died_is_told_by_its_own_last_words(own: Suite, arguments: dict[str, Any]) -> None:
    def dead() -> None:
        raise RunError("the engine ended with status 9")

    with pytest.raises(RunError, match="the engine ended with status 9"):
        evaluate.evaluate(own.tasks[0], **arguments | {"check_alive": dead})
    assert left_in(arguments["out_dir"].parent) == []


def test_the_workers_reason_comes_through_with_its_log(own: Suite, arguments: dict[str, Any]) -> None:
    with pytest.raises(RunError, match="own: the engine serves served, not other") as raised:
        evaluate.evaluate(own.tasks[0], **arguments | {"served_model": "other"})
    assert str(raised.value).endswith(f"Its log: {arguments['log']}")
    assert left_in(arguments["out_dir"].parent) == []


def test_a_mistake_in_the_task_stays_one_of_usage(own: Suite, tmp_path: Path) -> None:
    failure = {"what": "holds no documents", "where": "t.yaml", "hint": "Give it some.", "exit_status": 2}
    (tmp_path / "failure.json").write_text(json.dumps(failure))
    with pytest.raises(ConfigError, match=r"^t\.yaml: holds no documents\. Give it some\.$"):
        evaluate._raise_failure(tmp_path / "failure.json", own.tasks[0], tmp_path / "log")


def test_a_chat_template_is_part_of_what_is_asked_only_where_it_is_used(folder: Path) -> None:
    plain = suite_content(suite_of(folder))
    assert "chat_template" not in plain
    assert suite_content(suite_of(folder), chat_template=True) == plain | {"chat_template": True}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", "{{ messages }}"),
        ("tokenizer_config.json", json.dumps({"chat_template": "{{ messages }}"})),
        (
            "tokenizer_config.json",
            json.dumps({"chat_template": [{"name": "default", "template": "{{ messages }}"}]}),
        ),
    ],
)
def test_a_checkpoint_with_a_chat_template(tmp_path: Path, name: str, content: str) -> None:
    told = (
        "x: the checkpoint has no chat template. "
        "Leave it out (--no-chat-template), or give one: --engine-arg chat-template=FILE."
    )
    with pytest.raises(ConfigError) as caught:
        evaluate.check_chat_template(tmp_path, "x")
    assert str(caught.value) == told
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ConfigError):
        evaluate.check_chat_template(tmp_path, "x")
    (tmp_path / name).write_text(content)
    evaluate.check_chat_template(tmp_path, "x")


def test_two_documents_of_one_id(folder: Path) -> None:
    (folder / "colours.jsonl").write_text('{"id": 1, "prompt": "a"}\n{"id": 2, "prompt": "b"}\n{"id": "1"}\n')
    with pytest.raises(ConfigError) as caught:
        check_suite(suite_of(folder))
    assert str(caught.value) == (
        f"{folder}/colours.jsonl:3: id '1' stands on line 1 already. Make it unique, or leave ids out."
    )
