"""A command never outlives who asked for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantgate.model.errors import RunError
from quantgate.model.home import ROOT
from quantgate.model.secrets import is_secret
from tasks.engine.process import PROXIES, Tied, await_end, child_environment, last_words, run_tied

FAMILY = "sleep {0} & setsid sleep {0} & sleep {0}"


def alive(marker: str) -> int:
    """Processes that are `sleep MARKER`."""
    found = 0
    for process in psutil.process_iter(["cmdline", "status"]):
        found += process.info["cmdline"] == ["sleep", marker] and process.info["status"] != "zombie"
    return found


def wait_for(condition: object, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def test_stop_ends_the_whole_family(tmp_path: Path) -> None:
    process = Tied(["bash", "-c", FAMILY.format("8101")], log=tmp_path / "log", environment=os.environ)
    assert wait_for(lambda: alive("8101") == 3)
    process.stop()
    assert alive("8101") == 0


@pytest.mark.parametrize("marker", ["8102", "8103"])
def test_a_killed_parent_leaves_nothing(tmp_path: Path, marker: str) -> None:
    """SIGKILL of the process itself (8102), or of it from a thread that started the command (8103)."""
    log = str(tmp_path / "log")
    start = f"Tied(['bash', '-c', {FAMILY.format(marker)!r}], log=Path({log!r}), environment=os.environ)"
    if marker == "8103":
        start = f"threading.Thread(target=lambda: {start}).start()"
    imports = "import os, threading, time; from pathlib import Path\nfrom tasks.engine.process import Tied\n"
    code = f"{imports}x = {start}\ntime.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    assert wait_for(lambda: alive(marker) == 3)
    time.sleep(0.5)
    assert alive(marker) == 3, "the end of the thread that started it must not end the command"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_for(lambda: alive(marker) == 0)


@pytest.mark.parametrize("which", ["outer", "inner"])
def test_a_killed_launcher_takes_the_whole_family_along(tmp_path: Path, which: str) -> None:
    process = Tied(["bash", "-c", FAMILY.format("8104")], log=tmp_path / "log", environment=os.environ)
    assert wait_for(lambda: alive("8104") == 3)
    inner = psutil.Process(process.pid).children()[0].pid
    os.kill(process.pid if which == "outer" else inner, signal.SIGKILL)
    assert wait_for(lambda: process.exit_status() is not None)
    assert process.exit_status() == 137
    process.stop()
    assert alive("8104") == 0, "stop() returns when nothing is left"


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_launcher_that_is_told_to_stop_says_by_what(tmp_path: Path, sent: signal.Signals) -> None:
    with Tied(["sleep", "8106"], log=tmp_path / "log", environment=os.environ) as process:
        assert wait_for(lambda: alive("8106") == 1)
        os.kill(process.pid, sent)
        assert wait_for(lambda: process.exit_status() is not None)
        assert process.exit_status() == 128 + sent
        assert alive("8106") == 0


def test_failure_tells_status_last_words_and_log(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        run_tied(
            ["bash", "-c", "echo start; echo 'ValueError: no cheese'; exit 3"],
            what="tool",
            log=tmp_path / "log",
            environment=os.environ,
            timeout_s=20,
            poll_s=0.05,
        )
    assert str(caught.value) == (
        f"tool: ended with status 3; its last words: ValueError: no cheese. Its log: {tmp_path / 'log'}"
    )


def test_time_limit_stops_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"tool: did not end within 1 s; its last words: begun"):
        run_tied(
            ["bash", "-c", "echo begun; sleep 8105"],
            what="tool",
            log=tmp_path / "log",
            environment=os.environ,
            timeout_s=1,
            poll_s=0.05,
        )
    assert alive("8105") == 0


def test_output_begins_where_the_command_did(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("from before\n")
    output = run_tied(["echo", "now"], what="x", log=log, environment=os.environ, timeout_s=20, poll_s=0.05)
    assert output == "now\n"
    assert log.read_text() == "from before\nnow\n"


def test_last_words_prefer_the_error_to_what_dying_processes_print() -> None:
    output = "INFO a\n(Engine) ERROR 11-24 [core.py:1] ValueError: no kernel\nINFO bye\nnanobind: leaked 4 instances!\n"
    assert last_words(output) == "its last words: (Engine) ERROR 11-24 [core.py:1] ValueError: no kernel"
    assert last_words("a\nb\nc\nd\n") == "its last words: b | c | d"
    assert last_words(" \n") == "it said nothing"


@given(st.text())
def test_last_words_are_always_one_line(output: str) -> None:
    error = RunError(last_words(output))
    assert "\n" not in str(error)


# What a host's environment may hold; every value that must not reach a child has "planted" in it.
SECRETS = {
    "HF_TOKEN": "planted",
    "HUGGING_FACE_HUB_TOKEN": "planted",
    "PREFECT_API_AUTH_STRING": "admin:planted",
    "PREFECT_API_URL": "http://planted:4200/api",
    "AWS_ACCESS_KEY_ID": "planted",
    "AWS_SECRET_ACCESS_KEY": "planted",
    "AZURE_STORAGE_CONNECTION_STRING": "planted",
    "GOOGLE_APPLICATION_CREDENTIALS": "planted",
    "FSSPEC_S3_SECRET": "planted",
    "OPENAI_API_KEY": "planted",
    "PGPASSWORD": "planted",
    "wandb_api_key": "planted",
    "SOME_CLIENT_SECRET_ID": "planted",
    "QUANTGATE_BUNDLES": "s3://user:planted@bucket",
    "HTTPS_PROXY": "http://user:planted@proxy:3128",
    "PYTHONPATH": "planted",
    "VIRTUAL_ENV": "planted",
}
HARMLESS = {
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_MAX_TOKENS_PER_EXPERT_FP4_MOE": "4096",
    "VLLM_ATTENTION_BACKEND": "TORCH_SDPA",
    "NCCL_IB_PKEY": "1",
    "OMP_NUM_THREADS": "2",
    "HF_ENDPOINT": "http://hub:8080",
    "HF_HOME": "hf-home",
    "HTTP_PROXY": "http://proxy:3128",
}


def plant(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (SECRETS | HARMLESS).items():
        monkeypatch.setenv(name, value)


def test_a_child_gets_our_environment_without_secrets_and_what_is_the_pipelines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "hub")
    left = child_environment()
    assert (left.pop("no_proxy"), left.pop("NO_PROXY")) == ("hub,127.0.0.1",) * 2
    assert not [value for value in left.values() if "planted" in value]
    assert left.items() >= HARMLESS.items()
    assert left.keys() >= {"PATH", "QUANTGATE_HOME"}
    assert left.items() <= os.environ.items()


def test_a_child_keeps_what_it_is_said_to_need(monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    more = child_environment(keep=(*PROXIES, "WANDB_")).items() - child_environment().items()
    assert dict(more) == {name: SECRETS[name] for name in ("HTTPS_PROXY", "wandb_api_key")}


@given(st.from_regex(r"[A-Z]{1,8}_(TOKEN|API_KEY|SECRET|PASSWORD|CREDENTIALS)", fullmatch=True))
def test_whatever_is_called_a_secret_is_one(name: str) -> None:
    assert is_secret(name)
    assert is_secret(name.lower())


def test_an_engine_that_ends_tells_before_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def check_alive() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise RunError("the engine was ended by SIGKILL")

    with pytest.raises(RunError, match="ended by SIGKILL"):
        await_end(check_alive)
    asked.clear()
    await_end(check_alive, lambda: "metrics")
    assert len(asked) == 1, "one that answers goes on"
    asked.clear()
    monkeypatch.setattr("tasks.engine.process.ENGINE_ENDS_WITHIN_S", 0.1)
    await_end(check_alive)
    assert len(asked) == 2, "one that neither ends nor answers costs its time"
