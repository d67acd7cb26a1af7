"""A tokenizer of words and a completions server whose answers, and faults, are known."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from tasks.engine.endpoint import EngineEndpoint

WORDS = ["<s>", "</s>", "<unk>", "yes", "no", *(f"w{number}" for number in range(60))]
KEY = "key-of-the-test"


def write_tokenizer(folder: Path, *, adds_bos: bool = False) -> Path:
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    if adds_bos:
        tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"unk_token": "<unk>"}))
    return folder


def logprob(token: int) -> float:
    """The engine likes tokens in the order of their numbers."""
    return -0.5 * token


class Completions(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: dict[str, str] = {}
        self.ends: dict[str, str] = {}
        """Replies to prompts that end so, where the whole prompt has none."""
        self.by_seed: Callable[[int], str] | None = None
        self.sampled: list[tuple[float, int]] = []
        """Temperature and seed of each prompt that was sampled."""
        self.fault: str | None = None
        self.prompts: list[list[int]] = []
        self.context_tokens = 64
        self.adapters: list[str] = []
        self.models: set[str] = set()
        self.base_url = f"http://127.0.0.1:{self.server_address[1]}"

    def endpoint(self, engine_start_id: str = "start-1", **more: Any) -> EngineEndpoint:
        settings = {"base_url": self.base_url, "served_model": "served", "api_key": KEY} | more
        return EngineEndpoint(engine_start_id=engine_start_id, **settings)

    def handle_error(self, *_: Any) -> None:
        """A client that went away is no news."""

    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        self.prompts += request["prompt"]
        self.models.add(request["model"])
        choices = [
            self.score(tokens) if request.get("echo") else self.generate(tokens, request)
            for tokens in request["prompt"]
        ]
        if self.fault == "too few choices":
            choices.pop()
        return {"choices": [{"index": i, **choice} for i, choice in enumerate(choices)][::-1]}

    def score(self, tokens: list[int]) -> dict[str, Any]:
        told = [None, *(logprob(token) for token in tokens[1:]), -1.0]
        top = [None, *({WORDS[token]: logprob(token)} for token in tokens[1:]), {"w0": -1.0}]
        if self.fault == "too few logprobs":
            told, top = told[:-2], top[:-2]
        return {"text": "", "logprobs": {"token_logprobs": told, "top_logprobs": top}}

    def generate(self, tokens: list[int], request: dict[str, Any]) -> dict[str, Any]:
        prompt = " ".join(WORDS[token] for token in tokens)
        by_end = next((reply for end, reply in self.ends.items() if prompt.endswith(end)), "w1 w2")
        words = self.replies.get(prompt, by_end).split()
        if request["temperature"] > 0:
            self.sampled.append((request["temperature"], request["seed"]))
            words = self.by_seed(request["seed"]).split() if self.by_seed else words
        kept = words[: request["max_tokens"]]
        reason = "length" if len(kept) < len(words) else "stop"
        choice = {"text": " " + " ".join(kept), "finish_reason": reason}
        if request.get("return_token_ids"):
            choice["token_ids"] = [
                *(WORDS.index(word) if word in WORDS else 2 for word in kept),
                *([1] if reason == "stop" else []),
            ]
        return choice


class Handler(BaseHTTPRequestHandler):
    server: Completions

    def answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        if self.headers["Authorization"] != f"Bearer {KEY}":
            return self.answer(401, {"error": {"message": "wrong key"}})
        model = {"id": "served", "max_model_len": self.server.context_tokens, "parent": None}
        adapters = [{"id": name, "max_model_len": None, "parent": "served"} for name in self.server.adapters]
        return self.answer(200, {"data": [model, *adapters]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.server.fault
        if fault == "hang":
            time.sleep(30)
        if fault == "closes":
            self.close_connection = True
            return None
        if fault == "refuses":
            return self.answer(500, {"error": {"message": "out of memory in the attention kernel"}})
        if fault == "not JSON":
            return self.answer(200, "{")
        return self.answer(200, self.server.complete(request))

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@contextmanager
def serving() -> Iterator[Completions]:
    server = Completions()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def completions() -> Iterator[Completions]:
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def bos_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer-bos"), adds_bos=True)


@pytest.fixture
def engine_key() -> str:
    return KEY
