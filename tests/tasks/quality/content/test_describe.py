"""What a suite asks is read before any engine starts: once, in processes of its own, and never in a run's way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.enums import Family
from quantgate.model.errors import RunError
from quantgate.model.home import Home
from quantgate.model.records import TaskContent
from tasks.engine.process import run_tied
from tasks.progress import Reporter
from tasks.quality.content import describe
from tasks.quality.evaluate import Evaluation, evaluate_task
from tasks.quality.sources import suite_from
from tasks.quality.suite import suite_content


class Reading:
    """Descriptions in the home of the test, and the processes that were started for them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.started: list[dict[str, Any]] = []
        self.told: list[str] = []
        self.fails = ""
        patch.setattr(describe, "run_tied", self._run)

    def _run(self, command: list[str], **settings: Any) -> str:
        tasks = json.loads(Path(command[3]).read_text())["tasks"]
        self.started.append(settings | {"tasks": [task["task"] for task in tasks]})
        if self.fails:
            raise RunError(self.fails, where="lm-eval's tasks")
        return run_tied(command, **settings)

    def of(self, *tasks: SuiteTask, chat_template: bool = False) -> dict[str, TaskContent]:
        suite = Suite(name="s", tasks=tasks, task_timeout_s=60)
        content = suite_content(suite, chat_template=chat_template)
        report = Reporter(self.told.append)
        return describe.describe_suite(suite, content, Home.current(), report, chat_template=chat_template)


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Reading:
    return Reading(monkeypatch)


def own(folder: Path, name: str, count: int = 20, copies: int = 0) -> SuiteTask:
    lines = [{"prompt": f"w{n} w1", "answer": "w1 w2"} for n in range(count)]
    lines += [{"prompt": f"W{n}  w1 ", "answer": "w1 w2"} for n in range(copies)]
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return suite_from([str(path)], family=Family.MATH, limit=None, out_dir=folder / "made").tasks[0]


def yaml_task(folder: Path, name: str, text: str) -> SuiteTask:
    (folder / f"{name}.yaml").write_text(f"task: {name}\ntest_split: test\n{text}")
    return SuiteTask(task=name, path=str(folder))


BROKEN = (
    "dataset_path: json\ndataset_kwargs: {data_files: {test: one.jsonl}}\n"
    "doc_to_text: '{{no}}'\ndoc_to_target: x\n"
)


def test_a_suite_is_read_by_one_process_once_and_says_what_is_left_out(
    tmp_path: Path, reading: Reading
) -> None:
    (tmp_path / "one.jsonl").write_text('{"q": 1}\n')
    tasks = (own(tmp_path, "sums"), yaml_task(tmp_path, "broken", BROKEN), own(tmp_path, "twice", copies=5))
    contents = reading.of(*tasks)
    assert list(contents) == ["sums", "twice"]
    assert [one["tasks"] for one in reading.started] == [["sums", "broken", "twice"]]
    assert contents["sums"].content_sha256 == contents["twice"].content_sha256
    assert [(one.documents, one.copies, one.floor) for one in contents.values()] == [
        (20, 0, 0.0),
        (20, 5, 0.0),
    ]
    broken, copies = reading.told
    assert broken.startswith("validate: what broken asks is not known before it is measured: lm-eval failed:")
    assert "\n" not in broken
    assert copies == (
        "validate: twice: 5 documents left out, equal to others but for case, blanks or punctuation"
    )
    kept = (tasks[0], tasks[2])
    assert reading.of(*kept) == contents
    assert len(reading.started) == 1, "the home holds them"
    assert not list((Home.current().path / "task-contents").glob(".*")), "nothing is left of the process"
    other = reading.of(*kept, chat_template=True)
    assert other["sums"].content_sha256 != contents["sums"].content_sha256
    reading.of(own(tmp_path, "sums", count=21))
    assert len(reading.started) == 3, "another file is another content"


def test_what_a_home_holds_of_another_version_is_read_again(tmp_path: Path, reading: Reading) -> None:
    contents = reading.of(own(tmp_path, "sums"))
    (file,) = (Home.current().path / "task-contents").glob("*.json")
    file.write_text('{"task": "sums"')
    assert reading.of(own(tmp_path, "sums")) == contents
    assert len(reading.started) == 2


def test_a_process_that_fails_is_one_line_a_task(tmp_path: Path, reading: Reading) -> None:
    reading.fails = "did not end within 60 s;\n the last words"
    assert reading.of(own(tmp_path, "sums"), own(tmp_path, "more")) == {}
    assert reading.told == [
        f"validate: what {name} asks is not known before it is measured: lm-eval's tasks: did not end within 60 s; "
        "the last words"
        for name in ("sums", "more")
    ]
    assert reading.started[0]["timeout_s"] == 60


def test_local_data_never_share_a_process_with_the_hubs_token(
    tmp_path: Path, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    reading.fails = "not tried"
    hub = yaml_task(tmp_path, "hub", "dataset_path: someone/data\ndoc_to_text: q\ndoc_to_target: a\n")
    code = hub.model_copy(update={"run_generated_code": True})
    reading.of(own(tmp_path, "sums"), hub, own(tmp_path, "more"))
    reading.of(code)
    local, fetched, runs_code = reading.started
    assert [one["tasks"] for one in reading.started] == [["sums", "more"], ["hub"], ["hub"]]
    assert local["environment"]["HF_HUB_OFFLINE"] == "1"
    assert [one["environment"].get("HF_TOKEN") for one in reading.started] == [None, "hf_secret", None]
    assert "HF_HUB_OFFLINE" not in fetched["environment"]
    assert runs_code["environment"]["HF_ALLOW_CODE_EVAL"] == "1"


def test_whoever_evaluates_a_task_records_the_same(
    tmp_path: Path, reading: Reading, completions: Any, tokenizer_folder: Path
) -> None:
    task = own(tmp_path, "twice", copies=5)
    planned = reading.of(task)["twice"]
    evaluation = Evaluation(
        task=task, engine=completions.endpoint(), tokenizer=str(tokenizer_folder), timeout_s=60, end=8
    )
    result = evaluate_task(
        evaluation, out_dir=tmp_path / "out", log=tmp_path / "log", on_progress=lambda *_: None
    )
    assert (result.documents, result.documents_available) == (8, planned.documents)
    assert (result.content_sha256, result.copies, result.floor) == (
        planned.content_sha256,
        planned.copies,
        planned.floor,
    )


def test_what_nearly_equals_another_is_said_before_the_run(tmp_path: Path, reading: Reading) -> None:
    task = own(tmp_path, "near", count=30)
    story = "an old man of the town says that the fox has taken the boat over the river to"
    with (tmp_path / "near.jsonl").open("a") as file:
        for place in ("ulm", "bonn"):
            file.write(json.dumps({"prompt": f"{story} {place}", "answer": "so"}) + "\n")
    task = suite_from([str(tmp_path / "near.jsonl")], family=Family.MATH, limit=None, out_dir=tmp_path).tasks[
        0
    ]
    reading.of(task)
    assert reading.told == [
        "validate: near: 2 documents (6.2 %) nearly equal to another; they count as documents of their own"
    ]
