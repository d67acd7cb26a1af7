"""``quantgate doctor``: the files of configs/ are read, and with --models the hub is asked about the checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands.operate.doctor import doctor
from commands.operate.doctor import models as doctor_models
from commands.operate.doctor.findings import Finding
from quantgate.model.config.models import load_model, load_models
from quantgate.model.errors import ConfigError
from tests.support.command import quantgate
from tests.support.hub_server import HubServer
from tests.support.tiny_checkpoints import checkpoint_files

DEMO = [
    ("ok", "quantgate-demo", f"demo/checkpoints/quantgate-demo-{name}") for name in ("BF16", "FP8", "NVFP4")
]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's configuration, to be edited; what it names by itself stays the project's."""
    for folder in ("models", "suites", "workloads", "architectures"):
        (tmp_path / folder).mkdir()
        for path in (doctor_models.CONFIGS / folder).glob("*.yaml"):
            (tmp_path / folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(doctor_models, "CONFIGS", tmp_path)
    return tmp_path


def test_the_command_checks_every_model_and_local_folders_need_no_hub(offline: None) -> None:
    done = quantgate("doctor", "--models")
    *lines, total, verdict = done.out.splitlines()
    models = load_models()
    assert done.status == 0, done.out + done.err
    assert verdict == "no problems"
    assert total.split(maxsplit=2)[2] == f"{len(models) - 1} of {len(models)} models not checked"
    found = [line.split(maxsplit=2) for line in lines]
    assert [tuple(line) for line in found if line[1] != "quantgate-demo"] == [
        ("note", name, "not checked: HF_HUB_OFFLINE is set")
        for name in sorted(models, key=str.casefold)
        if name != "quantgate-demo"
    ]
    demo = [
        (state, what, detail.partition(":")[0]) for state, what, detail in found if what == "quantgate-demo"
    ]
    assert demo == DEMO


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["quantgate-demo"], "doctor: models are named, but --models is not given. Add --models."),
        (["--models", "phi4"], "configs/models: nothing is called 'phi4'. Did you mean 'Phi-4'?"),
    ],
)
def test_bad_usage_is_a_configuration_error(arguments: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        doctor.command.main(arguments, standalone_mode=False)
    assert str(caught.value) == told


def test_a_named_model_is_asked_about_and_a_problem_is_status_2(
    monkeypatch: pytest.MonkeyPatch, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model("Qwen3-8B")
    with HubServer() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        shape = {"hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32}
        old = hub.add(model.baseline.source, checkpoint_files(architectures=["Qwen3ForCausalLM"], **shape))
        hub.add(model.baseline.source, checkpoint_files(**shape))
        hub.add(model.candidates[0].source, checkpoint_files(**shape))
        (home / "pins.json").write_text(
            json.dumps({model.baseline.source: {"commit": old, "pinned_at": "2026-11-01T00:00:00Z"}})
        )
        status = doctor.command.main(["--models", "Qwen3-8B"], standalone_mode=False)
    said = capsys.readouterr()
    baseline, fp8, *rest = said.out.splitlines()
    assert (status, said.err) == (2, "")
    assert baseline.startswith(
        f"note    Qwen3-8B     Qwen/Qwen3-8B: 0.0 GB, {old[:12]} pinned, Qwen3ForCausalLM"
    )
    assert "; main has moved to " in baseline
    assert fp8.startswith("problem Qwen3-8B     Qwen/Qwen3-8B-FP8: ")
    assert fp8.endswith("declared as fp8, but its files say bf16")
    missing = "the hub shows no such repository (HTTP 404). Correct the id; a private one needs HF_TOKEN"
    assert [line.rpartition(": ")[2] for line in rest] == [missing, missing, "3 problems"]


def test_damaged_pins_are_told(offline: None, home: Path) -> None:
    (home / "pins.json").write_text('{"a/b": "c"}')
    with pytest.raises(ConfigError, match=r"pins\.json: holds no pins that can be read"):
        list(doctor_models.check_models([load_model("quantgate-demo")]))


def test_the_projects_own_files_are_fine() -> None:
    findings = list(doctor_models.check_files())
    assert all(finding.state == "ok" for finding in findings)
    for folder in ("models", "suites", "workloads"):
        count = len(list((doctor_models.CONFIGS / folder).glob("*.yaml")))
        assert Finding("ok", folder, f"{count} files are valid") in findings
    assert findings[-1].what == "fleet"


FAULTS = [
    (
        "models/phi-4.yaml",
        "suite: quick",
        "suite: quik",
        "quik: no suite and no task of lm-eval's is called so",
    ),
    ("models/qwen3-8b.yaml", "workload: chat", "workload: chta", "workload: nothing is called 'chta'."),
    ("models/qwen3-32b.yaml", "policy: standard", "policy: standart", "Did you mean 'standard'?"),
    ("models/mixtral-8x7b.yaml", "precision: int4", "precision: int5", "AWQ-INT4: nothing is called 'int5'."),
    (
        "models/gemma-3-27b.yaml",
        "architecture: Gemma-3",
        "architecture: Gema-3",
        "Did you mean 'Gemma-3-27B'?",
    ),
    ("models/llama-4-scout.yaml", "policy:", "polcy:", "unknown key 'polcy'. Did you mean 'policy'?"),
    ("suites/reasoning.yaml", "family: math", "family: maths", "suites/reasoning.yaml: key 'tasks.0.family'"),
    ("workloads/short.yaml", "isl_tokens: 128", "isl_tokens: 0", "workloads/short.yaml: key 'isl_tokens'"),
]


def test_every_fault_is_a_line_that_says_what_where_and_the_mend(configs: Path) -> None:
    for file, old, new, _ in FAULTS:
        text = (configs / file).read_text()
        assert old in text
        (configs / file).write_text(text.replace(old, new))
    found = [finding for finding in doctor_models.check_files() if finding.state == "problem"]
    for file, _, _, told in FAULTS:
        folder = file.partition("/")[0]
        assert [finding for finding in found if finding.what == folder and told in finding.detail], told
    assert len(found) == len(FAULTS), "each is told once"


def test_a_fleet_that_names_no_model_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text("pools: {cpu: {gpu: cpu}}\nmatrix: {models: [Qwen3-9B]}\n")
    monkeypatch.setenv("QUANTGATE_FLEET", str(file))
    *_, last = doctor_models.check_files()
    assert last == Finding(
        "problem",
        "fleet",
        "fleet.yaml: matrix.models: nothing is called 'Qwen3-9B'. Did you mean 'Qwen3-8B'?",
    )


def test_a_shape_of_another_size_than_its_name_is_a_problem(configs: Path) -> None:
    path = configs / "architectures" / "qwen.yaml"
    path.write_text(path.read_text().replace("nominal_billions: 32", "nominal_billions: 40"))
    findings = [finding for finding in doctor_models.check_files() if finding.what == "architectures"]
    assert [finding.state for finding in findings] == ["problem"]
    assert findings[0].detail.startswith(
        "32.8 G parameters were counted, and Qwen3-32B is stated to have 40 G"
    )
