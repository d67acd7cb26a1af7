"""What an engine's prompt logprobs become, against a fake server: whole or top k, NaN, refusals, a sudden end."""

from __future__ import annotations

import itertools
import json
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from quantgate.bundles.manifest import FidelityResult
from quantgate.bundles.schema import FIDELITY, FIDELITY_FILE
from quantgate.bundles.staging import Staging
from quantgate.model.errors import RunError
from tasks.engine.endpoint import EngineEndpoint
from tasks.fidelity import measure
from tasks.fidelity.text import Passage, Text

TEXT = Text("t.txt@0", (Passage(prompt="one two", answer=" three four"), Passage(answer="five six seven")))
BOS = 99


class FakeServer(ThreadingHTTPServer):
    """For fault injection: a tokenizer of word lengths, distributions by a formula, and a fault if one is asked for."""

    daemon_threads = True

    def __init__(self, fault: str = "", vocabulary: int = 100, bos: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.fault, self.vocabulary, self.bos = fault, vocabulary, bos
        self.asked: list[dict[str, Any]] = []
        self.context = 512

    def handle_error(self, *_: Any) -> None:
        """A connection that was cut is what was asked for."""


def finished(folder: Path) -> FidelityResult | None:
    staging = Staging(folder.parent, "run", datetime.now(UTC), fidelity=folder.name)
    return staging.fidelity_result()


def distribution(before: int, vocabulary: int) -> dict[int, float]:
    """Logprobs of what comes after a token."""
    weights = [1 + (before * i) % 7 for i in range(vocabulary)]
    total = sum(weights)
    return {i: math.log(weight / total) for i, weight in enumerate(weights)}


def logprob(before: int, token: int, vocabulary: int) -> float:
    return distribution(before, vocabulary)[token]


def place(before: int, token: int, k: int, vocabulary: int) -> dict[str, Any]:
    every = distribution(before, vocabulary)
    ranked = sorted(every, key=lambda i: (-every[i], -i))[:k]
    return {str(i): {"logprob": every[i], "rank": 1, "decoded_token": "x"} for i in {*ranked, token}}


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def _answer(self, body: Any, status: int = 200) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "m", "max_model_len": self.server.context}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server, fault = self.server, self.server.fault
        assert self.headers["Authorization"] == "Bearer key"
        if self.path == "/tokenize" and fault != "no tokenize":
            tokens = [len(word) for word in asked["prompt"].split()]
            self._answer({"tokens": [BOS] * (server.bos and asked["add_special_tokens"]) + tokens})
            return
        server.asked.append(asked)
        tokens, k = asked["prompt"], asked.get("prompt_logprobs", 0)
        if fault == "no tokenize":
            self._answer({"detail": "Not Found"}, 404)
        elif fault == "refuses":
            self._answer({"error": {"message": f"Requested prompt logprobs of {k}"}}, 400)
        elif fault == "nan as vLLM" and 5 in tokens:
            self._answer({"error": {"message": "Out of range float values are not JSON compliant"}}, 400)
        elif fault == "ends":
            self.close_connection = True
            self.connection.close()
        elif fault == "echoes":
            self._answer({"choices": [{"text": "x"}]})
        else:
            places: list[Any] = [None]
            places += [
                place(b, t, 3 if fault == "gives 3" else k, server.vocabulary)
                for b, t in itertools.pairwise(tokens)
            ]
            if fault == "nan" and 5 in tokens:
                places[-1][str(tokens[-1])]["logprob"] = math.nan
            if fault == "zero":
                places[-1]["0"]["logprob"] = -math.inf
            self._answer({"choices": [{"prompt_logprobs": places}]})

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@contextmanager
def running(**settings: Any) -> Iterator[FakeServer]:
    server = FakeServer(**settings)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def engine(server: FakeServer, ended: list[str] | None = None) -> EngineEndpoint:
    def check_alive() -> None:
        if ended:
            raise RunError(ended[0])

    return EngineEndpoint(
        base_url=f"http://127.0.0.1:{server.server_port}",
        served_model="m",
        engine_start_id="start-1",
        api_key="key",
        check_alive=check_alive,
    )


def rows(folder: Path) -> list[dict[str, Any]]:
    table = pq.read_table(folder / FIDELITY_FILE)
    assert table.schema.equals(FIDELITY)
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def test_a_small_vocabulary_is_asked_for_whole(tmp_path: Path) -> None:
    with running(vocabulary=100) as server:
        told = measure.measure_fidelity(TEXT, engine(server), vocab_size=100, out_dir=tmp_path / "f")
    assert (told.tokens, told.k, told.vocab_size, told.skipped) == (4, 100, 100, "")
    assert [asked["prompt_logprobs"] for asked in server.asked] == [100, 100]
    assert [asked["prompt"] for asked in server.asked] == [[3, 3, 5, 4], [4, 3, 5]]
    found = rows(tmp_path / "f")
    # The prompt's tokens do not count, nor does the first of a text that nothing comes before.
    assert [(row["token_index"], row["token_id"]) for row in found] == [(2, 5), (3, 4), (5, 3), (6, 5)]
    assert [row["logprob"] for row in found] == pytest.approx(
        [logprob(3, 5, 100), logprob(5, 4, 100), logprob(4, 3, 100), logprob(3, 5, 100)]
    )
    for row in found:
        assert sorted(row["top_token_ids"]) == list(range(100))
        assert row["top_logprobs"] == sorted(row["top_logprobs"], reverse=True)
        assert sum(map(math.exp, row["top_logprobs"])) == pytest.approx(1, abs=1e-5)
        assert (row["k"], row["vocab_size"], row["text_id"]) == (100, 100, "t.txt@0")
    assert finished(tmp_path / "f") == told
    assert finished(tmp_path / "other") is None


