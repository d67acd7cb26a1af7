"""Every kind of bad input a user can give: one line that says what, where and a hint; exit status 2, no traceback.

The command runs in this process (``in_process``), so that each case costs what it does itself.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.parameters import ValidateParameters
from flows.planning.request import declare, declare_work
from quantgate.model.enums import Family
from quantgate.model.errors import ConfigError
from quantgate.model.home import ROOT, Home
from tasks.device import hardware
from tests.commands.test_command import BASELINE, CANDIDATE, validate
from tests.support import command_in_process
from tests.support.command import Ended, quantgate
from tests.support.fake_engine import make
from tests.support.nvml_fake import Device, FakeNvml, h100

Refused = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], home: Path) -> Refused:
    """Runs ``quantgate validate`` with the demo's checkpoints and gives the one line, which must be all there is."""

    def run(*more: str, **named: str) -> str:
        ended: Ended = command_in_process.run(monkeypatch, capfd, *validate(*more, **named))
        assert ended.status == 2, ended
        assert ended.out == ""
        assert ended.err.count("\n") == 1, ended.err
        assert ended.err.startswith("quantgate: ")
        assert not (home / "prefect").exists()
        assert not (home / "staging").exists()
        return ended.err.removeprefix("quantgate: ").removesuffix("\n")

    return run


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def install(*devices: Device) -> None:
        monkeypatch.setattr(hardware, "pynvml", FakeNvml(list(devices)))

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return install


def documents(path: Path, *lines: str) -> str:
    path.write_text("".join(line + "\n" for line in lines))
    return str(path)


ONE = '{"id": 1, "prompt": "a", "answer": "b"}'
EXAMPLE = 'A line is {"prompt": "…", "answer": "…"}, with "choices": ["…", "…"] for multiple choice.'


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ((), f": holds no documents. {EXAMPLE}"),
        ((ONE, ONE), ":2: id '1' is on line 1 already. Make it unique, or leave ids out."),
        ((ONE, '{"prompt": "a"'), f":2: is not JSON: Expecting ',' delimiter at column 1. {EXAMPLE}"),
        (('{"prompt": "a", "anser": "b"}',), ":1: has no 'answer'. Is it 'anser'? Call it 'answer'."),
        (('["a"]',), f":1: is not a JSON object. {EXAMPLE}"),
    ],
)
def test_a_jsonl_of_tasks(tmp_path: Path, refused: Refused, lines: tuple[str, ...], told: str) -> None:
    path = documents(tmp_path / "mine.jsonl", *lines)
    line = refused(tasks=path)
    assert line.startswith(path)
    if "delimiter" in told:
        assert line.startswith(f"{path}:2: is not JSON: Expecting ',' delimiter at column ")
    else:
        assert line == path + told


TASK = {
    "task": "mine",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "mine.jsonl"}},
    "test_split": "test",
    "doc_to_text": "prompt",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


@pytest.mark.parametrize(
    ("change", "lines", "told"),
    [
        ({}, (), "{folder}/mine.jsonl: holds no documents. Give it some."),
        (
            {},
            (ONE, ONE),
            "{folder}/mine.jsonl:2: id '1' is on line 1 already. Make it unique, or leave ids out.",
        ),
        ({}, (ONE, "{"), "{folder}/mine.jsonl:2: is not JSON: "),
        (
            {"test_spit": "x"},
            (ONE,),
            "{folder}/mine.yaml: unknown key 'test_spit'. Did you mean 'test_split'?",
        ),
        (
            {"task": None},
            (ONE,),
            "{folder}/mine.yaml: has no 'task'. Name the task: `task: my_task`; a suite has `tasks`.",
        ),
    ],
)
def test_a_yaml_of_a_task(
    tmp_path: Path, refused: Refused, change: dict[str, Any], lines: tuple[str, ...], told: str
) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(TASK | change))
    documents(tmp_path / "mine.jsonl", *lines)
    assert refused(tasks=str(tmp_path / "mine.yaml")).startswith(told.format(folder=tmp_path))


def test_malformed_yaml_names_the_line(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "mine.yaml").write_text("task: mine\ndoc_to_text: [a\ntest_split: test\n")
    line = refused(tasks=str(tmp_path / "mine.yaml"))
    assert line.startswith(f"{tmp_path}/mine.yaml:3: ")
    assert line.endswith("Correct the YAML there.")


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (os.mkfifo, "can't be read (Not a regular file)"),
        (lambda path: path.symlink_to("/dev/zero"), "can't be read (Not a regular file)"),
        (lambda path: path.symlink_to(path.name), "can't be read (Too many levels of symbolic links)"),
        (lambda path: path.write_text("? " * 20_000), ":1: nested more than 64 deep"),
        (lambda path: path.write_text("task: &a [*a]"), ":1: 'a' contains itself"),
        (lambda path: path.write_text("task: 2026-02-30"), ":1: '2026-02-30' is no timestamp"),
        (lambda path: path.write_text("? [a]\n: b"), ":1: "),
        (lambda path: path.write_bytes("task: a".encode("utf-16")), "can't be read ("),
    ],
    ids=["pipe", "device", "loop", "deep", "reference", "date", "key", "UTF-16"],
)
def test_what_is_no_file_or_stops_a_parser(
    tmp_path: Path, refused: Refused, prepare: Callable[[Path], object], told: str
) -> None:
    prepare(tmp_path / "mine.yaml")
    line = refused(tasks=str(tmp_path / "mine.yaml"))
    assert line.startswith(f"{tmp_path}/mine.yaml{'' if told.startswith(':') else ': '}{told}")


