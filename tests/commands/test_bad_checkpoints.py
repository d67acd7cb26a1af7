"""Checkpoints that can't be validated: one line, exit status 2, no engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantgate.model.home import ROOT
from tests.support import prefect_server
from tests.support.command import quantgate
from tests.support.fake_engine import make
from tests.support.hub_server import Fault, HubServer
from tests.support.tiny_checkpoints import PLAIN, REST, Q, checkpoint_files, safetensors, write_checkpoint

BASELINE = str(ROOT / "demo" / "checkpoints" / "quantgate-demo-BF16")
TOKEN = "hf_planted0123456789abcdef"
FP8 = checkpoint_files(
    {f"{Q}.weight": ("F8_E4M3", (128, 128)), f"{Q}.weight_scale": ("F32", ()), **REST},
    quantization={"quant_method": "modelopt", "quant_algo": "FP8"},
)
TRUNCATED = FP8 | {"model.safetensors": FP8["model.safetensors"][:-100]}
WITHOUT_TOKENIZER = {name: content for name, content in FP8.items() if not name.startswith("tokenizer")}
PICKLED = {name: content for name, content in FP8.items() if name != "model.safetensors"} | {
    "pytorch_model.bin": safetensors(PLAIN)
}
CODE = checkpoint_files(auto_map={"AutoConfig": "configuration_new.NewConfig"}, model_type="new")


@dataclass
class Case:
    """One bad input, and what is said of it."""

    says: str
    source: str = ""
    model: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    free_bytes: int | None = None
    """Whether it takes a hub, and so the flow, to find out."""

    def arguments(self) -> list[str]:
        """Of the command."""
        if self.model:
            return ["validate", self.model]
        return ["validate", "--baseline", BASELINE, "--candidate", self.source, "--tasks", "demo"]


LOCAL = {
    "unknown model": Case("configs/models: nothing is called 'tinny'. Did you mean 'tiny'?", model="tinny"),
    "no folder": Case(
        "{local}/truncatd: no such folder. Did you mean '{local}/truncated'?",
        "{local}/truncatd",
    ),
    "truncated": Case("{local}/truncated: model.safetensors is truncated: ", "{local}/truncated"),
    "no tokenizer": Case(
        "{local}/no-tokenizer: no tokenizer (tokenizer.json, tokenizer.model or a vocabulary). Put the base model's",
        "{local}/no-tokenizer",
    ),
    "pickled": Case(
        "{local}/pickled: pickle weights only (pytorch_model.bin), which can run code when they are loaded. Convert",
        "{local}/pickled",
    ),
    "code": Case(
        "{local}/code: needs code of its own (auto_map in config.json, model_type 'new'). Give a conversion",
        "{local}/code",
    ),
    "declared otherwise": Case(
        "{local}/fp8: declared as nvfp4, but the files hold fp8 (modelopt:FP8). Declare fp8, or give another",
        model="tiny",
    ),
}
HUB = {
    "unknown id": Case(
        "acme/none: neither a folder here nor a repository the hub shows (HTTP 404). Check the id;",
        "acme/none",
    ),
    "unknown revision": Case(
        "acme/fp8@v9: the repository has no revision 'v9' (HTTP 404). Give a branch, a tag or a commit",
        "acme/fp8@v9",
    ),
    "gated": Case(
        "acme/gated: the hub grants no access to this gated repository (HTTP 403). Accept its terms on the hub, and",
        "acme/gated",
    ),
    "private without a token": Case(
        "acme/private: neither a folder here nor a repository the hub shows (HTTP 401). Check the id; for a private "
        "repository set HF_TOKEN.",
        "acme/private",
    ),
    "a stale token": Case(
        "acme/private: the hub refused (HTTP 401). Renew HF_TOKEN or unset it.",
        "acme/private",
        environment={"HF_TOKEN": TOKEN + "stale"},
    ),
    "a token that is echoed": Case(
        "acme/echo: the hub refused (HTTP 403). Renew HF_TOKEN or unset it.",
        "acme/echo",
        environment={"HF_TOKEN": TOKEN},
    ),
    "a model declared otherwise": Case(
        "acme/fp8: declared as nvfp4, but the files hold fp8 (modelopt:FP8). Declare fp8, or give another checkpoint.",
        model="tiny-hub",
    ),
    "a truncated upload": Case("acme/truncated: model.safetensors is truncated: ", "acme/truncated"),
    "an upload without tokenizer": Case(
        "acme/no-tokenizer: no tokenizer (tokenizer.json,", "acme/no-tokenizer"
    ),
    "pickle weights": Case(
        "acme/pickled: pickle weights only (pytorch_model.bin), which can", "acme/pickled"
    ),
    "code of its own": Case("acme/code: needs code of its own (auto_map in config.json, ", "acme/code"),
    "no disk": Case(
        "acme/big: pulling it takes 0.00 GB (and 1 GB to spare), but 0.10 GB are free in {cache}. Free some space "
        "there, or set HF_HOME to a folder on a larger disk.",
        "acme/big",
        free_bytes=100_000_000,
    ),
    "offline": Case(
        "acme/big: not a folder here, and not in the hub's cache while HF_HUB_OFFLINE is set. Unset HF_HUB_OFFLINE",
        "acme/big",
        environment={"HF_HUB_OFFLINE": "1"},
    ),
    "no hub": Case(
        "acme/never: not a folder here, and pulling it from the hub failed ([Errno 111] Connection refused). Check the",
        "acme/never",
        environment={"HF_ENDPOINT": "http://127.0.0.1:9"},
    ),
}
CASES = LOCAL | HUB


@dataclass
class Place:
    """Where the commands ran, and how each ended."""

    home: Path
    names: dict[str, str]
    ended: dict[str, dict[str, Any]]
    hub: HubServer


def write_model(folder: Path, name: str, source: str) -> None:
    model = {
        "name": name,
        "baseline": {"source": BASELINE, "precision": "bf16"},
        "candidates": [{"source": source, "precision": "nvfp4"}],
        "suite": "demo",
        "workload": "demo",
        "policy": "demo",
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(model))


def fill(hub: HubServer) -> None:
    for name, files in {
        "fp8": FP8,
        "big": FP8 | {"generation_config.json": b"{}"},
        "truncated": TRUNCATED,
        "no-tokenizer": WITHOUT_TOKENIZER,
        "pickled": PICKLED,
        "code": CODE,
        "echo": FP8,
    }.items():
        hub.add(f"acme/{name}", files)
    hub.add("acme/gated", FP8, gated=True)
    hub.add("acme/private", FP8, token=TOKEN)
    echo = {"X-Error-Message": "no: {token}", "X-Error-Code": "{token}", "X-HF-Warning": "auth; {token}"}
    hub.faults = [Fault("acme/echo", times=99, status=403, headers=echo, body=TOKEN.encode())]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, prefect_database: Path) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("bad")
    prefect_server.place(prefect_database, folder / "home" / "prefect")
    local, models = folder / "local", folder / "models"
    for name, files in {
        "truncated": TRUNCATED,
        "no-tokenizer": WITHOUT_TOKENIZER,
        "pickled": PICKLED,
        "code": CODE,
        "fp8": FP8,
    }.items():
        write_checkpoint(local / name, files)
    write_model(models, "tiny", str(local / "fp8"))
    write_model(models, "tiny-hub", "acme/fp8")
    names = {"local": str(local), "cache": str(folder / "cache")}
    engines = folder / "engine"
    engines.mkdir()
    with HubServer() as hub:
        fill(hub)
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PREFECT_"))
        } | {
            "QUANTGATE_HOME": str(folder / "home"),
            "QUANTGATE_ENGINES_FILE": str(make(engines, "dies")),
            "QUANTGATE_LOCKS": str(folder / "locks"),
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_CACHE": str(folder / "cache"),
            "TEST_MODELS": str(models),
        }
        asked = [
            {
                "arguments": [argument.format(**names) for argument in case.arguments()],
                "environment": case.environment,
                **({} if case.free_bytes is None else {"free_bytes": case.free_bytes}),
            }
            for case in CASES.values()
        ]
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.all_commands"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            env=environment,
            cwd=ROOT,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        yield Place(folder / "home", names, dict(zip(CASES, json.loads(done.stdout), strict=True)), hub)


@pytest.mark.parametrize("name", CASES)
def test_a_bad_checkpoint_is_one_line_and_status_2_before_an_engine(place: Place, name: str) -> None:
    case, ended = CASES[name], place.ended[name]
    assert (ended["status"], ended["out"]) == (2, ""), ended
    *progress, last = ended["err"].splitlines()
    assert last.startswith(f"quantgate: {case.says.format(**place.names)}")
    assert not ended["server"], "it is reported before a Prefect server starts"
    assert progress == [] or name in {"a truncated upload"}, progress
    assert "Traceback" not in ended["err"]


def test_no_engine_was_started_and_no_token_is_anywhere(place: Place) -> None:
    assert [path.name for path in (place.home / "logs").iterdir()] == ["prefect-server.log"]
    for ended in place.ended.values():
        assert TOKEN not in ended["err"] + ended["out"]
    held = [
        path
        for root in (place.home, Path(place.names["cache"]))
        for path in root.rglob("*")
        if path.is_file()
    ]
    assert len(held) > 5
    assert not [path for path in held if TOKEN.encode() in path.read_bytes()]
    assert place.hub.leaks == []


def test_what_is_refused_by_name_or_configuration_was_not_downloaded(place: Place) -> None:
    fetched = {path for method, path in place.hub.requests if method == "GET" and path.startswith("/acme/")}
    names = {(path.split("/")[2], path.split("/")[5]) for path in fetched}
    assert ("truncated", "model.safetensors") in names
    assert {file for repo, file in names if repo in {"fp8", "code"}} == {
        "config.json",
        "tokenizer_config.json",
    }
    assert not {repo for repo, _ in names} & {"pickled", "no-tokenizer", "gated", "private", "big"}


def test_the_real_command_says_the_same(home: Path, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "truncated", TRUNCATED)
    done = quantgate("validate", "--baseline", BASELINE, "--candidate", str(folder), "--tasks", "demo")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"quantgate: {folder}: model.safetensors is truncated: ")
    assert done.err.count("\n") == 1
    assert not (home / "prefect").exists()
