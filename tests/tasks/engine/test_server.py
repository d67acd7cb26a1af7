"""Faults of an engine: it dies, hangs, its port is taken; and nothing of it is left. (A fake one: fault injection.)"""

from __future__ import annotations

import contextlib
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from quantgate.model.enums import KernelMode
from quantgate.model.errors import ConfigError, RunError
from quantgate.model.home import ROOT, Home
from tasks.engine import server
from tasks.engine.environment import EngineEnvironment, load_engine, prepare
from tasks.progress import Reporter
from tests.support.fake_engine import make
from tests.support.tiny_checkpoints import bare_checkpoint
from tests.tasks.engine.test_process import alive, plant, wait_for

CHECKPOINT = bare_checkpoint(precision="nvfp4", weight_format="modelopt:NVFP4")


def environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str, **options: object
) -> EngineEnvironment:
    monkeypatch.setenv("QUANTGATE_ENGINES_FILE", str(make(folder, mode, **options)))  # type: ignore[arg-type]
    name, config = load_engine(None, "cpu")
    return prepare(name, config, Home.current(), Reporter(lambda _: None))


def serve(found: EngineEnvironment, log: Path) -> object:
    return server.serve(CHECKPOINT, found, {"max-model-len": 64}, log=log, report=Reporter(lambda _: None))


def test_an_engine_that_dies_at_start_tells_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = environment(tmp_path, monkeypatch, "dies")
    with pytest.raises(RunError) as caught, serve(found, tmp_path / "log"):  # type: ignore[attr-defined]
        pass
    assert str(caught.value) == (
        "engine fake: the engine ended with status 1; its last words: RuntimeError: out of cheese. "
        f"Its log: {tmp_path / 'log'}"
    )
    assert caught.value.exit_status == 1


def test_an_engine_that_hangs_ends_within_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = environment(tmp_path, monkeypatch, "hangs", start_timeout_s=1.5)
    told = r"did not answer within 2 s; its last words: INFO still loading"
    with pytest.raises(RunError, match=told), serve(found, tmp_path / "log"):  # type: ignore[attr-defined]
        pass


def test_what_speaks_no_http_at_the_port_does_not_answer_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = environment(tmp_path, monkeypatch, "hangs", start_timeout_s=1.5)
    with socket.create_server(("127.0.0.1", 0)) as other:

        def speak() -> None:
            with contextlib.suppress(OSError):
                while True:
                    caller, _ = other.accept()
                    with caller:
                        caller.sendall(b"220 mail\r\n")

        threading.Thread(target=speak, daemon=True).start()
        monkeypatch.setattr(server, "_port", lambda *_: other.getsockname()[1])
        with pytest.raises(RunError, match="did not answer within"), serve(found, tmp_path / "log"):  # type: ignore[attr-defined]
            pass


class _Others(http.server.BaseHTTPRequestHandler):
    """An engine with a key of its own."""

    def do_GET(self) -> None:
        self.send_response(401 if self.path.startswith("/v1/") else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_another_engine_at_the_port_does_not_answer_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two starts may find the same free port; the one that comes too late ends by itself."""
    found = environment(tmp_path, monkeypatch, "hangs", start_timeout_s=1.5)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Others) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        monkeypatch.setattr(server, "_port", lambda *_: other.server_port)
        with pytest.raises(RunError, match="did not answer within"), serve(found, tmp_path / "log"):  # type: ignore[attr-defined]
            pass
        other.shutdown()


def test_a_port_in_use_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = environment(tmp_path, monkeypatch, "serves", port=port)
        with pytest.raises(ConfigError) as caught, serve(found, tmp_path / "log"):  # type: ignore[attr-defined]
            pass
    assert str(caught.value) == (
        f"engines.yaml: fake: port {port} is in use. "
        "Stop what listens there, or leave 'port' out to use a free one."
    )
    assert caught.value.exit_status == 2


def test_a_running_engine_is_recorded_and_stopped_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret-token")
    monkeypatch.setenv("VLLM_SOMETHING", "on")
    found = environment(tmp_path, monkeypatch, "serves", marker="8201")
    with serve(found, tmp_path / "log") as running:  # type: ignore[attr-defined]
        start = running.start
        assert wait_for(lambda: alive("8201") == 2)
    assert alive("8201") == 0
    assert start.engine_version == "9.9.9"
    assert start.kernels == {"QKVParallelLinear": "MarlinNvFp4LinearKernel"}
    assert start.kernel_mode is KernelMode.WEIGHT_ONLY
    assert start.kv_cache_tokens == 160
    assert start.command[-2:] == ("--max-model-len", "64")
    assert "--host 127.0.0.1" in " ".join(start.command)
    assert running.endpoint.api_key not in " ".join(start.command)
    assert start.environment["VLLM_SOMETHING"] == "on"
    recorded = start.model_dump_json()
    assert "secret-token" not in recorded
    assert running.endpoint.api_key not in recorded


def test_sigkill_during_the_start_leaves_no_engine(tmp_path: Path) -> None:
    file = make(tmp_path, "serves", marker="8202")
    code = f"""
import os, time
os.environ["QUANTGATE_ENGINES_FILE"] = {str(file)!r}
from pathlib import Path
from tests.tasks.engine.test_server import *
name, config = load_engine(None, "cpu")
found = prepare(name, config, Home.current(), Reporter(lambda _: None))
with server.serve(CHECKPOINT, found, {{}}, log=Path({str(tmp_path / "log")!r}), report=Reporter(lambda _: None)):
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ))
    assert wait_for(lambda: alive("8202") == 2, 30)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_for(lambda: alive("8202") == 0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("engines: {", "expected"),
        (
            "default: {cpu: a}\nengines: {a: {description: x, kind: uv, distribution: v, argumens: {}}}",
            "'arguments'",
        ),
        (
            "default: {cpu: b}\nengines: {abc: {description: x, kind: uv, distribution: v}}",
            "nothing is called 'b'",
        ),
        (
            "default: {cpu: a}\nengines: {a: {description: x, kind: docker, distribution: v}}",
            "'uv' or 'python'",
        ),
        (
            "default: {cpu: a}\nengines: {a: {description: x, kind: python, distribution: v}}",
            "a.interpreter' is missing",
        ),
        ("default: {cpu: a}\ndefault: {cpu: b}\nengines: {}", "is listed twice"),
    ],
)
def test_faults_of_the_file_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    file = tmp_path / "engines.yaml"
    file.write_text(text)
    monkeypatch.setenv("QUANTGATE_ENGINES_FILE", str(file))
    with pytest.raises(ConfigError) as caught:
        load_engine(None, "cpu")
    assert told in str(caught.value)
    assert "engines.yaml" in str(caught.value)


