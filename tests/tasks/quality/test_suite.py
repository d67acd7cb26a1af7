from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.enums import Family
from quantgate.model.errors import ConfigError
from tasks.quality.suite import check_chat_template, check_suite, suite_content

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
    with pytest.raises(ConfigError, match="s: task 'gsm8k' is listed twice"):
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


CHOICES = """task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: prompt
doc_to_choice: choices
doc_to_target: "{{answer}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


def multiple_choice(folder: Path, *documents: dict[str, Any], yaml: str = CHOICES) -> str:
    """What is said of such a task, or nothing."""
    (folder / "colours.yaml").write_text(yaml)
    (folder / "colours.jsonl").write_text("".join(json.dumps({"prompt": "?"} | d) + "\n" for d in documents))
    try:
        check_suite(suite_of(folder))
    except ConfigError as error:
        return str(error)
    return ""


DOWN = {"choices": ["2", "1", "0"], "answer": 2}


def test_a_number_among_the_choices_that_lm_eval_takes_for_an_index(folder: Path) -> None:
    said = multiple_choice(folder, DOWN)
    assert said == (
        f"{folder.resolve()}/colours.yaml: document 1: answer 2 is a choice, and lm-eval takes it for an index: '0'. "
        "Let doc_to_target name a column with the choice as text, or with its index and called 'gold'."
    )
    assert multiple_choice(folder, {"choices": ["4", "3"], "answer": "4"}).endswith(
        "document 1: answer 4 is a choice, and lm-eval takes it for an index: none. Let doc_to_target name a column "
        "with the choice as text, or with its index and called 'gold'."
    )
    column = CHOICES.replace('"{{answer}}"', "answer")
    assert "answer 2 is a choice" in multiple_choice(folder, DOWN, yaml=column), "a number is an index too"
    listed = CHOICES.replace("doc_to_choice: choices", 'doc_to_choice: "{{choices}}"')
    assert "answer 2 is a choice" in multiple_choice(folder, DOWN, yaml=listed)
    fixed = CHOICES.replace("doc_to_choice: choices", 'doc_to_choice: ["2", "1", "0"]')
    assert "answer 2 is a choice" in multiple_choice(folder, DOWN, yaml=fixed)


def test_answers_that_lm_eval_reads_as_they_are_meant(folder: Path) -> None:
    column = CHOICES.replace('"{{answer}}"', "answer")
    assert multiple_choice(folder, {"choices": ["0", "1", "2"], "answer": 2}) == ""
    assert multiple_choice(folder, {"choices": ["red", "blue"], "answer": 1}) == ""
    assert multiple_choice(folder, {"choices": ["2", "1", "0"], "answer": "2"}, yaml=column) == "", "a text"
    assert multiple_choice(folder, DOWN, {"choices": ["8", "9"], "answer": 1}) == "", "1 can only be an index"
    gold = CHOICES.replace('"{{answer}}"', "gold")
    assert multiple_choice(folder, {"choices": ["2", "1", "0"], "gold": 2}, yaml=gold) == ""
    assert multiple_choice(folder, DOWN, yaml=CHOICES.replace("{{answer}}", "{{nothing}}")) == "", (
        "lm-eval says it"
    )
    function = CHOICES.replace('"{{answer}}"', "!function own.target")
    (folder / "own.py").write_text("def target(doc):\n    return 0\n")
    assert multiple_choice(folder, DOWN, yaml=function) == "", "no code of a task runs here"


def test_lm_eval_does_take_such_an_answer_for_an_index(folder: Path) -> None:
    """What the check rests on, by lm-eval itself."""
    multiple_choice(folder, DOWN)
    config = load_yaml(folder / "colours.yaml")
    config["dataset_kwargs"] = {"data_files": {"test": str(folder / "colours.jsonl")}}
    task = TaskManager(include_defaults=False).load([config])["tasks"]["colours"]
    (document,) = task.test_docs()
    assert task.doc_to_target(document) == 2
    assert task.process_results(document, [(0.0, False), (0.0, False), (9.0, False)])["acc"] == 1, (
        "'0' is right"
    )


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
        check_chat_template(tmp_path, "x")
    assert str(caught.value) == told
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ConfigError):
        check_chat_template(tmp_path, "x")
    (tmp_path / name).write_text(content)
    check_chat_template(tmp_path, "x")


def test_two_documents_of_one_id(folder: Path) -> None:
    (folder / "colours.jsonl").write_text('{"id": 1, "prompt": "a"}\n{"id": 2, "prompt": "b"}\n{"id": "1"}\n')
    with pytest.raises(ConfigError) as caught:
        check_suite(suite_of(folder))
    assert str(caught.value) == (
        f"{folder}/colours.jsonl:3: id '1' is on line 1 already. Make it unique, or leave ids out."
    )
