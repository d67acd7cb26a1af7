from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.enums import Family
from quantgate.model.errors import ConfigError
from tasks.quality.sources import group_of, sources_of, suite_from
from tasks.quality.suite import check_suite, suite_content
from tasks.quality.task_yaml import Function

TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}
test_split: test
doc_to_text: prompt
doc_to_target: answer
num_fewshot: 1
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1.5}}
"""


def write_task(folder: Path, name: str, documents: int = 2, more: str = "", **replaced: str) -> None:
    text = TASK.format(name=name)
    for old, new in replaced.items():
        text = text.replace(old, new)
    (folder / f"{name}.yaml").write_text(text + more)
    lines = [json.dumps({"prompt": f"{name} {number}", "answer": "w1"}) for number in range(documents)]
    (folder / f"{name}.jsonl").write_text("\n".join(lines))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A group of a task, of a group of two, and of what carries a tag."""
    folder = tmp_path / "tasks"
    (folder / "deep").mkdir(parents=True)
    for name, documents in (("law", 3), ("physics", 2), ("algebra", 4)):
        write_task(folder, name, documents)
    (folder / "deep" / "_base_yaml").write_text("tag: [arts, other]\n")
    write_task(folder / "deep", "music", 5, "include: _base_yaml\n")
    write_task(folder / "deep", "dance", 1, "tag: arts\n")
    (folder / "science.yaml").write_text("group: science\ntask: [physics, algebra]\nnum_fewshot: 3\n")
    (folder / "all.yaml").write_text(
        "group: subjects\ntask:\n  - law\n  - {group: science, repeats: 2}\n  - arts\n  - physics\n"
        "aggregate_metric_list: [{metric: exact_match, weight_by_size: true}]\nmetadata: {version: 4}\n"
    )
    return folder


def subjects(folder: Path, **settings: object) -> SuiteTask:
    return SuiteTask.model_validate({"task": "subjects", "path": str(folder)} | settings)


def test_a_group_is_flattened_in_its_order_and_each_task_once(folder: Path) -> None:
    sources = sources_of(subjects(folder))
    assert [source.name for source in sources] == ["law", "physics", "algebra", "dance", "music"]
    settings = {
        source.name: (source.config["num_fewshot"], source.config.get("repeats")) for source in sources
    }
    assert settings == {
        "law": (1, None),
        "physics": (3, 2),
        "algebra": (3, 2),
        "dance": (1, None),
        "music": (1, None),
    }
    assert [source.overrides for source in sources][:2] == [{}, {"num_fewshot": 3, "repeats": 2}]
    (folder / "science.yaml").write_text("group: science\ntask: [{task: physics, num_fewshot: 9}, algebra]\n")
    shots = sources_of(subjects(folder, num_fewshot=0))
    assert {source.config["num_fewshot"] for source in shots} == {0}, "the suite has the last word"
    group = group_of(subjects(folder))
    assert group is not None
    assert group["metadata"] == {"version": 4}
    assert group_of(SuiteTask(task="law", path=str(folder))) is None


def test_a_group_written_within_another(folder: Path) -> None:
    (folder / "all.yaml").write_text(
        "group: subjects\nrepeats: 5\ntask:\n"
        "  - {group: inner, num_fewshot: 2, task: [law, {task: physics, repeats: 3}]}\n"
    )
    sources = sources_of(subjects(folder))
    assert [(one.name, one.config["num_fewshot"], one.config["repeats"]) for one in sources] == [
        ("law", 2, 5),
        ("physics", 2, 3),
    ]


def test_a_group_by_its_path_is_one_task_of_a_suite(folder: Path, tmp_path: Path) -> None:
    suite = suite_from([str(folder / "all.yaml")], family=Family.KNOWLEDGE, limit=None, out_dir=tmp_path)
    assert suite.tasks == (subjects(folder, family=Family.KNOWLEDGE),)
    assert check_suite(suite) == {"subjects": 15}
    assert check_suite(suite.model_copy(update={"limit": 7})) == {"subjects": 7}


