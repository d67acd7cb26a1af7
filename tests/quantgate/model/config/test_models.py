"""configs/models: what stands there is consistent, and a name that doesn't exist is answered with the nearest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from quantgate.judge.judge import check_policy
from quantgate.model.config.models import ModelConfig, load_model, load_models
from quantgate.model.config.policy import load_policy
from quantgate.model.config.suites import Suite
from quantgate.model.config.workloads import Workload
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT
from quantgate.model.yaml_file import load_yaml
from tasks.checkpoint.formats.precision import PRECISIONS
from tasks.checkpoint.hub import HUB_ID
from tasks.quality.sources import sources_of
from tasks.quality.suite import check_suite, suite_content
from tests.support.paper import paper_connection

MODELS = load_models()
HUB_MODELS = [model for model in MODELS.values() if model.name != "quantgate-demo"]
GATING = {"meta-llama": True, "google": True, "Qwen": False, "deepseek-ai": False, "microsoft": False}
"""Organizations that gate every repository listed here, or none."""


@pytest.fixture(scope="module")
def paper() -> Iterator[duckdb.DuckDBPyConnection]:
    with paper_connection() as connection:
        yield connection


def suite_of(model: ModelConfig) -> Suite:
    return load_yaml(ROOT / "configs" / "suites" / f"{model.suite}.yaml", Suite)


@pytest.fixture(params=HUB_MODELS, ids=lambda model: model.name)
def model(request: pytest.FixtureRequest) -> ModelConfig:
    found: ModelConfig = request.param
    return found


def test_the_families_are_there() -> None:
    begun = {name.partition("-")[0] for name in MODELS}
    assert begun >= {"Llama", "Mistral", "Mixtral", "DeepSeek", "Qwen3", "Phi", "Gemma"}
    assert len(HUB_MODELS) >= 20


def test_a_checkpoint_is_named_once_and_its_precision_is_one_of_the_vocabulary(model: ModelConfig) -> None:
    for one in model.checkpoints:
        identity = HUB_ID.fullmatch(one.source)
        assert identity, one.source
        assert identity["revision"] is None, "a revision has a key of its own"
        assert one.precision in PRECISIONS
        organization = one.source.partition("/")[0]
        assert GATING.get(organization, one.gated) is one.gated, one.source
        assert not one.allow.pickle
        assert not one.allow.remote_code
    precisions = [one.precision for one in model.checkpoints]
    assert len(set(precisions)) == len(precisions), "--precision chooses by it"
    assert model.baseline.precision in {"bf16", "fp8"}


def test_no_checkpoint_belongs_to_two_models() -> None:
    sources = [one.source for model in MODELS.values() for one in model.checkpoints]
    assert len(set(sources)) == len(sources)


def test_parameters_agree_with_what_the_shapes_count(
    model: ModelConfig, paper: duckdb.DuckDBPyConnection
) -> None:
    row = paper.execute(
        "SELECT parameters / 1e9, active_parameters / 1e9 FROM model_shapes WHERE model = ?",
        [model.architecture],
    ).fetchone()
    assert row, model.architecture
    assert model.parameters_billions == pytest.approx(row[0], rel=0.01)
    # Publishers round to two digits, and DeepSeek's leaves a part of the embedding out.
    assert model.active_parameters_billions == pytest.approx(row[1], rel=0.02)


def test_its_rows_find_the_shape_by_its_name(model: ModelConfig, paper: duckdb.DuckDBPyConnection) -> None:
    found = paper.execute(
        "SELECT model FROM model_names WHERE name_key = model_key(?)", [model.name]
    ).fetchall()
    assert found == [(model.architecture,)]


def test_what_it_is_held_to_exists_and_fits_its_context(model: ModelConfig) -> None:
    suite = suite_of(model)
    check_policy(model.policy, load_policy(model.policy), suite.tasks)
    workload = load_yaml(ROOT / "configs" / "workloads" / f"{model.workload}.yaml", Workload)
    context = model.engine_arguments["max-model-len"]
    assert context > workload.isl_tokens + workload.osl_tokens
    for task in suite.tasks:
        asked = [one.config.get("generation_kwargs") or {} for one in sources_of(task)]
        generated = max(one.get("max_gen_toks", 256) for one in asked)
        assert context > generated + 2048, "room for a prompt of few-shot examples"
    assert not [key for key in model.engine_arguments if "parallel" in key], "what fits where is computed"


def test_a_models_own_token_limit_and_end_of_thinking_hold_for_every_task_it_is_asked() -> None:
    suite = load_yaml(ROOT / "configs" / "suites" / "reasoning.yaml", Suite)
    model = load_models()["Qwen3-8B"]
    assert model.asked(suite) == suite
    own = model.model_copy(update={"max_gen_toks": 32768, "thinking_end": "[/THINK]"}).asked(suite)
    assert {(task.max_gen_toks, task.thinking_end) for task in own.tasks} == {(32768, "[/THINK]")}
    for task in own.tasks:
        (source,) = sources_of(task)
        settings = {"until": [], "do_sample": False, "temperature": 0.0, "max_gen_toks": 32768}
        assert source.config["generation_kwargs"] == source.overrides["generation_kwargs"] == settings
    contents = [suite_content(one)["tasks"] for one in (suite, own)]
    assert [task["thinking_end"] for task in contents[0]] == ["</think>"] * 3
    assert "max_gen_toks" not in contents[0][0]
    assert {task["max_gen_toks"] for task in contents[1]} == {32768}, "another limit is another question"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs" / "suites").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_suite_can_be_evaluated(path: Path) -> None:
    suite = load_yaml(path, Suite)
    assert suite.name == path.stem
    assert list(check_suite(suite)) == [task.task for task in suite.tasks]
    assert all(task.metric and task.filter for task in suite.tasks), "chosen in advance"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("quantgate-dmo", "Did you mean 'quantgate-demo'?"),
        ("llama-3.1-8b", "Did you mean 'Llama-3.1-8B'?"),
        ("deepseek-r1", "Did you mean 'DeepSeek-R1'?"),
        ("Lama-3.3-70B", "Did you mean 'Llama-3.3-70B'?"),
        ("gemma", "Did you mean 'Gemma-3-12B' or 'Gemma-3-27B'?"),
        ("nvidia/qwen3-8b-nvfp4", "It is a checkpoint of 'Qwen3-8B'; name that."),
        ("acme/own", "Name a checkpoint of your own with --baseline or --candidate."),
    ],
)
def test_a_name_that_is_not_there_is_answered_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_model(name)
    assert str(caught.value) == f"configs/models: nothing is called '{name}'. {hint}"


def test_a_name_like_none_of_them_is_answered_with_all() -> None:
    with pytest.raises(ConfigError, match=r"Known: DeepSeek-R1, .*quantgate-demo"):
        load_model("xyz")
