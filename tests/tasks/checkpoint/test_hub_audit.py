"""Checkpoints of configs/models held against a hub on this machine: every finding is one line."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from quantgate.model.config.architectures import ModelConfigKeys
from quantgate.model.config.models import CheckpointConfig, load_models
from quantgate.model.home import ROOT
from tasks.checkpoint.hub_audit import CheckpointStatus, HubAudit, Report
from tasks.checkpoint.retry import Patience
from tests.support.hub_server import Fault, HubServer
from tests.support.tiny_checkpoints import REST, Q, checkpoint_files, write_checkpoint
from warehouse.architectures import read_shapes

SHORT = Patience(tries=2, first_wait_s=0.01)
REPO = "acme/tiny-7B-NVFP4"
NVFP4 = {"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}}
SHAPE = ModelConfigKeys(
    hidden_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=64, intermediate_size=256
)
LAYOUT = {
    f"{Q}.weight": ("U8", (128, 64)),
    f"{Q}.weight_scale": ("F8_E4M3", (128, 8)),
    f"{Q}.weight_scale_2": ("F32", ()),
    **REST,
}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token and no setting of the developer's own."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.constants.HF_STORED_TOKENS_PATH", str(tmp_path / "none either"))


def check(
    source: str = REPO,
    precision: str | None = "nvfp4",
    *,
    revision: str | None = None,
    gated: bool = False,
    shape: ModelConfigKeys | None = SHAPE,
    pins: dict[str, str] | None = None,
) -> Report:
    checkpoint = CheckpointConfig(source=source, precision=precision, revision=revision, gated=gated)
    report = HubAudit(pins or {}, SHORT).check(checkpoint, shape)
    assert report.line.startswith(f"{source}: ")
    assert "\n" not in report.line
    return report


def test_a_checkpoint_as_declared_is_one_line_of_facts(hub: HubServer) -> None:
    files = checkpoint_files(LAYOUT, hf_quant=NVFP4, num_hidden_layers=2)
    sha = hub.add(REPO, files)
    report = check()
    assert report == Report(
        CheckpointStatus.OK, f"{REPO}: 0.0 GB, {sha[:12]} is main, LlamaForCausalLM, nvfp4 (modelopt:NVFP4)"
    )
    assert hub.downloaded() == {"config.json", "hf_quant_config.json"}, "no weights"


def test_main_that_moved_since_the_pin_is_noted(hub: HubServer) -> None:
    old = hub.add(REPO, checkpoint_files(LAYOUT, hf_quant=NVFP4))
    new = hub.add(REPO, checkpoint_files())
    for report in (check(revision=old), check(pins={REPO: old})):
        assert report.status is CheckpointStatus.NOTE
        assert f"{old[:12]} pinned" in report.line
        assert report.line.endswith(f"; main has moved to {new[:12]} since")
    assert check(revision=new, precision="bf16", pins={REPO: old}).status is CheckpointStatus.OK, (
        "the file's own pin counts"
    )


def test_another_precision_than_declared_is_a_problem(hub: HubServer) -> None:
    hub.add(REPO, checkpoint_files())
    report = check()
    assert report.status is CheckpointStatus.PROBLEM
    assert report.line.endswith("bf16 (unquantized); declared as nvfp4, but its files say bf16")


def test_another_model_is_noticed_by_its_shape(hub: HubServer) -> None:
    hub.add(REPO, checkpoint_files(LAYOUT, hf_quant=NVFP4, num_hidden_layers=4))
    report = check()
    assert report.status is CheckpointStatus.PROBLEM
    assert "config.json has num_hidden_layers 4, configs/architectures 2" in report.line
    experts = SHAPE.model_copy(update={"num_experts": 8})
    hub.add(REPO, checkpoint_files(LAYOUT, hf_quant=NVFP4, text_config={"n_routed_experts": 16}))
    assert "config.json has num_experts 16, configs/architectures 8" in check(shape=experts).line


def test_two_configurations_that_disagree_are_noted(hub: HubServer) -> None:
    fp8 = {"quantization": {"quant_algo": "FP8"}}
    own = {"quant_method": "modelopt", "quant_algo": "NVFP4"}
    hub.add(REPO, checkpoint_files(LAYOUT, hf_quant=fp8, quantization=own))
    report = check()
    assert report.status is CheckpointStatus.NOTE
    assert "hf_quant_config.json says modelopt:FP8" in report.line


@pytest.mark.parametrize(
    ("repository", "declared", "told"),
    [
        (None, {}, "the hub shows no such repository (HTTP 404)"),
        ({"gated": True}, {}, "gated, and no token is set (HTTP 403)"),
        ({"token": "hf_right"}, {}, "the hub shows no such repository (HTTP 401)"),
        ({}, {"revision": "0" * 40}, "it has no such revision any more. Pin another commit"),
    ],
)
def test_what_the_hub_refuses_is_a_problem_in_one_line(
    hub: HubServer, repository: dict[str, Any] | None, declared: dict[str, Any], told: str
) -> None:
    if repository is not None:
        hub.add(REPO, checkpoint_files(LAYOUT, hf_quant=NVFP4), **repository)
    report = check(**declared)
    assert report.status is CheckpointStatus.PROBLEM
    assert told in report.line


def test_a_token_that_is_refused_is_a_problem_and_stays_unsaid(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO, checkpoint_files(LAYOUT, hf_quant=NVFP4), token="hf_right")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    report = check()
    assert report == Report(
        CheckpointStatus.PROBLEM, f"{REPO}: the hub refused the token (HTTP 401). Renew HF_TOKEN or unset it"
    )
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert check().status is CheckpointStatus.OK


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("model.safetensors", "no weights (*.safetensors)"),
        ("tokenizer.json", "no tokenizer"),
        ("config.json", "no config.json"),
    ],
)
def test_a_repository_that_cannot_be_served_is_a_problem(hub: HubServer, missing: str, told: str) -> None:
    files = checkpoint_files(LAYOUT, hf_quant=NVFP4)
    del files[missing]
    hub.add(REPO, files)
    report = check()
    assert report.status is CheckpointStatus.PROBLEM
    assert told in report.line


def test_config_json_that_states_no_dtype_leaves_it_to_the_pull(hub: HubServer) -> None:
    hub.add(REPO, checkpoint_files(dtype=None))
    report = check(precision="bf16")
    assert report.status is CheckpointStatus.NOTE
    assert report.line.endswith("config.json doesn't state its dtype: the weights show it at the pull")


def test_without_a_network_nothing_is_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    round_of_checks = HubAudit({})
    for _ in range(2):
        report = round_of_checks.check(CheckpointConfig(source=REPO), None)
        assert report.status is CheckpointStatus.UNREACHED
        assert report.line.startswith(f"{REPO}: not checked: the hub can't be reached (")
        monkeypatch.setattr(round_of_checks.api, "model_info", None)


def test_offline_nothing_is_asked(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert check() == Report(CheckpointStatus.UNREACHED, f"{REPO}: not checked: HF_HUB_OFFLINE is set")
    assert hub.requests == []


def test_a_local_folder_is_checked_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = write_checkpoint(tmp_path / "tiny", checkpoint_files(LAYOUT, hf_quant=NVFP4))
    report = check(str(folder))
    assert report.status is CheckpointStatus.OK
    assert report.line.endswith("GB, a local folder, LlamaForCausalLM, nvfp4 (modelopt:NVFP4)")
    assert "declared as fp8, but its files say nvfp4" in check(str(folder), "fp8").line
    (folder / "model.safetensors").write_bytes(b"\0" * 4)
    assert check(str(folder)).status is CheckpointStatus.PROBLEM


def test_a_source_that_is_neither_is_a_problem() -> None:
    report = check("demo/checkpoints/quantgate-demo-BF")
    assert report.status is CheckpointStatus.PROBLEM
    assert "no such folder" in report.line


CARD = {"license": "other", "license_name": "open-model-license"}


class Gate(BaseHTTPRequestHandler):
    """A repository as the hub gates it: what it is anybody may see, its files only who accepted the terms."""

    protocol_version = "HTTP/1.1"
    gated: Any = "auto"
    status = 200
    files = checkpoint_files(LAYOUT, hf_quant=NVFP4)

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        status, headers, body = self.status, {"X-Repo-Commit": "a" * 40, "ETag": f'"{name}"'}, b""
        if self.path.startswith("/api/models/"):
            siblings = [{"rfilename": name, "size": 2_000_000_000} for name in self.files]
            info = {"id": REPO, "sha": "a" * 40, "gated": self.gated, "cardData": CARD, "siblings": siblings}
            body = json.dumps(info).encode()
        elif self.headers.get("Authorization") != "Bearer hf_accepted":
            status, headers = 401, {"X-Error-Code": "GatedRepo"}
        else:
            body = self.files[name]
        self.send_response(status)
        for header, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield monkeypatch
    server.shutdown()
    server.server_close()
    thread.join()


def test_gating_is_held_against_what_is_declared(gate: pytest.MonkeyPatch) -> None:
    gate.setenv("HF_TOKEN", "hf_accepted")
    granted = check(gated=True)
    assert granted.status is CheckpointStatus.OK
    assert granted.line == (
        f"{REPO}: 10.0 GB, aaaaaaaaaaaa is main, license open-model-license, gated, access granted, "
        "LlamaForCausalLM, nvfp4 (modelopt:NVFP4)"
    )
    undeclared = check()
    assert undeclared.status is CheckpointStatus.PROBLEM
    assert undeclared.line.endswith("; the hub gates it: write 'gated: true' in its file")
    gate.setattr(Gate, "gated", False)
    assert check(gated=True).status is CheckpointStatus.NOTE
    assert check(gated=True).line.endswith("; declared as gated, but the hub does not gate it")


def test_a_gate_that_is_closed_says_what_is_missing(gate: pytest.MonkeyPatch) -> None:
    report = check(gated=True)
    assert report.status is CheckpointStatus.PROBLEM
    assert "; gated, and no token is set (HTTP 401). Accept its terms on the hub" in report.line
    gate.setenv("HF_TOKEN", "hf_another")
    assert "; gated, and the token may not read it (HTTP 401)" in check(gated=True).line


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_is_busy_is_noted(gate: pytest.MonkeyPatch, status: int) -> None:
    gate.setattr(Gate, "status", status)
    report = check()
    assert report == Report(
        CheckpointStatus.NOTE, f"{REPO}: not checked: the hub answered HTTP {status}. Try again later"
    )


def test_a_hiccup_is_waited_for(hub: HubServer) -> None:
    hub.add(REPO, checkpoint_files(LAYOUT, hf_quant=NVFP4, num_hidden_layers=2))
    hub.faults = [Fault("/api/models/", status=429), Fault("/config.json", status=503)]
    assert check().status is CheckpointStatus.OK


def test_a_saved_login_is_never_used(
    gate: pytest.MonkeyPatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("hf_accepted")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    assert "gated, and no token is set (HTTP 401)" in check(gated=True).line


PUBLISHED: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "deepseek-ai/DeepSeek-R1": (
        "fp8 (fp8:block)",
        {
            "architectures": ["DeepseekV3ForCausalLM"],
            "hidden_size": 7168,
            "num_hidden_layers": 61,
            "num_attention_heads": 128,
            "intermediate_size": 18432,
            "n_routed_experts": 256,
            "torch_dtype": "bfloat16",
            "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
        },
        None,
    ),
    "nvidia/Llama-4-Scout-17B-16E-Instruct-NVFP4": (
        "nvfp4 (modelopt:NVFP4)",
        {
            "architectures": ["Llama4ForConditionalGeneration"],
            "text_config": {
                "hidden_size": 5120,
                "num_hidden_layers": 48,
                "num_attention_heads": 40,
                "intermediate_size": 8192,
                "num_local_experts": 16,
            },
        },
        {
            "quantization": {
                "quant_algo": "NVFP4",
                "group_size": 16,
                "exclude_modules": ["*router*", "*vision*"],
            }
        },
    ),
    "Qwen/Qwen3-30B-A3B-GPTQ-Int4": (
        "int4 (gptq)",
        {
            "architectures": ["Qwen3MoeForCausalLM"],
            "hidden_size": 2048,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "intermediate_size": 6144,
            "num_experts": 128,
            "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128},
        },
        None,
    ),
    "google/gemma-3-27b-it": (
        "bf16 (unquantized)",
        {
            "architectures": ["Gemma3ForConditionalGeneration"],
            "text_config": {
                "hidden_size": 5376,
                "num_hidden_layers": 62,
                "num_attention_heads": 32,
                "intermediate_size": 21504,
            },
            "torch_dtype": "bfloat16",
        },
        None,
    ),
}
"""What publishers' config.json and hf_quant_config.json say, as far as it is compared."""


@pytest.mark.parametrize("source", PUBLISHED)
def test_published_configurations_are_what_the_project_declares(hub: HubServer, source: str) -> None:
    said, config, hf_quant = PUBLISHED[source]
    files = checkpoint_files(hf_quant=hf_quant) | {"config.json": json.dumps(config).encode()}
    hub.add(source, files)
    ((model, checkpoint),) = [
        (model, one) for model in load_models().values() for one in model.checkpoints if one.source == source
    ]
    shape = read_shapes(ROOT / "configs").architectures[str(model.architecture)].config
    report = HubAudit({}).check(checkpoint, shape)
    assert report.status is CheckpointStatus.OK, report.line
    assert report.line.endswith(f"{config['architectures'][0]}, {said}")