def test_a_large_vocabulary_by_its_top_twenty(tmp_path: Path) -> None:
    with running(vocabulary=5000) as server:
        told = measure.measure_fidelity(TEXT, engine(server), vocab_size=5000, out_dir=tmp_path / "f")
    assert (told.k, told.vocab_size) == (20, 5000)
    assert [asked["prompt_logprobs"] for asked in server.asked] == [20, 20]
    for row in rows(tmp_path / "f"):
        assert len(row["top_token_ids"]) == len(row["top_logprobs"]) == 20
        assert row["logprob"] < row["top_logprobs"][-1] or row["token_id"] in row["top_token_ids"]


def test_a_token_that_begins_every_text_comes_before_every_window(tmp_path: Path) -> None:
    with running(bos=True) as server:
        server.context = 4  # of which one is generated, and one is the BOS: two tokens at a time
        told = measure.measure_fidelity(TEXT, engine(server), vocab_size=100, out_dir=tmp_path / "f")
    assert [row["token_index"] for row in rows(tmp_path / "f")] == [2, 3, 4, 5, 6]
    assert told.tokens == 5
    prompts = [asked["prompt"] for asked in server.asked]
    assert prompts == [[BOS, 3, 5], [BOS, 5, 4], [BOS, 4, 3], [BOS, 3, 5]]


@pytest.mark.parametrize("fault", ["nan", "nan as vLLM"])
def test_what_is_not_a_number_is_a_row_without_a_distribution(tmp_path: Path, fault: str) -> None:
    with running(fault=fault) as server:
        told = measure.measure_fidelity(TEXT, engine(server), vocab_size=100, out_dir=tmp_path / "f")
    assert (told.tokens, told.skipped) == (4, "")
    broken = [row for row in rows(tmp_path / "f") if math.isnan(row["logprob"])]
    assert len(broken) == (2 if fault == "nan" else 4)
    assert all(row["top_token_ids"] == row["top_logprobs"] == [] for row in broken)


def test_a_probability_of_zero_stays_a_number(tmp_path: Path) -> None:
    with running(fault="zero") as server:
        measure.measure_fidelity(TEXT, engine(server), vocab_size=100, out_dir=tmp_path / "f")
    last = rows(tmp_path / "f")[1]
    assert (last["top_token_ids"][-1], last["top_logprobs"][-1]) == (0, -9999.0)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("refuses", "/v1/completions answered with 400: .*Requested prompt logprobs of 100"),
        ("no tokenize", "/tokenize answered with 404"),
        ("echoes", "it gives no prompt logprobs"),
        ("gives 3", "it gives [34] entries where 100 were asked for"),
    ],
)
def test_an_engine_that_cannot_is_a_reason_and_no_failure(tmp_path: Path, fault: str, told: str) -> None:
    with running(fault=fault) as server:
        found = measure.measure_fidelity(TEXT, engine(server), vocab_size=100, out_dir=tmp_path / "f")
    assert re.match(told, found.skipped), found.skipped
    assert (found.tokens, found.k) == (0, None)
    assert not (tmp_path / "f" / FIDELITY_FILE).exists()
    assert finished(tmp_path / "f") == found


def test_an_engine_that_ends_over_it_fails_the_run_twice_and_then_is_not_asked_again(tmp_path: Path) -> None:
    with running(fault="ends") as server:
        for _ in range(measure.DEATHS_MOST):
            with pytest.raises(RunError, match="out of memory"):
                measure.measure_fidelity(
                    TEXT, engine(server, ["out of memory"]), vocab_size=100, out_dir=tmp_path / "f"
                )
            assert finished(tmp_path / "f") is None
        asked = len(server.asked)
        told = measure.measure_fidelity(TEXT, engine(server), vocab_size=100, out_dir=tmp_path / "f")
    assert told.skipped == "the engine ended 2 times over it"
    assert len(server.asked) == asked


@pytest.mark.parametrize(
    ("vocab_size", "overrides", "served"),
    [
        (256, {"max-model-len": 512}, {"max-logprobs": 256, "max-model-len": 512}),
        (4096, {}, {"max-logprobs": 4096}),
        (128_256, {"max-model-len": 512}, {"max-model-len": 512}),
        (256, {"max-logprobs": 30}, {"max-logprobs": 30}),
    ],
)
def test_only_a_small_vocabulary_needs_an_argument(
    vocab_size: int, overrides: dict[str, Any], served: dict[str, Any]
) -> None:
    assert measure.with_max_logprobs(vocab_size, overrides) == served