def test_what_a_group_measures_changes_with_every_subtask(folder: Path) -> None:
    suite = Suite(name="s", tasks=(subjects(folder),))
    first = suite_content(suite)
    (task,) = first["tasks"]
    assert task["version"] == "4"
    assert task["subtasks"] == dict.fromkeys(["law", "physics", "algebra", "dance", "music"], "1.5")
    (folder / "deep" / "music.jsonl").write_text('{"prompt": "a", "answer": "b"}')
    second = suite_content(suite)
    assert second["tasks"][0]["sha256"] != task["sha256"]
    assert {**second["tasks"][0], "sha256": ""} == {**task, "sha256": ""}
    shots = suite_content(Suite(name="s", tasks=(subjects(folder, num_fewshot=2, documents=15),)))
    assert shots["tasks"] == [second["tasks"][0] | {"num_fewshot": 2}], "how many there are is no question"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("group: subjects\ntask: [law, zqxv]\n", "all.yaml: its member 'zqxv' is nowhere. Name tasks"),
        ("group: subjects\ntask: [subjects]\n", "all.yaml: contains itself. Break the circle"),
        ("group: subjects\ntask: []\n", "all.yaml: is a group without tasks"),
        ("group: subjects\ntask: [law, chosen]\n", "subjects: its subtasks are scored differently: law has"),
        (
            "group: subjects\ntask: [law, perplexed]\n",
            "law has exact_match of filter none (generate_until); ",
        ),
        ("group: subjects\ntask: [law, filtered]\n", "filtered has exact_match of filter short"),
        (
            "group: subjects\ntask: [law, arc_challenge]\n",
            "arc_challenge has acc of filter none (multiple_choice)",
        ),
    ],
)
def test_what_is_wrong_in_a_group_is_one_line(folder: Path, text: str, told: str) -> None:
    write_task(
        folder, "chosen", generate_until="x", more="output_type: multiple_choice\ndoc_to_choice: [a, b]\n"
    )
    write_task(folder, "perplexed", exact_match="acc")
    write_task(folder, "filtered", more="filter_list: [{name: short, filter: [{function: take_first}]}]\n")
    (folder / "all.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        check_suite(Suite(name="s", tasks=(subjects(folder),)))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_suites_metric_and_filter_hold_for_every_subtask(folder: Path) -> None:
    write_task(folder, "two", more="filter_list: [{name: a, filter: []}, {name: b, filter: []}]\n")
    write_task(folder, "other", more="filter_list: [{name: b, filter: []}, {name: c, filter: []}]\n")
    (folder / "all.yaml").write_text("group: subjects\ntask: [two, other]\n")
    assert check_suite(Suite(name="s", tasks=(subjects(folder, filter="b"),))) == {"subjects": 4}
    with pytest.raises(ConfigError, match=r"two\.yaml: has no metric 'acc'\. It has: exact_match"):
        check_suite(Suite(name="s", tasks=(subjects(folder, filter="b", metric="acc"),)))


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("mmlu", 57, "mmlu_abstract_algebra"),
        ("mmlu_pro", 14, "mmlu_pro_biology"),
        ("leaderboard_bbh", 24, "leaderboard_bbh_boolean_expressions"),
        ("bbh", 27, "bbh_cot_fewshot_boolean_expressions"),
        ("ruler", 13, "niah_single_1"),
    ],
)
def test_groups_of_lm_evals(name: str, count: int, first: str) -> None:
    """The counts are lm-eval's own (0.4.13)."""
    task = SuiteTask(task=name, family=Family.KNOWLEDGE)
    sources = sources_of(task)
    assert (len(sources), sources[0].name) == (count, first)
    assert len({source.name for source in sources}) == count
    (content,) = suite_content(Suite(name="s", tasks=(task,)))["tasks"]
    assert list(content["subtasks"]) == [source.name for source in sources]


def test_a_function_that_a_group_lays_over_its_members_is_named(folder: Path) -> None:
    (folder / "all.yaml").write_text("group: subjects\ntask: [law]\nprocess_docs: !function own.docs\n")
    (folder / "own.py").write_text("raise SystemExit('this must not run')\n")
    (source,) = sources_of(subjects(folder))
    assert source.overrides["process_docs"] == Function(folder / "own.docs")
    assert folder / "own.py" in source.files
