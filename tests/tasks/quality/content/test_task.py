"""A task by its content: what changes it, and what does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lm_eval.tasks import TaskManager

from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.enums import Family
from quantgate.model.home import ROOT
from quantgate.model.records import TaskContent
from quantgate.model.yaml_file import load_yaml
from tasks.quality.content.document import Question
from tasks.quality.content.reader import read_task
from tasks.quality.content.task import floor_of
from tasks.quality.documents import placed_in
from tasks.quality.sources import sources_of, suite_from
from tasks.quality.suite import suite_content
from tasks.quality.worker import load_tasks, read_parts

Line = dict[str, Any]
GENERATED: list[Line] = [
    {"id": n, "prompt": f"How much is {n} + {n}?", "answer": f"{2 * n}"} for n in range(60)
]
CHOSEN: list[Line] = [
    {"id": n, "prompt": f"Which is {n}?", "choices": [f"It is {n}", f"It is {n + 1}"], "answer": n % 2}
    for n in range(60)
]
MANAGER = TaskManager(include_defaults=False)


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


def jsonl(folder: Path, lines: list[Line], name: str = "own") -> SuiteTask:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (task,) = suite_from([str(path)], family=Family.MATH, limit=None, out_dir=folder / "made").tasks
    return task


def read(task: SuiteTask, *, chat_template: bool = False) -> TaskContent:
    return read_task(task, MANAGER, chat_template=chat_template)


def prompts(task: SuiteTask) -> list[str]:
    """What is asked, in the order it is asked in."""
    parts = read_parts(load_tasks(task, MANAGER))
    found = [
        (place.position, parts[name].documents[number]["prompt"].strip())
        for name, places in placed_in(parts, 0, None).items()
        for number, place in places.items()
    ]
    return [prompt for _, prompt in sorted(found)]


SAME: dict[str, Callable[[list[Line]], list[Line]]] = {
    "as it is": lambda lines: lines,
    "reversed": lambda lines: lines[::-1],
    "other ids": lambda lines: [line | {"id": f"x{9 * line['id']}"} for line in lines],
    "no ids": lambda lines: [{k: v for k, v in line.items() if k != "id"} for line in lines],
    "another column": lambda lines: [line | {"source": f"book {line['id']}"} for line in lines],
    "case, blanks and marks": lambda lines: [
        line | {"prompt": f" {line['prompt'].upper().replace(' ', '  ')}? "} for line in lines
    ],
}


@pytest.mark.parametrize("lines", [GENERATED, CHOSEN], ids=["generated", "multiple choice"])
@pytest.mark.parametrize("change", SAME)
def test_what_is_the_same_task_asked_in_the_same_order(
    tmp_path: Path, lines: list[Line], change: str
) -> None:
    one, other = jsonl(tmp_path / "one", lines), jsonl(tmp_path / "other", SAME[change](lines))
    first, second = read(one), read(other)
    assert first == second
    assert (first.documents, first.copies, len(set(first.document_hashes))) == (60, 0, 60)
    asked = [" ".join(text.lower().replace("?", "").split()) for text in prompts(other)]
    assert asked == [text.lower().replace("?", "") for text in prompts(one)]


def test_ten_names_are_one_task_in_one_order(tmp_path: Path) -> None:
    tasks = [jsonl(tmp_path / str(number), GENERATED, f"name{number}") for number in range(10)]
    contents = [read(task) for task in tasks]
    assert len({content.task for content in contents}) == 10
    assert len({content.content_sha256 for content in contents}) == 1
    assert len({tuple(prompts(task)) for task in tasks}) == 1
    family = tasks[0].model_copy(update={"family": Family.CODE})
    assert read(family) == contents[0]


def test_a_tenth_less_moves_no_two_others(tmp_path: Path) -> None:
    whole, less = jsonl(tmp_path / "one", GENERATED), jsonl(tmp_path / "two", GENERATED[6:])
    left = {line["prompt"] for line in GENERATED[6:]}
    assert prompts(less) == [prompt for prompt in prompts(whole) if prompt in left]
    first, second = read(whole), read(less)
    assert first.content_sha256 != second.content_sha256
    assert len(set(first.document_hashes) & set(second.document_hashes)) == 54


def test_five_copies_with_a_blank_behind_them_count_once(tmp_path: Path) -> None:
    copies = [
        {"prompt": line["prompt"] + " " * blanks, "answer": line["answer"]}
        for line in GENERATED
        for blanks in range(5)
    ]
    content = read(jsonl(tmp_path, copies))
    assert (content.documents, content.copies) == (60, 240)
    assert content.content_sha256 == read(jsonl(tmp_path / "once", GENERATED)).content_sha256
    assert len(prompts(jsonl(tmp_path, copies))) == 60


OTHER: dict[str, Callable[[list[Line]], list[Line]]] = {
    "another digit": lambda lines: [lines[0] | {"prompt": "How much is 1 + 0?"}, *lines[1:]],
    "another answer": lambda lines: [lines[0] | {"answer": "7"}, *lines[1:]],
    "a document more": lambda lines: [*lines, {"prompt": "How much is 99 - 1?", "answer": "98"}],
}


@pytest.mark.parametrize("change", OTHER)
def test_another_question(tmp_path: Path, change: str) -> None:
    one, other = jsonl(tmp_path / "one", GENERATED), jsonl(tmp_path / "two", OTHER[change](GENERATED))
    assert read(one).content_sha256 != read(other).content_sha256


def test_choices_count_in_their_order_and_with_what_is_right(tmp_path: Path) -> None:
    turned = [line | {"choices": line["choices"][::-1], "answer": 1 - line["answer"]} for line in CHOSEN]
    wrong = [line | {"answer": 1 - line["answer"]} for line in CHOSEN]
    tasks = [jsonl(tmp_path / str(number), lines) for number, lines in enumerate((CHOSEN, turned, wrong))]
    assert len({read(task).content_sha256 for task in tasks}) == 3
    by_text = [line | {"answer": line["choices"][line["answer"]]} for line in CHOSEN]
    assert read(jsonl(tmp_path / "text", by_text)).content_sha256 == read(tasks[0]).content_sha256


YAML = """task: NAME
dataset_path: json
dataset_kwargs: {data_files: {test: DATA, train: DATA}}
test_split: test
fewshot_split: train
doc_to_text: prompt
doc_to_target: answer
output_type: generate_until
generation_kwargs: {until: ["\\n"], max_gen_toks: 8}
filter_list:
  - {name: one, filter: [{function: take_first}]}
  - {name: two, filter: [{function: regex, regex_pattern: '([0-9]+)'}, {function: take_first}]}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
  - {metric: bleu, aggregation: mean, higher_is_better: true}