def test_an_interpreter_without_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make(tmp_path, "serves")
    file.write_text(file.read_text().replace(str(tmp_path / "python"), sys.executable))
    monkeypatch.setenv("QUANTGATE_ENGINES_FILE", str(file))
    name, config = load_engine(None, "cpu")
    with pytest.raises(ConfigError, match="has no package 'vllm'"):
        prepare(name, config, Home.current(), Reporter(lambda _: None))


def test_inherited_variables_that_change_numbers_belong_to_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = environment(tmp_path, monkeypatch, "serves").config
    before = server.recorded_environment(config)
    monkeypatch.setenv("VLLM_ATTENTION_SOMETHING", "1")
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    monkeypatch.setenv("HOME_ADDRESS", "no")
    assert server.recorded_environment(config) == before | {"VLLM_ATTENTION_SOMETHING": "1"}


def test_an_engine_accepts_the_stop_strings_of_its_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = "VLLM_MAX_STOP_STRINGS"
    found = environment(tmp_path, monkeypatch, "serves", marker="8205")
    assert server.allowing(found, 0) is found
    assert server.allowing(found, 4) is found, "vLLM accepts four by itself"
    raised = server.allowing(found, 6)
    assert variable not in server.recorded_environment(found.config), "it is no part of a run's identity"
    with serve(raised, tmp_path / "log") as running:  # type: ignore[attr-defined]
        assert running.start.environment[variable] == "6"
    monkeypatch.setenv(variable, "9")
    assert server.allowing(found, 6) is found, "the host's own is greater"
    monkeypatch.setenv(variable, "many")
    with pytest.raises(ConfigError, match="engine fake: VLLM_MAX_STOP_STRINGS is 'many'"):
        server.allowing(found, 6)


def test_which_of_a_hosts_gpus_an_engine_gets_is_recorded_but_no_part_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = environment(tmp_path, monkeypatch, "serves", marker="8204")
    variable, log, report = "CUDA_VISIBLE_DEVICES", tmp_path / "log", Reporter(lambda _: None)
    plant(monkeypatch)

    def served(uuids: tuple[str, ...]) -> str:
        with server.serve(CHECKPOINT, found, {}, uuids=uuids, log=log, report=report) as running:
            below = psutil.Process(running.process.pid).children(recursive=True)
            got = next(p.environ() for p in below if p.cmdline() == ["sleep", "8204"])
        assert not [name for name, value in got.items() if "planted" in value]
        assert got.items() >= running.start.environment.items()
        assert running.start.environment.items() >= server.recorded_environment(found.config).items()
        assert got["VLLM_API_KEY"] not in running.start.environment.values()
        return running.start.environment[variable]

    monkeypatch.setenv(variable, "0")
    first = server.recorded_environment(found.config)
    monkeypatch.setenv(variable, "1")
    assert server.recorded_environment(found.config) == first
    assert variable not in first
    assert served(()) == "1"
    assert served(("GPU-a", "GPU-b")) == "GPU-a,GPU-b"


def test_maps_and_lists_reach_the_engine_as_its_parser_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = environment(tmp_path, monkeypatch, "serves", marker="8203")
    overrides = {
        "speculative_config": {"method": "ngram", "num_speculative_tokens": 3},
        "--lora-target-modules": ["q_proj", "v_proj"],
        "hf-overrides.rope.factor": 2.0,
        "hf-overrides.rope.rope_type": "linear",
        "enable-lora": True,
        "enforce-eager": False,
        "dtype": None,
    }
    log, report = tmp_path / "log", Reporter(lambda _: None)
    with server.serve(CHECKPOINT, found, overrides, adapter="mine", log=log, report=report) as running:
        assert running.endpoint.served_model == "mine"
        command = running.start.command
    assert command[command.index("--port") + 2 :] == (
        *("--speculative-config", '{"method": "ngram", "num_speculative_tokens": 3}'),
        *("--lora-target-modules", "q_proj", "v_proj"),
        *("--hf-overrides", '{"rope": {"factor": 2.0, "rope_type": "linear"}}'),
        "--enable-lora",
    )
