"""What is checked and made absolute before a run goes to another host."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.declaration import Afterwards, ValidateParameters
from flows.submit import pool_of, prepare
from quantgate.model.errors import ConfigError
from quantgate.model.fleet import FleetFile
from quantgate.model.home import Home

FLEET = FleetFile.model_validate(
    {
        "pools": {
            "cpu": {"gpu": "cpu"},
            "fast": {"gpu": "h100", "simulated_by": "cpu", "engine": "cpu"},
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
    assert (sent.parameters.gpu, sent.parameters.engine) == ("cpu", "cpu")
    assert sent.parameters.afterwards is Afterwards.FLEET
    assert any("its rows say gpu=cpu" in note for note in sent.notes)
    own = prepare(FLEET, "h100", ValidateParameters(model="quantgate-demo", engine="vllm"), Home.current())
    assert own.parameters.engine == "vllm"


def test_what_is_wrong_is_told_before_it_is_sent() -> None:
    for wrong, told in (
        (ValidateParameters(model="quantgate-dem"), "quantgate-demo"),
        (ValidateParameters(model="quantgate-demo", policy="dem"), "demo"),
        (ValidateParameters(model="quantgate-demo", tasks="nothing-like-it"), "nothing-like-it"),
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
        ValidateParameters(model="quantgate-demo", tasks="mine.jsonl", family="math", policy="demo"),
        Home.current(),
    )
    assert sent.parameters.tasks == str(tmp_path / "mine.jsonl")
    assert any("same place" in note and str(tmp_path) in note for note in sent.notes)


def test_what_only_the_host_has_is_left_to_it() -> None:
    sent = prepare(
        FLEET,
        "h100",
        ValidateParameters(
            baseline="/there/BF16", candidates=["/there/FP8", "org/name"], tasks="demo", policy="demo"
        ),
        Home.current(),
    )
    assert sent.parameters.candidates == ["/there/FP8", "org/name"]
    assert any("checked there only: /there/BF16, /there/FP8" in note for note in sent.notes)
