"""A stand-in for the engine's interpreter, for fault injection only: it starts, dies or hangs as ordered.

``make(folder, mode)`` writes an executable that answers what engine_env and engine ask of an interpreter.
Modes: ``dies`` (a traceback, status 1), ``hangs`` (never answers), ``serves`` (answers /health and /metrics, with a
child and a grandchild in a session of its own, as vLLM has its EngineCore and Worker).
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import yaml

SCRIPT = """
#!{python}
import http.server, os, subprocess, sys, time
if sys.argv[1] == "-c":
    print("9.9.9")
    raise SystemExit
if sys.argv[1] != "-m":
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
if "{mode}" == "dies":
    print("INFO loading", flush=True)
    print("Traceback (most recent call last):\\n  File 'x'\\nRuntimeError: out of cheese", flush=True)
    raise SystemExit(1)
if "{mode}" == "hangs":
    print("INFO still loading", flush=True)
    time.sleep(600)
subprocess.Popen(["sleep", "{marker}"])
subprocess.Popen(["sleep", "{marker}"], start_new_session=True)

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'vllm:cache_config_info{{block_size="16",num_gpu_blocks="10"}} 1.0\\n'
        body *= self.path == "/metrics"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

print("INFO Selected MarlinNvFp4LinearKernel for QKVParallelLinear", flush=True)
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Answers).serve_forever()
"""


def make(
    folder: Path, mode: str, *, marker: str = "7001", start_timeout_s: float = 30, port: int | None = None
) -> Path:
    """Write the interpreter and an engines.yaml that names it; returns the latter."""
    interpreter = folder / "python"
    interpreter.write_text(
        textwrap.dedent(SCRIPT.format(python=sys.executable, mode=mode, marker=marker)).lstrip()
    )
    interpreter.chmod(0o755)
    engine = {
        "description": "fault injection",
        "kind": "python",
        "distribution": "vllm",
        "interpreter": str(interpreter),
        "start_timeout_s": start_timeout_s,
        "port": port,
    }
    file = folder / "engines.yaml"
    file.write_text(yaml.safe_dump({"default": {"cpu": "fake", "gpu": "fake"}, "engines": {"fake": engine}}))
    return file
