from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from quantgate.bundles.manifest import TaskResult
from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.errors import ConfigError, RunError
from tasks.quality.evaluate import Evaluation, _environment, _failure, evaluate_task
from tasks.quality.sources import suite_from
from tasks.quality.suite import check_suite
from tests.tasks.engine.test_process import SECRETS, plant
from tests.tasks.quality.test_suite import folder, suite_of

__all__ = ["folder"]


@pytest.fixture
def own(tmp_path: Path) -> Suite:
    path = tmp_path / "own.jsonl"
    lines = [{"id": i, "prompt": f"w{i} w1", "answer": "w1 w2"} for i in range(20)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return suite_from([str(path)], family=None, limit=None, out_dir=tmp_path / "made")


@pytest.fixture
def evaluation(completions: Any, tokenizer_folder: Path, own: Suite) -> Evaluation:
    return Evaluation(
        task=own.tasks[0], engine=completions.endpoint(), tokenizer=str(tokenizer_folder), timeout_s=60
    )


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    return {
        "out_dir": tmp_path / "staging" / "own",
        "log": tmp_path / "logs" / "own.log",
        "on_progress": lambda *_: None,
    }


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_task_is_evaluated_in_a_process_of_its_own(
    evaluation: Evaluation,
    files: dict[str, Any],
    engine_key: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    stale = files["out_dir"]
    stale.mkdir(parents=True)
    (stale / "result.json").write_text("{}")
    told: list[tuple[int, int | None]] = []
    result = evaluate_task(evaluation, **files | {"on_progress": lambda *t: told.append(t)})
    assert isinstance(result, TaskResult)
    assert (result.documents, result.mean_score, result.engine_start_id) == (20, 1.0, "start-1")
    assert told[-1] == (20, 20)
    assert left_in(stale.parent) == ["own"]
    assert left_in(stale) == ["prompts.parquet", "result.json", "samples.parquet"]
    assert pq.read_table(stale / "samples.parquet").num_rows == 20
    assert engine_key not in files["log"].read_text()


def test_code_in_the_worker_sees_no_secret(
    folder: Path,
    evaluation: Evaluation,
    files: dict[str, Any],
    completions: Any,
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
    changed = {"task": suite_of(folder).tasks[0], "trust_remote_code": True}
    result = evaluate_task(evaluation.model_copy(update=changed), **files)
    assert result.documents == 1
    seen = json.loads((folder / "seen.json").read_text())
    assert not [name for name, value in seen.items() if "planted" in value]
    assert ("OPENAI_API_KEY" in seen, seen["OMP_NUM_THREADS"]) == (False, "2")


def test_the_hubs_token_is_for_data_of_a_hub_and_never_beside_a_checkpoints_code(
    folder: Path, evaluation: Evaluation, engine_key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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
        changed = {"task": task, "trust_remote_code": code}
        got = _environment(evaluation.model_copy(update=changed), tmp_path)
        assert {name for name in SECRETS if "planted" in got.get(name, "")} == names
        assert got["OPENAI_API_KEY"] == engine_key
        assert ("HF_ALLOW_CODE_EVAL" in got) == task.run_generated_code


def test_an_evaluation_that_hangs_is_stopped_in_time(
    evaluation: Evaluation, completions: Any, files: dict[str, Any]
) -> None:
    completions.fault = "hang"
    with pytest.raises(RunError, match="lm-eval task own: did not end within 4 s") as raised:
        evaluate_task(evaluation.model_copy(update={"timeout_s": 4}), **files)
    assert str(files["log"]) in str(raised.value)
    assert left_in(files["out_dir"].parent) == []


def test_an_engine_that_died_is_told_by_its_own_last_words(
    evaluation: Evaluation, completions: Any, files: dict[str, Any]
) -> None:
    def dead() -> None:
        raise RunError("the engine ended with status 9")

    with pytest.raises(RunError, match="the engine ended with status 9"):
        evaluate_task(
            evaluation.model_copy(update={"engine": completions.endpoint(check_alive=dead)}), **files
        )
    assert left_in(files["out_dir"].parent) == []


def test_the_workers_reason_comes_through_with_its_log(
    evaluation: Evaluation, completions: Any, files: dict[str, Any]
) -> None:
    other = evaluation.model_copy(update={"engine": completions.endpoint(served_model="other")})
    with pytest.raises(RunError, match="own: the engine serves served, not other") as raised:
        evaluate_task(other, **files)
    assert str(raised.value).endswith(f"Its log: {files['log']}")
    assert left_in(files["out_dir"].parent) == []


def test_a_mistake_in_the_task_stays_one_of_usage(own: Suite, tmp_path: Path) -> None:
    failure = {"what": "holds no documents", "where": "t.yaml", "hint": "Give it some.", "exit_status": 2}
    (tmp_path / "failure.json").write_text(json.dumps(failure))
    error = _failure(tmp_path / "failure.json", own.tasks[0], tmp_path / "log")
    assert isinstance(error, ConfigError)
    assert str(error) == "t.yaml: holds no documents. Give it some."


@pytest.mark.parametrize(("key", "name"), [("filter_list", "name"), ("metric_list", "metric")])
def test_a_list_where_a_name_belongs_is_one_line(tmp_path: Path, key: str, name: str) -> None:
    (tmp_path / "d.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    (tmp_path / "t.yaml").write_text(
        "task: named\ndataset_path: json\ndataset_kwargs: {data_files: {test: d.jsonl}}\ntest_split: test\n"
        'doc_to_text: "{{prompt}}"\ndoc_to_target: "{{answer}}"\n' + f"{key}: [{{{name}: [a, b]}}]\n"
    )
    suite = suite_from([str(tmp_path / "t.yaml")], family=None, limit=None, out_dir=tmp_path)
    with pytest.raises(ConfigError, match=rf"key '{key}': '{name}' is no name .*Write one name as text"):
        check_suite(suite)
