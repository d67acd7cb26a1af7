"""Code that a checkpoint brings, on its way to the engine's arguments and the run's fingerprint."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.parameters import ValidateParameters
from flows.planning.runs import resolved_checkpoints
from quantgate.model.config.models import Allowed, CheckpointConfig, load_model
from quantgate.model.home import Home
from quantgate.model.records import Checkpoint
from tasks.checkpoint.pins import Pins, pins_file, read_pins
from tasks.device.hardware import detect
from tasks.engine.argument_files import with_code
from tasks.engine.arguments import serving_arguments
from tasks.engine.environment import load_engine
from tasks.progress import Reporter
from tests.support.hub_server import HubServer
from tests.support.tiny_checkpoints import checkpoint_files

CODE = checkpoint_files(auto_map={"AutoConfig": "configuration_new.NewConfig"}, model_type="new")


class Wanted:
    """Of a declaration, what finding the checkpoints takes."""

    name = None
    model = load_model("quantgate-demo")
    hardware = detect()
    _, engine = load_engine(None, "cpu")

    def __init__(self, *checkpoints: CheckpointConfig) -> None:
        self.checkpoints = checkpoints


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def found(home: Home, *configs: CheckpointConfig) -> list[Checkpoint]:
    wanted = Wanted(*configs)
    return resolved_checkpoints(wanted, Pins(pins_file(home)), Reporter(lambda _: None))  # type: ignore[arg-type]


def test_permitted_code_is_an_argument_of_the_engine_and_others_have_none(hub: HubServer, home: Path) -> None:
    plain = CheckpointConfig(source="acme/plain", engine_arguments={"max-model-len": 64})
    sha = hub.add("acme/code", CODE | {"configuration_new.py": b""})
    pinned = hub.add("acme/plain", checkpoint_files())
    coded = CheckpointConfig(
        source="acme/code",
        revision=sha,
        allow=Allowed(remote_code=True),
        engine_arguments={"max-model-len": 64},
    )
    first, second = found(Home(home), plain, coded)
    assert (first.remote_code, second.remote_code) == (False, True)
    assert with_code(plain) == plain
    served = with_code(coded)
    assert served.engine_arguments == {"max-model-len": 64, "trust-remote-code": True}
    arguments = serving_arguments(load_engine(None, "cpu")[1], served.engine_arguments)
    assert arguments["trust-remote-code"] is True
    assert {repo: pin.commit for repo, pin in read_pins(home / "pins.json").items()} == {"acme/plain": pinned}


def test_the_form_offers_to_update_pins() -> None:
    form = ValidateParameters.model_json_schema()["properties"]["update_pins"]
    assert (form["title"], form["default"]) == ("Update pins", False)
    assert "main branch" in form["description"]
