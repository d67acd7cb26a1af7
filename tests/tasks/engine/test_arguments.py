"""Serving arguments: merged, known to the engine, and fit for the checkpoint; told before an engine is started.

The engine's interpreter is a stand-in that prints a help, or fails to.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.model.config.engines import EngineConfig
from quantgate.model.config.workloads import Workload
from quantgate.model.enums import EngineKind
from quantgate.model.errors import ConfigError
from quantgate.model.home import Home
from tasks.engine.arguments import (
    EVERY_VLLM,
    check_known,
    check_limits,
    gpu_count,
    serving_arguments,
    tokens_of,
)
from tasks.engine.environment import EngineEnvironment
from tasks.progress import Reporter
from tests.tasks.engine.test_process import plant

HELP = """usage: api_server.py [-h] [--max-model-len MAX_MODEL_LEN]
  --enable-prefix-caching, --no-enable-prefix-caching
                        Whether to.
  --max-num-seqs N, -mns N
  --max-num-batched-tokens N
"""


def engine(folder: Path, *, help_text: str = HELP, status: int = 0) -> EngineEnvironment:
    python = folder / "python"
    (folder / "help").write_text(help_text)
    python.write_text(
        f"#!/bin/sh\necho asked >> {folder}/asked\nenv > {folder}/environment\ncat {folder}/help\nexit {status}\n"
    )
    python.chmod(0o755)
    config = EngineConfig(
        description="x", kind=EngineKind.PYTHON, distribution="vllm", interpreter=str(python)
    )
    return EngineEnvironment("fake", config, python, "9.9")


def asked(folder: Path) -> int:
    file = folder / "asked"
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def own_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_ENGINES", str(tmp_path / "engines"))


def test_a_misspelt_argument_is_told_with_the_nearest(tmp_path: Path, lines: list[str]) -> None:
    found, report = engine(tmp_path), Reporter(lines.append)
    check_known(
        ["max-num-batched-tokens", "no-enable-prefix-caching", "dtype"], found, Home.current(), report
    )
    with pytest.raises(ConfigError) as caught:
        check_known(["max-num-batchd-tokens"], found, Home.current(), report)
    assert str(caught.value) == (
        "engine arguments: fake 9.9 has no argument 'max-num-batchd-tokens'. Did you mean 'max-num-batched-tokens'?"
    )
    with pytest.raises(ConfigError, match="See `vllm serve --help=all` of that version"):
        check_known(["xyzzy"], found, Home.current(), report)
    assert asked(tmp_path) == 1, "the list is kept"
    assert len([line for line in lines if line.endswith("asking for its arguments (once) …")]) == 1


def test_the_help_is_asked_for_without_secrets(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    check_known(["max-num-batched-tokens"], engine(tmp_path), Home.current(), Reporter(lines.append))
    got = (tmp_path / "environment").read_text()
    assert "planted" not in got
    assert "OMP_NUM_THREADS=2\n" in got


def test_arguments_of_every_version_ask_nothing(tmp_path: Path, lines: list[str]) -> None:
    check_known(sorted(EVERY_VLLM), engine(tmp_path), Home.current(), Reporter(lines.append))
    assert (asked(tmp_path), lines) == (0, [])


@pytest.mark.parametrize("how", [{"status": 1}, {"help_text": "9.9.9"}])
def test_an_engine_that_does_not_tell_lets_everything_through(
    tmp_path: Path, lines: list[str], how: dict[str, object]
) -> None:
    found = engine(tmp_path, **how)  # type: ignore[arg-type]
    check_known(["xyzzy"], found, Home.current(), Reporter(lines.append))
    assert asked(tmp_path) == 1


def test_a_list_that_was_spoilt_is_asked_for_anew(tmp_path: Path, lines: list[str]) -> None:
    found, report = engine(tmp_path), Reporter(lines.append)
    check_known(["max-num-batched-tokens"], found, Home.current(), report)
    (kept,) = (tmp_path / "engines").glob(".arguments-*.json")
    kept.write_text("[")
    check_known(["max-num-batched-tokens"], found, Home.current(), report)
    assert asked(tmp_path) == 2


CONFIG = EngineConfig(description="x", kind=EngineKind.PYTHON, distribution="vllm", interpreter="python")


def test_arguments_of_the_run_come_on_top() -> None:
    config = CONFIG.model_copy(update={"arguments": {"enforce-eager": True, "max-num-seqs": 32}})
    merged = serving_arguments(config, {"max-num-seqs": 8, "enforce-eager": None, "dtype": "bfloat16"})
    assert merged == {"max-num-seqs": 8, "dtype": "bfloat16"}


def test_gpus_are_counted_over_every_way_to_be_parallel() -> None:
    assert gpu_count({"max-num-seqs": 8}) == 1
    assert gpu_count({"tensor-parallel-size": 4, "pipeline-parallel-size": 2, "data-parallel-size": 2}) == 16
    for value in ("two", 0, True, 1.5):
        with pytest.raises(ConfigError, match="'tensor-parallel-size' is"):
            gpu_count({"tensor-parallel-size": value})


@pytest.mark.parametrize(
    "flag", ["host", "config", "api-key", "api_key", "--port", "served_model_name", "model"]
)
def test_flags_that_would_undo_loopback_or_the_key_are_refused(flag: str) -> None:
    with pytest.raises(ConfigError, match="is set by Quantgate"):
        serving_arguments(CONFIG, {flag: "x"})


def test_a_key_of_what_is_no_map_is_refused() -> None:
    with pytest.raises(ConfigError, match="'dtype' is not a map"):
        serving_arguments(CONFIG, {"dtype": "auto", "dtype.x": 1})


LOAD = Workload(name="w", isl_tokens=128, osl_tokens=128, concurrency=(1,))


def check(tmp_path: Path, arguments: dict[str, Any], workload: Workload | None = LOAD, **config: Any) -> str:
    """What is said, or nothing."""
    folder = tmp_path / "m"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 2048} | config))
    try:
        check_limits(arguments, folder, workload)
    except ConfigError as error:
        return str(error)
    return ""


def test_answers_must_fit_the_context_with_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 2048}))
    check_limits({"max-model-len": 1026}, tmp_path, None, ("code", 1024))
    check_limits({}, tmp_path, None, ("code", 1024))
    with pytest.raises(ConfigError, match=r"task 'code' generates up to 1024 tokens, and .* context is 512"):
        check_limits({"max-model-len": 512}, tmp_path, None, ("code", 1024))
    with pytest.raises(ConfigError, match="context is 2048"):
        check_limits({}, tmp_path, None, ("code", 2047))


@pytest.mark.parametrize(
    ("heads", "fitting"),
    [
        ({"num_attention_heads": 4}, [1, 2, 4]),
        ({"num_attention_heads": 64, "num_key_value_heads": 8}, [1, 2, 4, 8, 16, 32, 64]),
        ({"num_attention_heads": 40, "num_key_value_heads": 8}, [1, 2, 4, 8, 40]),
        ({"num_attention_heads": 12, "num_key_value_heads": 2}, [1, 2, 4, 6, 12]),
        ({"text_config": {"num_attention_heads": 6}}, [1, 2, 3, 6]),
        ({"num_attention_heads": 6, "num_key_value_heads": 4, "kv_lora_rank": 512}, [1, 2, 3, 6]),
    ],
)
def test_sizes_that_divide_the_heads(tmp_path: Path, heads: dict[str, Any], fitting: list[int]) -> None:
    most = max(fitting) + 3
    passed = [n for n in range(1, most) if not check(tmp_path, {"tensor-parallel-size": n}, **heads)]
    assert passed == fitting


def test_a_size_that_does_not_divide_says_which_do(tmp_path: Path) -> None:
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8}
    assert check(tmp_path, {"tensor-parallel-size": 3}, **heads) == (
        "engine arguments: 'tensor-parallel-size' is 3, which doesn't divide the 32 attention heads and 8 key-value "
        "heads of m. Sizes that do: 1, 2, 4, 8, 16, 32."
    )


def test_a_context_of_more_positions_than_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = (
        "engine arguments: 'max-model-len' is 2049 tokens, and m has 2048 positions. "
        "Lower it to 2048 at most, or leave it out."
    )
    assert check(tmp_path, {"max-model-len": 2049}) == told
    assert check(tmp_path, {"max-model-len": 2048}) == ""
    assert "has 2048" in check(tmp_path, {"max-model-len": "4k"}, text_config={"vocab_size": 1})
    assert check(tmp_path, {"max-model-len": 4096, "hf-overrides": {"max_position_embeddings": 4096}}) == ""
    monkeypatch.setenv("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")
    assert check(tmp_path, {"max-model-len": 4096}) == ""


@pytest.mark.parametrize(
    ("rope", "most"),
    [
        ({"rope_type": "linear", "factor": 2.0}, 4096),
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}, 4096),
        ({"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 1024}, 2048),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 256}, 2048),
        ({"rope_type": "default", "factor": 8.0}, 2048),
        ({"rope_type": "dynamic", "factor": None}, 2048),
    ],
)
def test_positions_that_rope_scales(tmp_path: Path, rope: dict[str, Any], most: int) -> None:
    for name in ("rope_scaling", "rope_parameters"):
        assert check(tmp_path, {"max-model-len": most}, **{name: rope}) == ""
        assert f"has {most} positions" in check(tmp_path, {"max-model-len": most + 1}, **{name: rope})


def test_what_cannot_be_told_is_left_to_the_engine(tmp_path: Path) -> None:
    layers = {
        "sliding_attention": {"rope_type": "default"},
        "full_attention": {"rope_type": "yarn", "factor": 8},
    }
    assert check(tmp_path, {"max-model-len": 99_999}, rope_parameters=layers) == ""
    assert check(tmp_path, {"max-model-len": 99_999}, max_position_embeddings=None) == ""


def test_a_context_too_short_for_the_workload(tmp_path: Path) -> None:
    assert check(tmp_path, {"max-model-len": 255}) == (
        "m: workload 'w' needs 256 tokens (128 in, 128 out), and the engine's context is 255. "
        "Give --engine-arg max-model-len=256 or more, or choose a shorter workload."
    )
    assert check(tmp_path, {"max-model-len": 256}) == ""
    assert check(tmp_path, {"max-model-len": 255}, workload=None) == ""
    assert "context is 200" in check(tmp_path, {}, max_position_embeddings=200)


@pytest.mark.parametrize(
    ("given", "tokens"),
    [
        (4096, 4096),
        ("32k", 32_000),
        ("32K", 32_768),
        ("1.5k", 1500),
        ("auto", None),
        (-1, None),
        (None, None),
    ],
)
def test_lengths_as_the_engine_reads_them(given: Any, tokens: int | None) -> None:
    assert tokens_of(given) == tokens


@given(st.one_of(st.text(max_size=8), st.integers(), st.floats(), st.booleans(), st.lists(st.integers())))
def test_any_length_is_read_or_refused_in_one_line(given: Any) -> None:
    try:
        tokens = tokens_of(given)
    except ConfigError as error:
        told = str(error)
    else:
        told = "'max-model-len' is fine" if tokens is None or tokens >= 0 else ""
    assert told.removeprefix("engine arguments: ").startswith("'max-model-len' is ")
    assert "\n" not in told