@pytest.mark.parametrize("value", ["a={b: &a [*a]}", "a=" + "[" * 5000, "a=" + "? " * 5000])
def test_an_engine_argument_beyond_a_bound(refused: Refused, value: str) -> None:
    line = refused("--engine-arg", value)
    assert line.startswith("--engine-arg: 'a' is ")
    assert line.endswith("Write a plain value.")


def test_an_unknown_task_suggests_near_ones(refused: Refused) -> None:
    assert refused(tasks="gsm8") == (
        "gsm8: no suite and no task of lm-eval's is called so. Did you mean 'gsm8k' or 'gsm8k_cot'?"
    )


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of configs/ that the command reads in place of the committed one."""
    copy = shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for module in (
        "flows.planning.request",
        "quantgate.model.config.gpus",
        "quantgate.model.config.policy",
        "quantgate.model.yaml_file",
        "tasks.engine.log",
        "tasks.engine.environment",
    ):
        monkeypatch.setattr(f"{module}.ROOT", tmp_path)
    monkeypatch.setattr("tasks.quality.sources.SUITES", copy / "suites")
    monkeypatch.setattr("quantgate.model.config.models.load_models.__defaults__", (copy / "models",))
    return Path(copy)


def spoil(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("suites/demo.yaml", "tasks:", "taskz:", "unknown key 'taskz'. Did you mean 'tasks'?"),
        (
            "workloads/short.yaml",
            "isl_tokens",
            "isl_token",
            "unknown key 'isl_token'. Did you mean 'isl_tokens'?",
        ),
        ("policy.yaml", "min_documents", "min_document", "Did you mean 'min_documents'?"),
        ("engines.yaml", "start_timeout_s", "start_timeout", "Did you mean 'start_timeout_s'?"),
        ("kernels.yaml", "pattern:", "patern:", "Did you mean 'pattern'?"),
        ("suites/demo.yaml", "tasks:", "tasks: [", "Correct the YAML there."),
    ],
)
def test_an_unknown_key_in_any_file_of_configs(
    configs: Path, refused: Refused, file: str, old: str, new: str, told: str
) -> None:
    spoil(configs / file, old, new)
    line = refused()
    assert Path(file).name in line.split(" ")[0]
    assert line.endswith(told)


def test_an_unknown_key_of_a_model(
    configs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(configs / "models" / "demo.yaml", "workload:", "worklod:")
    ended = command_in_process.run(monkeypatch, capfd, "validate", "quantgate-demo")
    assert ended.status == 2
    assert ended.err.endswith("unknown key 'worklod'. Did you mean 'workload'?\n")


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        (
            "tensor-parallel-size=3",
            (
                "engine arguments: 'tensor-parallel-size' is 3, which doesn't divide the 4 attention heads and "
                "2 key-value heads of quantgate-demo-BF16. Sizes that do: 1, 2, 4."
            ),
        ),
        (
            "tensor-parallel-size=2",
            "2 GPUs asked for, none found. Lower the number, or use a GPU host.",
        ),
        (
            "max-model-len=4096",
            (
                "engine arguments: 'max-model-len' is 4096 tokens, and quantgate-demo-BF16 has 2048 positions. "
                "Lower it to 2048 at most, or leave it out."
            ),
        ),
        (
            "max-model-len=200",
            (
                "quantgate-demo-BF16: workload 'short' needs 256 tokens (128 in, 128 out), and the engine's context "
                "is 200. Give --engine-arg max-model-len=256 or more, or choose a shorter workload."
            ),
        ),
        (
            "max-model-len=long",
            "engine arguments: 'max-model-len' is 'long'. Give a number of tokens, e.g. 4096 or 32K.",
        ),
        (
            "lora-modules={mine: /nowhere/adapter}",
            (
                "engine arguments: lora-modules: /nowhere/adapter: no such folder. "
                "Give the folder that holds its adapter_config.json."
            ),
        ),
        (
            "lora-modules={a: x, b: y}",
            "engine arguments: lora-modules: names 2 adapters. A run measures one adapter: start one for each.",
        ),
        (
            "speculative-config={model: /nowhere/draft, num_speculative_tokens: 3}",
            (
                "/nowhere/draft: neither a folder nor a hub id. "
                "Give a folder that exists, or a hub id: org/name or org/name@revision."
            ),
        ),
        (
            "chat-template=chat.jinja",
            "engine arguments: chat-template: chat.jinja: no such file. Correct the path.",
        ),
        (
            "config=mine.yaml",
            (
                "engine arguments: 'config' is set by Quantgate. "
                "Leave it out; a port is the key 'port' of the engine in engines.yaml."
            ),
        ),
    ],
)
def test_serving_arguments_that_do_not_fit(refused: Refused, argument: str, told: str) -> None:
    assert refused("--engine-arg", argument) == told


def test_more_gpus_than_the_host_has(refused: Refused, gpus: Callable[..., None]) -> None:
    gpus(h100(0))
    assert refused("--engine-arg", "tensor-parallel-size=2") == (
        "2 GPUs asked for, 1 visible. Lower the number, or widen CUDA_VISIBLE_DEVICES."
    )


def test_mig_on_a_gpu_that_has_none(
    refused: Refused, gpus: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(Device("NVIDIA L40S", "GPU-0", capability=(8, 9), mig=None))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-0a1b2c3d")
    assert refused() == (
        "CUDA_VISIBLE_DEVICES asks for a MIG slice (MIG-0a1b2c3d), and NVIDIA L40S has none. "
        "It can't be cut: name the GPU itself, or unset it."
    )


@pytest.mark.parametrize(
    ("gpu", "told"),
    [
        (
            "b200",
            (
                "GPU type: this host has NVIDIA H100 80GB HBM3 (h100), not b200. "
                "Run it on a host of that type: `quantgate validate --gpu` submits it to its pool."
            ),
        ),
        (
            "b20",
            (
                "configs/gpus.yaml: nothing is called 'b20'. Did you mean 'b200'? Add a board to "
                "configs/gpus.yaml: its nvml_names, memory, bandwidth, TFLOPS, formats, and their source."
            ),
        ),
    ],
)
def test_a_gpu_type_that_this_host_is_not(gpus: Callable[..., None], gpu: str, told: str) -> None:
    gpus(h100(0))
    parameters = ValidateParameters.model_construct(
        **{**ValidateParameters(model="quantgate-demo").model_dump(), "gpu": gpu}
    )
    with pytest.raises(ConfigError) as caught:
        declare(parameters, Home.current())
    assert (str(caught.value), caught.value.exit_status) == (told, 2)


@pytest.mark.usefixtures("prefect_ready")
def test_a_port_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """The port is looked at when the engine is about to start, so this one goes through the flow."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("QUANTGATE_ENGINES_FILE", str(make(tmp_path, "serves", marker="8204", port=port)))
        done = quantgate(*validate("--concurrency", "1", "--limit", "1"))
    assert done.status == 2
    assert "Traceback" not in done.err
    assert done.err.splitlines()[-1] == (
        f"quantgate: engines.yaml: fake: port {port} is in use. "
        "Stop what listens there, or leave 'port' out to use a free one."
    )
    assert not list((home / "logs").rglob("engine-*.log"))


