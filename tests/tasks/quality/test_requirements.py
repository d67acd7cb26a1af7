from __future__ import annotations

from pathlib import Path

import pytest

from quantgate.model.config.suites import Suite, SuiteTask
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import load_yaml
from tasks.quality import requirements
from tasks.quality.requirements import check_packages, permitted
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
