"""What is checked and made absolute before a run goes to another host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.fleet.submit import pool_of, prepare
from flows.parameters import PublishMode, ValidateParameters
from quantgate.model.config.fleet import FleetFile
from quantgate.model.errors import ConfigError
from quantgate.model.home import Home

FLEET = FleetFile.model_validate(
    {
        "pools": {
            "cpu": {"gpu": "cpu"},
            "fast": {"gpu": "h100", "simulated_by": "cpu", "engine": "vllm-cpu"},
            "l40s-a": {"gpu": "l40s"},
            "l40s-b": {"gpu": "l40s"},
        },
        "matrix": {"models": ["quantgate-demo"]},
    }
)


def test_a_pool_is_found_by_its_gpu_or_its_name() -> None:
    assert pool_of(FLEET, "h100") == "fast"
    assert pool_of(FLEET, "fast") == "fast"
    assert pool_of(FLEET, "l40s-b") == "l40s-b"
    with pytest.raises(ConfigError, match="Did you mean 'h100'"):
        pool_of(FLEET, "h10")
    with pytest.raises(ConfigError, match="Name one: l40s-a, l40s-b"):
        pool_of(FLEET, "l40s")


def test_the_pools_own_parameters_and_the_runs() -> None:
    sent = prepare(FLEET, "h100", ValidateParameters(model="quantgate-demo", limit=7), Home.current())
    assert sent.pool == "fast"
    assert sent.parameters.limit == 7
    assert (sent.parameters.gpu, sent.parameters.engine) == ("cpu", "vllm-cpu")
    assert sent.parameters.afterwards is PublishMode.FLEET
    assert any("its rows say gpu=cpu" in note for note in sent.notes)
    own = prepare(FLEET, "h100", ValidateParameters(model="quantgate-demo", engine="vllm"), Home.current())
    assert own.parameters.engine == "vllm"


def test_what_is_wrong_is_told_before_it_is_sent() -> None:
    for wrong, told in (
        (ValidateParameters(model="quantgate-dem"), "quantgate-demo"),
        (ValidateParameters(model="quantgate-demo", policy="dem"), "demo"),
        (ValidateParameters(model="quantgate-demo", tasks=["nothing-like-it"]), "nothing-like-it"),
        (ValidateParameters(model="quantgate-demo", precisions=["fp7"]), "fp7"),
    ):
        with pytest.raises(ConfigError, match=told):
            prepare(FLEET, "h100", wrong, Home.current())


def test_a_relative_path_is_made_absolute_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    monkeypatch.chdir(tmp_path)
    sent = prepare(
        FLEET,
        "h100",
        ValidateParameters(
            model="quantgate-demo", tasks=["mine.jsonl", "gsm8k"], family="math", policy="demo"
        ),
        Home.current(),
    )
    assert sent.parameters.tasks == [str(tmp_path / "mine.jsonl"), "gsm8k"]
    assert any("same path" in note and str(tmp_path) in note for note in sent.notes)


def test_the_files_of_a_suite_are_told_too(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"prompt": "a", "answer": "b"}\n')
    suite = tmp_path / "own.yaml"
    suite.write_text("name: own\ntasks:\n  - {task: mine, path: mine.jsonl, family: math}\n")
    asked = ValidateParameters(model="quantgate-demo", tasks=[str(suite)], policy="demo")
    (note, *_) = prepare(FLEET, "h100", asked, Home.current()).notes
    assert note.startswith("must have the same path on the hosts of pool fast: ")
    assert {str(suite), str(tmp_path / "mine.jsonl")} <= set(note.partition("fast: ")[2].split(", "))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"engine": "nosuch"}, "nothing is called 'nosuch'"),
        ({"engine": "vlm"}, "Did you mean 'vllm'"),
        ({"engine_arguments": {"host": "x"}}, "'host' is set by Quantgate"),
        ({"engine_arguments": {"tensor_parallel_size": "abc"}}, "tensor-parallel-size"),
        ({"engine_arguments": {"lora-modules": {"a": "./nowhere"}}}, "no such folder"),
        ({"engine_arguments": {"speculative-config": 3}}, "is not a map"),
    ],
)
def test_engine_and_arguments_are_checked_before_they_are_sent(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        prepare(FLEET, "h100", ValidateParameters(model="quantgate-demo", **given), Home.current())


def test_arguments_are_checked_where_the_checkpoints_are_elsewhere() -> None:
    wrong = ValidateParameters(
        baseline="/there/BF16", candidates=["/there/FP8"], tasks=["demo"], engine_arguments={"port": 1}
    )
    with pytest.raises(ConfigError, match="'port' is set by Quantgate"):
        prepare(FLEET, "h100", wrong, Home.current())


def test_another_pools_engine_is_not_this_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTGATE_ENGINE", "not-one-of-there")
    sent = prepare(FLEET, "l40s-a", ValidateParameters(model="quantgate-demo"), Home.current())
    assert sent.parameters.engine is None, "its hosts say"


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ({"a": "x"}, {"a": "{}/x"}),
        ({"name": "path", "path": "./x"}, {"name": "path", "path": "{}/x"}),
        ([{"a": "x"}], [{"a": "{}/x"}]),
        ("a=x", "a={}/x"),
    ],
)
def test_an_adapter_is_sent_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, sent: Any
) -> None:
    adapter = tmp_path / "x"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"r": 8}')
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    arguments = {"lora_modules": value, "max-model-len": 512}
    parameters = ValidateParameters(model="quantgate-demo", engine_arguments=arguments)
    done = prepare(FLEET, "h100", parameters, Home.current())
    there = json.loads(json.dumps(sent).replace("{}", str(tmp_path)))
    assert done.parameters.engine_arguments == {"lora-modules": there, "max-model-len": 512}
    assert any("same path" in note and str(adapter) in note for note in done.notes)


def test_other_files_of_arguments_are_sent_by_their_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    monkeypatch.chdir(tmp_path)
    arguments = {
        "chat-template": "chat.jinja",
        "generation-config": "auto",
        "speculative-config.model": "/there/draft",
    }
    parameters = ValidateParameters(model="quantgate-demo", engine_arguments=arguments)
    done = prepare(FLEET, "h100", parameters, Home.current())
    assert done.parameters.engine_arguments == {
        "chat-template": str(tmp_path / "chat.jinja"),
        "generation-config": "auto",
        "speculative-config": {"model": "/there/draft"},
    }
    assert any("so only the pool's hosts check it: /there/draft" in note for note in done.notes)
    text = ValidateParameters(model="quantgate-demo", engine_arguments={"chat-template": "{{ messages }}"})
    own = prepare(FLEET, "h100", text, Home.current())
    assert own.parameters.engine_arguments == {"chat-template": "{{ messages }}"}


def test_what_only_the_host_has_is_left_to_it() -> None:
    sent = prepare(
        FLEET,
        "h100",
        ValidateParameters(
            baseline="/there/BF16", candidates=["/there/FP8", "org/name"], tasks=["demo"], policy="demo"
        ),
        Home.current(),
    )
    assert sent.parameters.candidates == ["/there/FP8", "org/name"]
    assert any("so only the pool's hosts check it: /there/BF16, /there/FP8" in note for note in sent.notes)


def test_the_digest_is_of_what_is_measured_not_of_its_name_alone(tmp_path: Path) -> None:
    """Two commands with one digest are one run, so a question that was edited between them has to change it."""
    questions = tmp_path / "mine.jsonl"
    asked = ValidateParameters(model="quantgate-demo", tasks=[str(questions)], family="math", policy="demo")

    def digest(text: str, parameters: ValidateParameters = asked, gpu: str = "h100") -> str:
        questions.write_text(text)
        return prepare(FLEET, gpu, parameters, Home.current()).digest

    first = digest('{"prompt": "a", "answer": "b"}\n')
    assert digest('{"prompt": "a", "answer": "b"}\n') == first
    others = [
        digest('{"prompt": "a", "answer": "c"}\n'),
        digest('{"prompt": "a", "answer": "b"}\n', asked.model_copy(update={"limit": 1})),
        digest('{"prompt": "a", "answer": "b"}\n', gpu="l40s-a"),
    ]
    assert len({first, *others}) == 4
