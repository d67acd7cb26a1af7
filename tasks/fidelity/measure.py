"""Fidelity: the running engine's next-token distributions on a fixed text, by its prompt logprobs."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from quantgate.bundles.manifest import FidelityResult
from quantgate.bundles.schema import FIDELITY, FIDELITY_FILE, LEAST_LOGPROB
from quantgate.bundles.staging import RESULT, write_json
from quantgate.model.bounded import parse_json, read_bytes
from quantgate.model.disk import writing_to
from quantgate.model.errors import QuantgateError
from quantgate.model.words import counted
from tasks.engine.endpoint import EngineEndpoint
from tasks.engine.process import await_end
from tasks.fidelity.text import Passage, Text, windows

DEATHS = "deaths.json"

WHOLE_VOCABULARY_MOST = 4096
"""Vocabularies up to this size are asked for whole."""
TOP_K = 20
"""Entries of a distribution beyond it: vLLM's default of --max-logprobs, which then needn't be set."""
WINDOW_TOKENS = 512
_LOGITS_AT_ONCE = 1 << 26
"""A window's tokens times the vocabulary: vLLM computes the logits of a whole prompt at once, in 16 and 32 bits and as
logarithms, and its memory profile doesn't know of them. So they stay under 0.7 GB."""
_ENTRIES_AT_ONCE = 1 << 19
"""Entries of an answer; each is some 60 bytes of JSON."""
REQUEST_TIMEOUT_S = 300.0
DEATHS_MOST = 2
"""Number of ends over this after which an engine is not asked again: an alarm must not keep a run from its end."""
_NO_NUMBER = "float values are not JSON compliant"
"""Answer of vLLM 0.32, with status 400, if a logprob is NaN (tried on a checkpoint with one in its weights)."""


class CannotError(Exception):
    """The engine gives no prompt logprobs; says why."""


class _NotANumberError(Exception):
    """The engine's answer held a logprob that is not a number, so it could not be sent."""