def test_a_checkpoint_without_a_chat_template(refused: Refused) -> None:
    assert refused("--chat-template") == (
        f"{BASELINE}: the checkpoint has no chat template. "
        "Leave it out (--no-chat-template), or give one: --engine-arg chat-template=FILE."
    )


def test_values_of_engine_arguments_are_yaml(refused: Refused) -> None:
    text = json.dumps({"model": "/nowhere/draft"})
    assert refused("--engine-arg", f"speculative-config={text}").startswith("/nowhere/draft: ")


@pytest.mark.parametrize(
    ("tasks", "task"),
    [("gsm8k", "gsm8k"), (str(ROOT / "demo" / "tasks" / "arithmetic.yaml"), "qg_demo_arithmetic")],
    ids=["name", "file"],
)
def test_a_looser_family_of_a_task_that_a_suite_knows(refused: Refused, tasks: str, task: str) -> None:
    """`standard` allows 1 point for mathematics and 2 for conversation."""
    told = refused("--family", "conversation", "--policy", "standard", tasks=tasks)
    assert told == (
        f"--family conversation: task {task} is of family 'math' (margin 0.01); 'conversation' would allow a loss of "
        "0.02. Leave --family out, or declare a policy of your own in place of 'standard'."
    )


@pytest.mark.parametrize("family", [Family.MATH, Family.SCIENCE])
def test_a_family_that_is_no_looser_is_taken(home: Path, family: Family) -> None:
    """The same margin, in policy `standard`; what no suite knows may have any."""
    known = str(ROOT / "demo" / "tasks" / "arithmetic.yaml")
    own = documents(home.parent / "own.jsonl", ONE)
    for tasks, given in ((known, family), (own, Family.CONVERSATION)):
        parameters = ValidateParameters(
            baseline=BASELINE, candidates=[CANDIDATE], tasks=[tasks], family=given, policy="standard"
        )
        assert [task.family for task in declare_work(parameters, Home.current()).suite.tasks] == [given]
