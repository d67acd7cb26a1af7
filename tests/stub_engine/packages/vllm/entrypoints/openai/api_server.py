"""A stub of vLLM's OpenAI server: the endpoints that Quantgate uses, a core process, and faults on demand.

STUB_FAULT is ``MODE:N``: after N prompts the mode sets in. Modes: ``crash`` (a traceback, status 1), ``core``
(the core process dies, the server notices), ``oom`` (SIGKILL, as the kernel does it), ``hang`` (connections are
accepted and never answered), ``stall`` (a stream that stops emitting tokens; everything else hangs).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from vllm.stub_answers import Answers, draw, from_environment

START_S = float(os.environ.get("STUB_START_S", "0.2"))
FOREVER_S = 7200
METRICS = """\
vllm:cache_config_info{block_size="16",num_gpu_blocks="4096"} 1.0
vllm:num_requests_running{engine="0"} 1.0
vllm:num_requests_waiting{engine="0"} 0.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:prefix_cache_hits_total{engine="0"} 0.0
"""


def say(text: str) -> None:
    print(text, flush=True)


def argument(name: str, default: str = "") -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


class Fault:
    """The fault that is asked for, and how many prompts there are until then."""

    def __init__(self) -> None:
        mode, _, after = os.environ.get("STUB_FAULT", "").partition(":")
        self.mode, self.left = mode, int(after or 0)
        self._lock = threading.Lock()

    def due(self, prompts: int) -> str:
        """The mode, once as many prompts came in; empty before."""
        with self._lock:
            self.left -= prompts
            return self.mode if self.left < 0 else ""

    def strike(self, core: subprocess.Popen[bytes]) -> None:
        """Die or hang; returns only where the mode is about streams."""
        if self.mode == "crash":
            say("ERROR 11-24 [async_llm.py:1] AsyncLLM output_handler failed.")
            say(
                "Traceback (most recent call last):\n  File 'stub'\nRuntimeError: stub: illegal memory access"
            )
            os._exit(1)
        if self.mode == "oom":
            say("INFO the stub takes more memory than there is")
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mode == "core":
            core.kill()
            time.sleep(FOREVER_S)
        if self.mode == "hang":
            time.sleep(FOREVER_S)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answers: Answers, core: subprocess.Popen[bytes]) -> None:
        super().__init__((argument("--host"), int(argument("--port"))), Handler)
        self.answers, self.core, self.fault = answers, core, Fault()
        self.key = os.environ.get("VLLM_API_KEY", "")
        self.model = argument("--served-model-name")
        self.context_tokens = int(argument("--max-model-len", "512"))

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refused(self) -> bool:
        if self.path.startswith("/v1/") and self.headers["Authorization"] != f"Bearer {self.server.key}":
            self._answer(401, b'{"error": {"message": "Unauthorized"}}')
            return True
        return False

    def do_GET(self) -> None:
        if self._refused():
            return
        if self.path == "/v1/models":
            model = {"id": self.server.model, "max_model_len": self.server.context_tokens}
            self._answer(200, json.dumps({"data": [model]}).encode())
        else:
            self._answer(200, METRICS.encode() if self.path == "/metrics" else b"", "text/plain")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._refused():
            return
        if self.path == "/tokenize":
            tokens = self.server.answers.tokens(asked["prompt"])
            self._answer(200, json.dumps({"tokens": tokens}).encode())
            return
        if "prompt_logprobs" in asked:
            thought = self.server.answers.think(asked["prompt"], asked["prompt_logprobs"])
            self._answer(200, json.dumps({"choices": [{"index": 0, "prompt_logprobs": thought}]}).encode())
            return
        prompts = asked["prompt"] if isinstance(asked["prompt"], list) else [asked["prompt"]]
        fault = self.server.fault.due(len(prompts))
        if fault and not (fault == "stall" and asked.get("stream")):
            self.server.fault.strike(self.server.core)
            time.sleep(FOREVER_S)
        if asked.get("stream"):
            self._stream(asked, stalls=fault == "stall")
            return
        time.sleep(0.02 + 0.08 * draw(prompts[0]))
        answers = self.server.answers
        choices = [
            answers.score(tokens) if asked.get("echo") else answers.generate(tokens, asked["max_tokens"])
            for tokens in prompts
        ]
        told = [{"index": index, **choice} for index, choice in enumerate(choices)]
        self._answer(200, json.dumps({"choices": told}).encode())

    def _stream(self, asked: dict[str, Any], *, stalls: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for token in range(asked["max_tokens"]):
            if stalls and token == 2:
                time.sleep(FOREVER_S)
            time.sleep(0.001)
            self.wfile.write(b'data: {"choices": [{"index": 0, "text": " so"}]}\n\n')
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


def watch(core: subprocess.Popen[bytes]) -> None:
    """As vLLM: a server whose core has died says so and ends."""
    core.wait()
    say("ERROR 11-24 [async_llm.py:1] vllm.v1.engine.exceptions.EngineDeadError: the stub's core has died")
    os._exit(1)


def main() -> None:
    # As vLLM's EngineCore and Worker: a child, and a grandchild in a session of its own.
    core = subprocess.Popen(["sh", "-c", f"setsid sleep {FOREVER_S} & exec sleep {FOREVER_S}"])
    checkpoint = argument("--model")
    config = json.loads((Path(checkpoint) / "config.json").read_text())
    if "quantization_config" in config:
        kernel = os.environ.get("STUB_KERNEL") or f"Stub{config['quantization_config']['quant_algo']}Kernel"
        say(f"INFO Selected {kernel} for QKVParallelLinear")
    say("INFO Using AttentionBackendEnum.STUB_ATTN backend.")
    server = Server(from_environment(checkpoint), core)
    time.sleep(START_S)
    threading.Thread(target=watch, args=(core,), daemon=True).start()
    say("INFO stub ready")
    server.serve_forever()


if __name__ == "__main__":
    main()