"""


def yaml_task(folder: Path, text: str = YAML, name: str = "own", **settings: Any) -> SuiteTask:
    folder.mkdir()
    lines = "".join(json.dumps(line) + "\n" for line in GENERATED)
    (folder / f"{name}.data.jsonl").write_text(lines)
    text = text.replace("NAME", name).replace("DATA", f"{name}.data.jsonl")
    (folder / f"{name}.yaml").write_text(text)
    return SuiteTask(task=name, path=str(folder), metric="exact_match", **settings)


def test_a_filter_counts_by_its_steps_and_not_by_its_name(tmp_path: Path) -> None:
    plain = read(yaml_task(tmp_path / "a"))
    renamed = YAML.replace("name: one", "name: whole").replace("{{prompt}}", "prompt")
    assert read(yaml_task(tmp_path / "b", renamed, "other")).content_sha256 == plain.content_sha256


HOW: dict[str, tuple[str, dict[str, Any]]] = {
    "filter": (YAML, {"filter": "two"}),
    "filter's pattern": (YAML.replace("[0-9]+", "[0-9]"), {"filter": "two"}),
    "metric's settings": (YAML.replace("exact_match,", "exact_match, ignore_case: true,"), {}),
    "examples": (YAML, {"num_fewshot": 2}),
    "examples, the first": (YAML + "fewshot_config: {sampler: first_n}\n", {"num_fewshot": 2}),
    "tokens": (YAML, {"max_gen_toks": 9}),
    "temperature": (YAML.replace("max_gen_toks: 8", "max_gen_toks: 8, temperature: 0.5"), {}),
    "thinking": (YAML, {"thinking_end": "</think>"}),
    "description": (YAML + "description: Be brief.\n", {}),
    "template": (YAML.replace("doc_to_text: prompt", "doc_to_text: 'Say {{prompt}}'"), {}),
}


def test_how_it_is_asked_and_scored_counts(tmp_path: Path) -> None:
    plain = yaml_task(tmp_path / "plain")
    asked = {name: yaml_task(tmp_path / name, text, **more) for name, (text, more) in HOW.items()}
    contents = [read(task).content_sha256 for task in (plain, *asked.values())]
    contents.append(read(plain, chat_template=True).content_sha256)
    assert len(set(contents)) == len(HOW) + 2


def test_documents_that_a_task_cannot_render_count_by_their_columns_but_the_id(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(
        "seen = []\ndef text(doc):\n    seen.append(doc)\n    assert len(seen) == 1\n    return doc['prompt']\n"
    )
    text = YAML.replace("doc_to_text: prompt", f"doc_to_text: !function {tmp_path}/code.text")
    folder = tmp_path / "task"
    task = yaml_task(folder, text.replace(f"{tmp_path}/code", "code"))
    (tmp_path / "code.py").rename(folder / "code.py")
    content = read(task)
    assert (content.documents, content.copies) == (60, 0)


@pytest.mark.parametrize(
    ("questions", "floor"),
    [
        ([Question("q", ["a", "b", "c", "d"], "a", (0,)), Question("r", ["e", "f"], "f", (1,))], 0.5),
        ([Question(str(n), ["yes", "no"], "yes", (0,)) for n in range(3)], 1.0),
        ([Question(str(n), [f"{n}", "no"][:: 1 if n % 2 else -1], "no", (n % 2,)) for n in range(8)], 1.0),
        ([Question(str(n), list("abcd"), ["a", "b"], (0, 1)) for n in range(2)], 1.0),
        ([Question(str(n), [f"{n}{c}" for c in "abcd"], f"{n}a", (n % 4,)) for n in range(8)], 0.25),
        ([Question("q", None, "a"), None], 0.0),
        ([], 0.0),
    ],
)
def test_the_score_of_an_answer_that_ignores_the_question(
    questions: list[Question | None], floor: float
) -> None:
    assert floor_of(questions) == floor


def test_a_suite_declares_the_floor_of_generated_answers(tmp_path: Path) -> None:
    task = jsonl(tmp_path, GENERATED)
    declared = task.model_copy(update={"floor": 0.3})
    assert (read(task).floor, read(declared).floor) == (0.0, 0.3)
    contents = [suite_content(Suite(name="s", tasks=(one,)))["tasks"][0] for one in (task, declared)]
    assert "floor" not in contents[0]
    assert contents[1] == contents[0] | {"floor": 0.3}


def test_no_demo_task_has_copies_or_clusters_or_loses_its_kind_of_test() -> None:
    suites = [load_yaml(file, Suite) for file in (ROOT / "configs" / "suites").glob("*.yaml")]
    own = [task for suite in suites for task in suite.tasks if task.path is not None]
    local = {task.task: task for task in own if all(source.data for source in sources_of(task))}
    assert {"qg_demo_cloze", "qg_demo_arithmetic", "qg_demo_chain"} <= local.keys()
    for task in local.values():
        content = read(task)
        parts = read_parts(load_tasks(task, MANAGER))
        keys = [place.key for places in placed_in(parts, 0, None).values() for place in places.values()]
        assert (content.documents, content.copies, len(keys)) == (1000, 0, 1000)
        assert {(key.cluster, key.stratum) for key in keys} == {(None, None)}, "so the exact test decides"
    assert read(local["qg_demo_cloze"]).floor == pytest.approx(0.25, abs=0.03)


def test_many_near_copies_are_counted_and_share_a_cluster(tmp_path: Path) -> None:
    plain = (
        "the same long story of a fox, a river and a boat is told once more by an old man from the town of"
    )
    lines: list[Line] = [
        {"id": f"near-{n}", "prompt": f"{plain} {town}?", "answer": "fox"}
        for n, town in enumerate(("Ulm", "Bonn", "Trier", "Mainz"))
    ]
    task = jsonl(tmp_path, lines + GENERATED[:9])
    content = read(task)
    assert (content.documents, content.near_copies, content.near_clusters) == (13, 4, 4)
    parts = read_parts(load_tasks(task, MANAGER))
    clusters = [
        place.key.cluster for places in placed_in(parts, 0, None).values() for place in places.values()
    ]
    assert [name is not None for name in clusters] == [True] * 4 + [False] * 9
    assert len({name for name in clusters if name}) == 1
    alone = read(jsonl(tmp_path / "alone", GENERATED))
    assert (alone.near_copies, alone.near_clusters) == (0, 0)
