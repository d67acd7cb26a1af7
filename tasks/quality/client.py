"""lm-eval's client of the running engine's completions endpoint, and the progress of its requests."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import aiohttp
import requests
from lm_eval.models.openai_completions import LocalCompletionsAPI

from quantgate.bundles.staging import write_json
from quantgate.model.bounded import parse_json
from quantgate.model.errors import ConfigError, RunError
from tasks.quality.evaluate import Evaluation
from tasks.quality.rows import Generation

DEFAULT_CONTEXT_TOKENS = 2048
"""lm-eval's own default, for a server that doesn't say how long its contexts are."""

PROGRESS_EVERY_S = 0.2


class Progress:
    """Requests answered, in a file that is replaced as they come in."""

    def __init__(self, path: Path) -> None:
        """Begin with nothing expected."""
        self._path, self._done, self._total, self._written = path, 0, 0, 0.0

    def expect(self, count: int) -> None:
        """Add the number of requests that will be made."""
        self._total += count
        self._write()

    def add(self, count: int) -> None:
        """Add the number of requests that were answered."""
        self._done += count
        if self._done == self._total or time.monotonic() - self._written > PROGRESS_EVERY_S:
            self._write()

    def _write(self) -> None:
        write_json(self._path, {"done": self._done, "total": self._total})
        self._written = time.monotonic()


class _Prompt(str):
    """A prompt that remembers the seed that its answer is sampled with; None for a greedy one."""

    __slots__ = ("seed",)

    seed: int | None

    def __new__(cls, text: str, seed: int | None) -> _Prompt:
        """Make a string with one more attribute."""
        made = super().__new__(cls, text)
        made.seed = seed
        return made


class EngineClient(LocalCompletionsAPI):  # type: ignore[misc]
    """lm-eval's client of a completions server, made to notice what it would let pass.

    Kept by task and document: why each generation ended, and its length. RefusedError: an answer with fewer choices or
    log-probabilities than asked for, a continuation without a token of its own (it would always win),
    a generation that can't fit the context. Counted: prompts cut on the left to fit. Greedy where a task says
    so (`do_sample: false`), whatever temperature it gives as well. A sampled answer has a seed of its own, by
    prompt and repeat: repeats differ, documents don't share their chance, every checkpoint has the same, and no name
    moves it.

    Args:
        spec: what is evaluated and where.
        context_tokens: the longest context that the engine serves, in tokens.
        progress: counts every answer.
        api_key: the engine's.
    """

    def __init__(self, spec: Evaluation, context_tokens: int, progress: Progress, api_key: str) -> None:
        """Load the checkpoint's tokenizer."""
        self._api_key = api_key
        super().__init__(
            model=spec.engine.served_model,
            base_url=f"{spec.engine.base_url}/v1/completions",
            tokenizer=spec.tokenizer,
            tokenizer_backend="huggingface",
            tokenized_requests=True,
            num_concurrent=spec.num_concurrent,
            batch_size=spec.batch_size,
            max_length=context_tokens,
            timeout=int(spec.timeout_s),
            trust_remote_code=spec.trust_remote_code,
        )
        if spec.chat_template is not None and spec.chat_template.text is not None:
            self.tokenizer.chat_template = spec.chat_template.text
        self.progress = progress
        self.generations: dict[str, dict[int, list[Generation]]] = defaultdict(lambda: defaultdict(list))
        self.truncated = 0
        self._at_once = (spec.num_concurrent, spec.batch_size)
        # A served text prompt begins with BOS where the tokenizer adds one; lm-eval's default leaves it out.
        # A chat template writes its own, as vLLM's chat endpoint expects.
        plain = self.tokenizer("a", add_special_tokens=False).input_ids
        begins = self.tokenizer("a").input_ids == [self.tokenizer.bos_token_id, *plain]
        self.add_bos_token = begins and spec.chat_template is None

    @property
    def api_key(self) -> str:
        """Return the engine's key; lm-eval would read it from the environment, where a task's code sees it too."""
        return self._api_key

    def loglikelihood(self, requests: list[Any], **kwargs: Any) -> Any:
        """Return log-probabilities of continuations."""
        self.progress.expect(len(requests))
        return super().loglikelihood(requests, **kwargs)

    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> Any:
        for (context, continuation), context_tokens, continuation_tokens in requests:
            if not continuation_tokens:
                what = f"'{continuation}' adds no token to its prompt '…{context[-40:]}'"
                raise ConfigError(what, hint="Check the choice and the target_delimiter.")
            self.truncated += len(context_tokens) + len(continuation_tokens) > self.max_length
        return super()._loglikelihood_tokens(requests, **kwargs)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Return generated texts as plain strings; how they ended is kept in ``generations``."""
        self.progress.expect(len(requests))
        for prompt, tokens in zip(requests, self.tok_encode([r.args[0] for r in requests]), strict=True):
            asked = int(prompt.args[1].get("max_gen_toks", self._max_gen_toks))
            if asked >= self.max_length:
                what = f"it generates up to {asked} tokens and the engine's context is {self.max_length + 1}"
                raise ConfigError(what, hint="Lower its max_gen_toks or raise max-model-len.")
            self.truncated += len(tokens) + asked > self.max_length
        prompts = _with_seeds(requests)
        concurrent, batch = self._at_once
        if any(prompt.args[0].seed is not None for prompt in prompts):
            concurrent, batch = concurrent * batch, 1  # a request has one seed for all its prompts
        self._concurrent, self._batch_size = concurrent, batch
        answers: list[Generation] = super().generate_until(prompts, disable_tqdm=disable_tqdm)
        self._concurrent, self._batch_size = self._at_once
        for request, answer in zip(requests, answers, strict=True):
            self.generations[request.task_name][request.doc_id].append(answer)
        return [str(answer) for answer in answers]

    async def amodel_call(
        self,
        session: aiohttp.ClientSession,
        sem: asyncio.Semaphore,
        messages: list[list[int]],
        *,
        generate: bool = True,
        ctxlens: list[int] | None = None,
        gen_kwargs: dict[str, Any] | None = None,
        cache_keys: list[Any] | None = None,
        **_: Any,
    ) -> list[Any]:
        """Send one request of several prompts; lm-eval tries it again when it raises."""
        gen_kwargs = copy.deepcopy(gen_kwargs)
        own = cache_keys[0][0].seed if generate and cache_keys else None
        seed = self._seed if own is None else own
        payload = self._create_payload(messages, generate=generate, gen_kwargs=gen_kwargs, seed=seed)
        if generate:
            payload["return_token_ids"] = True  # vLLM's; others ignore it
        async with sem, session.post(self.base_url, json=payload, headers=self.header) as response:
            body = await response.text()
            if not response.ok:
                raise RunError(f"the engine answered {response.status}: {_message(body)}")
        choices = sorted(parse_json(body)["choices"], key=itemgetter("index"))
        if len(choices) != len(messages):
            raise RunError(f"the engine answered {len(choices)} of {len(messages)} prompts")
        answers: list[Any]
        if generate:
            answers = [self._generation(choice) for choice in choices]
        else:
            for choice, tokens in zip(choices, messages, strict=True):
                given = len(choice["logprobs"]["token_logprobs"])
                if given != len(tokens) + 1:
                    raise RunError(f"the engine gave {given - 1} log-probabilities for {len(tokens)} tokens")
            answers = self.parse_logprobs({"choices": choices}, tokens=messages, ctxlens=ctxlens)
        self.progress.add(len(messages))
        return answers

    def _generation(self, choice: dict[str, Any]) -> Generation:
        text = choice["text"] or ""
        tokens = choice.get("token_ids") or self.tok_encode(text, add_special_tokens=False)
        return Generation(text, output_tokens=len(tokens), finish_reason=choice.get("finish_reason"))


def _with_seeds(requests: Sequence[Any]) -> list[Any]:
    """Prepare requests for generated text: greedy ones without a temperature, others with a seed."""
    repeats: Counter[tuple[str, int]] = Counter()
    made = []
    for request in requests:
        text, settings = request.args[0], dict(request.args[1])
        if settings.get("do_sample") is False:
            settings["temperature"] = 0.0
        seed, document = None, (request.task_name, request.doc_id)
        if float(settings.get("temperature") or 0) > 0:
            drawn = hashlib.sha256(f"{repeats[document]}\n{text}".encode()).digest()
            seed = int.from_bytes(drawn[:4], "big") >> 1
        repeats[document] += 1
        made.append(dataclasses.replace(request, arguments=(_Prompt(text, seed), settings)))
    return made


def _message(body: str) -> str:
    """Return the message in an error's body."""
    try:
        return str(parse_json(body)["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return body[:300]


def context_tokens_of(spec: Evaluation, api_key: str) -> int:
    """Return the longest context that the engine serves, in tokens.

    Raises:
        RunError: the engine doesn't answer, or serves no model of that name.
    """
    url, model = f"{spec.engine.base_url}/v1/models", spec.engine.served_model
    response = requests.get(url, headers={"Authorization": f"Bearer {api_key}"}, timeout=30)
    if not response.ok:
        raise RunError(f"the engine answered {response.status_code}: {_message(response.text)}")
    served = {card["id"]: card for card in response.json()["data"]}
    if model not in served:
        raise RunError(f"the engine serves {', '.join(served) or 'nothing'}, not {model}")
    card = served[model]
    card = served.get(card.get("parent"), card)  # an adapter's context is its model's
    return int(card.get("max_model_len") or DEFAULT_CONTEXT_TOKENS)
