from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import yaml

from quantgate.model.config.suites import Suite
from quantgate.model.enums import Family
from quantgate.model.errors import ConfigError
from tasks.quality import sources
from tasks.quality.sources import jsonl_files, sources_of, suite_from
from tasks.quality.suite import check_suite, suite_content
from tasks.quality.task_yaml import Function, read_source

TASK = """task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl}}
test_split: test
doc_to_text: prompt
doc_to_target: answer
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "colours.yaml").write_text(TASK)
    (tmp_path / "colours.jsonl").write_text('{"prompt": "sky?", "answer": "blue"}\n')
    return tmp_path


@pytest.fixture
def suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "suites"
    folder.mkdir()
    suite = {"name": "nightly", "tasks": [{"task": "gsm8k", "family": "math"}], "limit": 50}
    (folder / "nightly.yaml").write_text(yaml.safe_dump(suite))
    monkeypatch.setattr(sources, "SUITES", folder)
    return folder


def test_a_suite_by_name_with_its_limit_or_ours(
    suites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nightly").mkdir()  # a folder of that name is no task
    monkeypatch.chdir(tmp_path)
    suite = suite_from(["nightly"], family=None, limit=None, out_dir=tmp_path)
    assert [(task.task, task.family) for task in suite.tasks] == [("gsm8k", Family.MATH)]
    assert suite.limit == 50
    assert suite_from(["nightly"], family=None, limit=7, out_dir=tmp_path).limit == 7
    assert suite_from([str(suites / "nightly.yaml")], family=None, limit=None, out_dir=tmp_path) == suite
    with pytest.raises(ConfigError, match=r"a suite names its families itself\. Leave --family out"):
        suite_from(["nightly"], family=Family.CODE, limit=None, out_dir=tmp_path)


def test_a_task_of_lm_evals_by_name(tmp_path: Path) -> None:
    suite = suite_from(["gsm8k"], family=Family.MATH, limit=3, out_dir=tmp_path)
    assert suite.name == "gsm8k"
    assert suite.tasks[0].model_dump() == {
        "task": "gsm8k",
        "path": None,
        "family": Family.MATH,
        "metric": None,
        "filter": None,
        "num_fewshot": None,
        "max_gen_toks": None,
        "thinking_end": None,
        "run_generated_code": False,
        "documents": 1319,
        "clusters": None,
        "fixed_subjects": False,
        "floor": None,
    }
    (source,) = sources_of(suite.tasks[0])
    assert source.config["dataset_path"] == "openai/gsm8k"
    assert source.data is None
    (told,) = suite_from(["gpqa_diamond_cot_zeroshot"], family=None, limit=None, out_dir=tmp_path).tasks
    assert (told.documents, told.max_gen_toks) == (198, None), "how many it has stands in a suite"
    assert told.family is Family.SCIENCE, "and its family, unless another is named"
    (group,) = suite_from(["leaderboard_musr"], family=Family.REASONING, limit=None, out_dir=tmp_path).tasks
    assert (group.clusters, group.fixed_subjects) == (3, True), "and whether its subjects are fixed"
    foreign = suite_from(["piqa"], family=None, limit=None, out_dir=tmp_path).tasks[0]
    assert foreign.family == Family.CUSTOM


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gsm8kk", "no suite and no task of lm-eval's is called so. Did you mean 'gsm8k'"),
        ("nightli", "Did you mean 'nightly'"),
        ("zqxvzqxv", "See `.venv/bin/lm_eval ls tasks`"),
        (
            "gsm8k, mine.jsonl",
            "several are named at once. Repeat the option: --tasks gsm8k --tasks mine.jsonl.",
        ),
        ("no/such", "no such file"),
        ("gone.yaml", "gone.yaml: no such file"),
        ("gone.jsonl", "gone.jsonl: no such file"),
    ],
)
def test_a_name_that_is_none_suggests_near_ones(suites: Path, tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        suite_from([name], family=None, limit=None, out_dir=tmp_path)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_suites_files_and_names_make_one_suite(suites: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"prompt": "a", "answer": "b"}\n')
    together = partial(suite_from, family=Family.KNOWLEDGE, limit=9, out_dir=tmp_path / "made")
    suite = together(["nightly", str(mine), "piqa"])
    assert suite.name == "nightly+mine+piqa"
    families = [("gsm8k", Family.MATH), ("mine", Family.KNOWLEDGE), ("piqa", Family.KNOWLEDGE)]
    assert [(task.task, task.family) for task in suite.tasks] == families
    assert suite.limit == 9
    assert together([str(mine)]).tasks == suite.tasks[1:2], "the same task as alone"
    with pytest.raises(ConfigError, match=r"tasks nightly\+gsm8k: task 'gsm8k' is listed twice"):
        together(["nightly", "gsm8k"])
    with pytest.raises(ConfigError, match=r"differ in 'limit'\. Give one for all of them with --limit"):
        together(["nightly", "piqa"], limit=None)


@pytest.mark.parametrize(("texts", "chosen"), [((None, "a.txt"), "a.txt"), (("a.txt", "b.txt"), None)])
def test_suites_agree_on_one_fidelity_text(
    suites: Path, tmp_path: Path, texts: tuple[str | None, ...], chosen: str | None
) -> None:
    for task, text in zip(("piqa", "gsm8k"), texts, strict=True):
        suite = {"name": task, "tasks": [{"task": task}], "fidelity": text, "task_timeout_s": len(task)}
        (suites / f"{task}.yaml").write_text(yaml.safe_dump(suite))
    if chosen is None:
        with pytest.raises(ConfigError, match="differ in 'fidelity'"):
            suite_from(["piqa", "gsm8k"], family=None, limit=None, out_dir=tmp_path)
    else:
        read = suite_from(["piqa", "gsm8k"], family=None, limit=None, out_dir=tmp_path)
        assert (read.fidelity, read.task_timeout_s) == (chosen, 5)


def test_a_file_that_is_neither(tmp_path: Path) -> None:
    path = tmp_path / "tasks.csv"
    path.write_text("a,b\n")
    with pytest.raises(ConfigError, match=r"tasks\.csv: is neither a YAML nor a JSONL"):
        suite_from([str(path)], family=None, limit=None, out_dir=tmp_path)


def test_a_yaml_by_path_finds_its_data_beside_it(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    suite = suite_from([str(folder / "colours.yaml")], family=None, limit=None, out_dir=folder / "made")
    assert suite.tasks[0].task == "colours"
    assert suite.tasks[0].path == str(folder)
    (source,) = sources_of(suite.tasks[0])
    assert source.path == folder / "colours.yaml"
    assert source.data == {"test": (folder / "colours.jsonl",)}
    assert not (folder / "made").exists()


def test_a_jsonl_becomes_a_task_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "Own Questions.jsonl"
    path.write_text(json.dumps({"prompt": "sky?", "answer": "blue"}) + "\n")
    suite = suite_from([str(path)], family=Family.KNOWLEDGE, limit=5, out_dir=tmp_path / "made")
    assert (suite.name, suite.limit) == ("Own Questions", 5)
    task = suite.tasks[0]
    assert (task.task, task.family) == ("own_questions", Family.KNOWLEDGE)
    data = sources_of(task)[0].data
    assert data is not None
    assert data["test"][0].is_relative_to(tmp_path / "made")


def test_a_suite_names_a_jsonl_and_says_more_of_it_than_a_command_can(tmp_path: Path) -> None:
    documents = [
        {"prompt": f"{n}?", "answer": str(n), "subject": "odd" if n % 2 else "even"} for n in range(6)
    ]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, documents)))
    declared = {
        "task": "numbers",
        "path": str(tmp_path / "mine.jsonl"),
        "family": "math",
        "fixed_subjects": True,
    }
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({"name": "own", "tasks": [declared]}))
    (task,) = suite_from([str(file)], family=None, limit=None, out_dir=tmp_path / "made").tasks
    assert (task.task, task.family, task.fixed_subjects) == ("numbers", Family.MATH, True)
    assert task.clusters == 2, "odd and even, told before it runs where they aren't fixed"
    (source,) = sources_of(task)
    assert source.path.is_relative_to(tmp_path / "made")
    assert source.data is not None
    assert check_suite(Suite(name="own", tasks=(task,))) == {"numbers": 6}
    file.write_text(yaml.safe_dump({"name": "own", "tasks": [declared | {"path": "mine.jsonl"}]}))
    assert suite_from([str(file)], family=None, limit=None, out_dir=tmp_path / "made").tasks == (task,), (
        "beside it"
    )
    renamed = (tmp_path / "mine.jsonl").rename(tmp_path / "ours.jsonl")
    file.write_text(yaml.safe_dump({"name": "own", "tasks": [declared | {"path": renamed.name}]}))
    again = suite_from([str(file)], family=None, limit=None, out_dir=tmp_path / "again")
    assert suite_content(again) == suite_content(Suite(name="own", tasks=(task,))), (
        "whatever the file is called"
    )
    assert jsonl_files(file) == [renamed]
    renamed.rename(tmp_path / "mine.jsonl")
    for name, path, told in (
        ("a/b", "mine.jsonl", r"own\.yaml: key 'tasks\.0\.task': .*is a path.*\(found 'a/b'\)"),
        ("numbers", "gone.jsonl", r"own\.yaml: no such file: '.*gone\.jsonl'\. Put it beside the suite"),
        ("numbers", "~nobody/x.jsonl", r"no such file: '~nobody/x\.jsonl'"),
        ("numbers", "x" * 300 + ".jsonl", r"own\.yaml: no such file: 'x"),
        ("n" * 101, "mine.jsonl", r"can't name a JSONL's task"),
        ("numbers", "folder.jsonl", r"folder\.jsonl: can't be read"),
    ):
        (tmp_path / "folder.jsonl").mkdir(exist_ok=True)
        changed = declared | {"task": name, "path": path}
        file.write_text(yaml.safe_dump({"name": "own", "tasks": [changed]}))
        with pytest.raises(ConfigError, match=told):
            suite_from([str(file)], family=None, limit=None, out_dir=tmp_path / "made")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TASK + "doc_to_txt: prompt\n", "unknown key 'doc_to_txt'. Did you mean 'doc_to_text'?"),
        (TASK + "  wrong: [\n", "colours.yaml:7: "),
        (TASK.replace("task: colours\n", ""), "has no 'task'. Name the task"),
        ("group: colours\ntask: [zqxv, b]\n", "its member 'zqxv' is nowhere"),
        ("group: colours\ntask: []\n", "is a group without tasks"),
        ("group: colours\ntask: [colours]\n", "contains itself"),
        (TASK.replace("colours.jsonl", "gone.jsonl"), "no such data file: gone.jsonl"),
        (TASK.replace("json\n", "./data\n"), "dataset_path './data' is a folder"),
        ("- a\n", "is not a mapping of keys"),
        (TASK + "include: colours.yaml\n", "includes itself"),
        (TASK + "include: base.yaml\n", "base.yaml: no such file"),
    ],
)
def test_what_is_wrong_in_a_yaml(folder: Path, text: str, told: str) -> None:
    (folder / "colours.yaml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        suite_from([str(folder / "colours.yaml")], family=None, limit=None, out_dir=folder)
    assert told in str(raised.value)
    assert str(folder) in str(raised.value)
    assert raised.value.exit_status == 2


def test_two_yamls_of_one_name(folder: Path) -> None:
    (folder / "also.yaml").write_text(TASK)
    with pytest.raises(ConfigError, match=r"also\.yaml beside it names its task 'colours' too"):
        suite_from([str(folder / "colours.yaml")], family=None, limit=None, out_dir=folder)


def test_a_suite_whose_folder_or_task_is_not_there(folder: Path) -> None:
    task = suite_from([str(folder / "colours.yaml")], family=None, limit=None, out_dir=folder).tasks[0]
    with pytest.raises(ConfigError, match=r"no YAML there has the task 'colour'\. Did you mean 'colours'\?"):
        sources_of(task.model_copy(update={"task": "colour"}))
    with pytest.raises(ConfigError, match="no such folder"):
        sources_of(task.model_copy(update={"path": str(folder / "gone")}))


def test_includes_are_merged_and_functions_are_named_but_never_run(folder: Path) -> None:
    (folder / "code.py").write_text("raise SystemExit('this must not run')\n")
    (folder / "base").mkdir()
    (folder / "base" / "helper.py").write_text("raise SystemExit('nor this')\n")
    (folder / "base" / "base.yaml").write_text(
        "task: base\ndoc_to_text: other\noutput_type: generate_until\nprocess_docs: !function helper.docs\n"
    )
    (folder / "colours.yaml").write_text(
        TASK
        + "include: base/base.yaml\nprocess_results: !function code.score\n"
        + "doc_to_choice: !function os.path.join\n"
    )
    source = read_source(folder / "colours.yaml")
    assert source.config["task"] == "colours"
    assert source.config["doc_to_text"] == "prompt"
    assert source.config["output_type"] == "generate_until"
    assert isinstance(source.config["process_results"], Function)
    assert [str(path.relative_to(folder)) for path in source.files] == [
        "colours.yaml",
        "base/base.yaml",
        "base/helper.py",
        "code.py",
    ]


def test_data_files_may_be_several_or_elsewhere(folder: Path) -> None:
    (folder / "more.jsonl").write_text("{}\n")
    kwargs = "{data_files: {test: colours.jsonl}}"
    (folder / "colours.yaml").write_text(TASK.replace(kwargs, '{data_files: {test: "*.jsonl"}}'))
    assert read_source(folder / "colours.yaml").data == {
        "test": (folder / "colours.jsonl", folder / "more.jsonl")
    }
    (folder / "colours.yaml").write_text(TASK.replace(kwargs, "{data_files: colours.jsonl}"))
    assert read_source(folder / "colours.yaml").data == {"train": (folder / "colours.jsonl",)}
    (folder / "colours.yaml").write_text(TASK.replace(kwargs, "{data_files: {test: 'hf://x/y.jsonl'}}"))
    assert read_source(folder / "colours.yaml").data is None


def test_files_that_a_function_of_the_tasks_loads_are_its_data(folder: Path) -> None:
    (folder / "loader.py").write_text("raise SystemExit('this must not run')\n")
    (folder / "colours.yaml").write_text(
        "task: colours\ncustom_dataset: !function loader.documents\ntest_split: test\n"
        "dataset_kwargs: {data_file: colours.jsonl, kind: 3, name: colours}\ndoc_to_text: prompt\n"
    )
    source = read_source(folder / "colours.yaml")
    assert source.data == {"test": (folder / "colours.jsonl",)}
    assert [path.name for path in source.files] == ["colours.yaml", "loader.py"]


def test_every_one_of_lm_evals_tasks_is_found_without_its_index() -> None:
    names = sources._own_names()
    for name, kind in {
        "arc_challenge": "task",
        "mmlu_anatomy": "task",
        "leaderboard_gpqa_diamond": "task",
        "squadv2": "task",
        "openllm": "group",
        "mmlu": "group",
    }.items():
        assert names[name][0] == kind
        assert names[name][1].is_file()
    assert len(names) > 10_000