def with_max_logprobs(vocab_size: int, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Add the argument that asking for the whole of a small vocabulary needs.

    vLLM refuses requests for more than ``max-logprobs`` entries and does nothing else with it, where it isn't
    negative: -1 would rule out sampling in shards (config/vllm.py of 0.32). It is no part of a run's fingerprint.

    Args:
        vocab_size: of the checkpoint.
        overrides: the run's own; one of them goes first.
    """
    whole = {"max-logprobs": vocab_size} if vocab_size <= WHOLE_VOCABULARY_MOST else {}
    return {**whole, **overrides}


def measure_fidelity(
    text: Text,
    engine: EngineEndpoint,
    *,
    vocab_size: int,
    out_dir: Path,
    on_progress: Callable[[int, int | None], None] = lambda _done, _total: None,
) -> FidelityResult:
    """Ask the engine for its distribution before each token of the text that counts.

    Args:
        text: the fixed text.
        engine: the running engine.
        vocab_size: of the checkpoint; up to `WHOLE_VOCABULARY_MOST` all of it is asked for, else `TOP_K`.
        out_dir: receives fidelity.parquet (``quantgate.bundles.schema.FIDELITY``) and then result.json.
        on_progress: receives the passages asked, and their number.

    Returns:
        What was measured; or why the engine gave nothing, which fails no run.

    Raises:
        RunError: the engine has ended; with its last words.
    """
    started = time.monotonic()
    deaths = _deaths(out_dir)
    skipped, table = f"the engine ended {counted(deaths, 'time')} over it", None
    if deaths < DEATHS_MOST:
        shutil.rmtree(out_dir, ignore_errors=True)
        out_dir.mkdir(parents=True)
        try:
            with _direct_client(engine) as client:
                table, skipped = _Requests(engine, client, vocab_size).rows(text, on_progress), ""
        except CannotError as error:
            skipped = str(error)
        except BaseException:
            _count_death(out_dir, deaths, engine)
            raise
    if table is not None:
        with writing_to(out_dir / FIDELITY_FILE):
            pq.write_table(table, out_dir / FIDELITY_FILE)
    result = FidelityResult(
        text_id=text.text_id,
        tokens=table.num_rows if table else 0,
        k=table["k"][0].as_py() if table else None,
        vocab_size=table["vocab_size"][0].as_py() if table else None,
        duration_s=time.monotonic() - started,
        engine_start_id=engine.engine_start_id,
        skipped=skipped,
    )
    write_json(out_dir / RESULT, result.model_dump(mode="json"))
    return result


def _deaths(out_dir: Path) -> int:
    file = out_dir / DEATHS
    return int(parse_json(read_bytes(file))) if file.exists() else 0


def _count_death(out_dir: Path, before: int, engine: EngineEndpoint) -> None:
    """Remember that the engine ended over this; whatever else stopped it doesn't count."""
    try:
        engine.check_alive()
    except QuantgateError:
        write_json(out_dir / DEATHS, before + 1)


def _direct_client(engine: EngineEndpoint) -> httpx.Client:
    """Open a connection that goes through no proxy."""
    headers = {"Authorization": f"Bearer {engine.api_key}"}
    return httpx.Client(base_url=engine.base_url, headers=headers, timeout=REQUEST_TIMEOUT_S, trust_env=False)


class _Requests:
    """Requests to one engine, one at a time: a batch could change what each of them gets."""

    def __init__(self, engine: EngineEndpoint, client: httpx.Client, vocab_size: int) -> None:
        self._engine, self._client, self._vocab_size = engine, client, vocab_size
        self._k = vocab_size if vocab_size <= WHOLE_VOCABULARY_MOST else TOP_K

    def rows(self, text: Text, on_progress: Callable[[int, int | None], None]) -> pa.Table:
        """Return the rows of every token that counts, in order.

        Raises:
            CannotError: the engine doesn't give what is needed.
        """
        prefix, size = self._prefix(), self._window_tokens()
        size -= len(prefix)
        if size < 2:
            raise CannotError("the engine's context is too short")
        rows: list[dict[str, Any]] = []
        before = 0
        for number, passage in enumerate(text.passages):
            tokens, first = self._tokens(passage)
            for window in windows(len(tokens), first if prefix else max(first, 1), size):
                asked = [*prefix, *tokens[window.start : window.end]]
                count = window.end - window.scored
                for index, entries in enumerate(self._distributions(asked, count), window.scored):
                    own = {"token_index": before + index, "token_id": tokens[index]}
                    rows.append({**own, **_distribution(entries, tokens[index], self._k)})
            before += len(tokens)
            on_progress(number + 1, len(text.passages))
        common = {
            "text_id": text.text_id,
            "k": self._k,
            "vocab_size": self._vocab_size,
            "engine_start_id": self._engine.engine_start_id,
        }
        if not rows:
            raise CannotError("no token of the text counts")
        return pa.Table.from_pylist([{**common, **row} for row in rows], FIDELITY)

    def _window_tokens(self) -> int:
        """Return the most tokens of a request: by the engine's context, its memory, and the size of its answer."""
        context_tokens = self._ask("GET", "/v1/models", "data")[0].get("max_model_len")
        most = min(WINDOW_TOKENS, _LOGITS_AT_ONCE // self._vocab_size, _ENTRIES_AT_ONCE // self._k)
        return min(most, context_tokens - 1) if isinstance(context_tokens, int) else most

    def _prefix(self) -> list[int]:
        """Return the tokens that the tokenizer puts before a text, such as BOS; they go before every window."""
        plain, whole = (self._tokenized("a", special=special) for special in (False, True))
        starts = [i for i in range(len(whole)) if whole[i : i + len(plain)] == plain]
        return whole[: starts[0]] if starts else []

    def _tokens(self, passage: Passage) -> tuple[list[int], int]:
        """Return a passage's tokens, and the index of its answer's first token."""
        tokens = self._tokenized(passage.prompt + passage.answer)
        return tokens, len(self._tokenized(passage.prompt)) if passage.prompt else 0

    def _tokenized(self, text: str, *, special: bool = False) -> list[int]:
        body = {"model": self._engine.served_model, "prompt": text, "add_special_tokens": special}
        tokens: list[int] = self._ask("POST", "/tokenize", "tokens", body)
        return tokens

    def _distributions(self, tokens: list[int], count: int) -> Iterator[dict[str, Any] | None]:
        """Yield the engine's logprobs at each of the last ``count`` tokens; None where one is not a number."""
        body = {
            "model": self._engine.served_model,
            "prompt": tokens,
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": self._k,
            "add_special_tokens": False,
        }
        try:
            choices = self._ask("POST", "/v1/completions", "choices", body)
        except _NotANumberError:
            yield from [None] * count
            return
        positions = choices[0].get("prompt_logprobs")
        if not isinstance(positions, list) or len(positions) != len(tokens):
            raise CannotError("it gives no prompt logprobs")
        yield from positions[len(tokens) - count :]

    def _ask(self, method: str, path: str, key: str, body: dict[str, Any] | None = None) -> Any:
        """Send one request, and return what its answer has under a key.

        Raises:
            CannotError: it was refused, or the answer is not what it should be.
            RunError: the engine has ended.
        """
        try:
            answer = self._client.request(method, path, json=body)
            if answer.is_success:
                return answer.json()[key]
        except httpx.TransportError as error:
            await_end(self._engine.check_alive)
            raise CannotError(f"{path} did not answer ({type(error).__name__})") from None
        except (ValueError, KeyError, TypeError):
            raise CannotError(f"{path} answers without '{key}'") from None
        said = answer.text[:300]
        if _NO_NUMBER in said:
            raise _NotANumberError
        if answer.status_code >= 500:
            self._engine.check_alive()
        raise CannotError(f"{path} answered with {answer.status_code}: {said}")


def _distribution(entries: dict[str, Any] | None, own: int, k: int) -> dict[str, Any]:
    """Return one token's part of a row: its own logprob, and the k most probable tokens.

    A logprob that is not a number leaves the lists empty: they would have no order.
    """
    if entries is None:
        return _NOT_A_NUMBER
    ids = np.fromiter(map(int, entries), np.int64, len(entries))
    given = [entry["logprob"] for entry in entries.values()]
    logprobs = np.array([math.nan if value is None else value for value in given], np.float64)
    own_logprob = logprobs[ids == own]
    if len(ids) < k or not len(own_logprob):
        raise CannotError(f"it gives {len(ids)} entries where {k} were asked for")
    if np.isnan(logprobs).any():
        return _NOT_A_NUMBER
    logprobs = np.maximum(logprobs, LEAST_LOGPROB)
    most_probable = np.lexsort((ids, -logprobs))[:k]
    return {
        "logprob": max(float(own_logprob[0]), LEAST_LOGPROB),
        "top_token_ids": ids[most_probable].astype(np.int32),
        "top_logprobs": logprobs[most_probable].astype(np.float32),
    }


_NOT_A_NUMBER: dict[str, Any] = {"logprob": math.nan, "top_token_ids": [], "top_logprobs": []}
