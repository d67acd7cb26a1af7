"""One lm-eval task against the running engine: ``python -m tasks.lm_eval_worker SPEC.json OUT_DIR``.

A process of its own, so that a time limit can stop it and its memory goes with it. The key of the engine
is read from OPENAI_API_KEY. Beside the spec it writes progress.json and, if it fails, failure.json.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
import random
import shutil
import sys
import time
import traceback
from collections import defaultdict
from operator import itemgetter
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import requests
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from quantgate.model.errors import ConfigError, QuantgateError, RunError
from quantgate.model.records import TaskResult
from quantgate.model.tables import PROMPTS, SAMPLES
from tasks.lm_eval_documents import ask_only, placed
from tasks.lm_eval_rows import Generation, mean_score, prompt_rows, sample_rows
from tasks.quality import FAILURE, PROGRESS, RESULT, STOPPED_ANSWERING, Evaluation
from tasks.task_sources import FILE_BUILDERS, source_of

DEFAULT_CONTEXT_TOKENS = 2048
"""lm-eval's own default, for a server that doesn't say how long its contexts are."""

PROGRESS_EVERY_S = 0.2

RANDOM_SEED, NUMPY_SEED = 0, 1234
"""lm-eval's own, which it sets too late for a task that is loaded before: some shuffle choices as they load."""


class Progress:
    """Requests answered, in a file that is replaced as they come in."""

    def __init__(self, path: Path) -> None:
        """Nothing is known yet."""
        self._path, self._done, self._total, self._written = path, 0, 0, 0.0

    def expect(self, count: int) -> None:
        """So many requests more will be made."""
        self._total += count
        self._write()

    def add(self, count: int) -> None:
        """So many were answered."""
        self._done += count
        if self._done == self._total or time.monotonic() - self._written > PROGRESS_EVERY_S:
            self._write()

    def _write(self) -> None:
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps({"done": self._done, "total": self._total}))
        part.replace(self._path)
        self._written = time.monotonic()


class EngineClient(LocalCompletionsAPI):  # type: ignore[misc]
    """lm-eval's client of a completions server, made to notice what it would let pass.

    Kept by document: why each generation ended, and its length. Refused: an answer with fewer choices or
    log-probabilities than asked for, a continuation without a token of its own (it would always win),
    a generation that can't fit the context. Counted: prompts cut on the left to fit.

    Args:
        spec: what is evaluated and where.
        context_tokens: the longest context that the engine serves, in tokens.
        progress: told of every answer.
    """

    def __init__(self, spec: Evaluation, context_tokens: int, progress: Progress) -> None:
        """Load the checkpoint's tokenizer."""
        super().__init__(
            model=spec.served_model,
            base_url=spec.completions_url,
            tokenizer=spec.tokenizer,
            tokenizer_backend="huggingface",
            tokenized_requests=True,
            num_concurrent=spec.num_concurrent,
            batch_size=spec.batch_size,
            max_length=context_tokens,
            timeout=int(spec.request_timeout_s),
            trust_remote_code=spec.trust_remote_code,
        )
        if isinstance(spec.chat_template, str):
            self.tokenizer.chat_template = spec.chat_template
        self.progress = progress
        self.generations: dict[int, list[Generation]] = defaultdict(list)
        self.truncated = 0
        # A served text prompt begins with BOS where the tokenizer adds one; lm-eval's default leaves it out.
        # A chat template writes its own, as vLLM's chat endpoint takes it.
        plain = self.tokenizer("a", add_special_tokens=False).input_ids
        begins = self.tokenizer("a").input_ids == [self.tokenizer.bos_token_id, *plain]
        self.add_bos_token = begins and not spec.chat_template

    def loglikelihood(self, requests: list[Any], **kwargs: Any) -> Any:
        """Log-probabilities of continuations."""
        self.progress.expect(len(requests))
        return super().loglikelihood(requests, **kwargs)

    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> Any:
        for (context, continuation), context_tokens, continuation_tokens in requests:
            if not continuation_tokens:
                what = f"'{continuation}' adds no token to its prompt '…{context[-40:]}'"
                raise ConfigError(what, mend="Check the choice and the target_delimiter.")
            self.truncated += len(context_tokens) + len(continuation_tokens) > self.max_length
        return super()._loglikelihood_tokens(requests, **kwargs)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Generated texts, plain; how they ended is kept in ``generations``."""
        self.progress.expect(len(requests))
        for prompt, tokens in zip(requests, self.tok_encode([r.args[0] for r in requests]), strict=True):
            asked = int(prompt.args[1].get("max_gen_toks", self._max_gen_toks))
            if asked >= self.max_length:
                what = f"it generates up to {asked} tokens and the engine's context is {self.max_length + 1}"
                raise ConfigError(what, mend="Lower its max_gen_toks or raise max-model-len.")
            self.truncated += len(tokens) + asked > self.max_length
        answers: list[Generation] = super().generate_until(requests, disable_tqdm=disable_tqdm)
        for request, answer in zip(requests, answers, strict=True):
            self.generations[request.doc_id].append(answer)
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
        **_: Any,
    ) -> list[Any]:
        """One request of several prompts; lm-eval tries it again when it raises."""
        gen_kwargs = copy.deepcopy(gen_kwargs)
        payload = self._create_payload(messages, generate=generate, gen_kwargs=gen_kwargs, seed=self._seed)
        if generate:
            payload["return_token_ids"] = True  # vLLM's; others ignore it
        async with sem, session.post(self.base_url, json=payload, headers=self.header) as response:
            body = await response.text()
            if not response.ok:
                raise RunError(f"the engine answered {response.status}: {_message(body)}")
        choices = sorted(json.loads(body)["choices"], key=itemgetter("index"))
        if len(choices) != len(messages):
            raise RunError(f"the engine answered {len(choices)} of {len(messages)} prompts")
        answers: list[Any]
        if generate:
            answers = [self._generation(choice) for choice in choices]
        else:
            for choice, tokens in zip(choices, messages, strict=True):
                told = len(choice["logprobs"]["token_logprobs"])
                if told != len(tokens) + 1:
                    raise RunError(f"the engine gave {told - 1} log-probabilities for {len(tokens)} tokens")
            answers = self.parse_logprobs({"choices": choices}, tokens=messages, ctxlens=ctxlens)
        self.progress.add(len(messages))
        return answers

    def _generation(self, choice: dict[str, Any]) -> Generation:
        text = choice["text"] or ""
        tokens = choice.get("token_ids") or self.tok_encode(text, add_special_tokens=False)
        return Generation(text, output_tokens=len(tokens), finish_reason=choice.get("finish_reason"))


def _message(body: str) -> str:
    """The message of an error's body."""
    try:
        return str(json.loads(body)["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return body[:300]


def context_tokens_of(spec: Evaluation, api_key: str) -> int:
    """The longest context that the engine serves, in tokens.

    Raises:
        RunError: the engine doesn't answer, or serves no model of that name.
    """
    response = requests.get(spec.models_url, headers={"Authorization": f"Bearer {api_key}"}, timeout=30)
    if not response.ok:
        raise RunError(f"the engine answered {response.status_code}: {_message(response.text)}")
    served = {model["id"]: model for model in response.json()["data"]}
    if spec.served_model not in served:
        raise RunError(f"the engine serves {', '.join(served) or 'nothing'}, not {spec.served_model}")
    card = served[spec.served_model]
    card = served.get(card.get("parent"), card)  # an adapter's context is its model's
    return int(card.get("max_model_len") or DEFAULT_CONTEXT_TOKENS)


def load_task(spec: Evaluation, manager: TaskManager) -> Any:
    """The task as lm-eval runs it, its data files found wherever we are, the same in every process."""
    random.seed(RANDOM_SEED)
    np.random.seed(NUMPY_SEED)
    source = source_of(spec.task)
    config = load_yaml(source.path)
    if source.data is not None and config.get("dataset_path") in FILE_BUILDERS:
        files = {split: [str(file) for file in found] for split, found in source.data.items()}
        config["dataset_kwargs"] = {**config["dataset_kwargs"], "data_files": files}
    try:
        loaded = manager.load([config])["tasks"]
    except IndexError as error:  # lm-eval looks at the first document
        if "size 0" not in str(error):
            raise
        raise ConfigError("holds no documents", where=str(source.path), mend="Give it some.") from None
    return loaded[spec.task.task]


def choose_score(spec: Evaluation, task: Any) -> tuple[str, str]:
    """The metric and the filter that are kept: the suite's, else the task's first.

    Raises:
        ConfigError: the task has no such filter, or the metric is better when it is lower.
    """
    better = task.higher_is_better()
    metric = spec.task.metric or next(iter(better), "")
    if better.get(metric) is False:
        mend = "A margin needs a score that is better when it is higher."
        raise ConfigError(f"metric '{metric}' is better when it is lower", mend=mend)
    filters = [one.name for one in task._filters]
    chosen = spec.task.filter or filters[0]
    if chosen not in filters:
        raise ConfigError(f"has no filter '{chosen}'", mend=f"It has: {', '.join(filters)}.")
    return metric, chosen


def run(spec: Evaluation, out_dir: Path, progress: Progress, api_key: str) -> None:
    """Evaluate, and let ``out_dir`` appear whole."""
    started = time.monotonic()
    context_tokens = context_tokens_of(spec, api_key)
    manager = TaskManager(include_defaults=False)  # lm-eval's own index would take ten seconds to build
    task = load_task(spec, manager)
    metric, chosen = choose_score(spec, task)
    engine = EngineClient(spec, context_tokens, progress)
    every = list(task.eval_docs)
    asked = placed(spec.task.task, every, spec.start, spec.end)
    ask_only(task, every, list(asked))
    evaluated = simple_evaluate(
        model=engine,
        tasks=[task],
        task_manager=manager,
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=bool(spec.chat_template),
        fewshot_as_multiturn=bool(spec.chat_template),
    )
    samples = [row for row in evaluated["samples"][spec.task.task] if row["filter"] == chosen]
    rows = sample_rows(
        samples,
        spec.task,
        asked,
        metric=metric,
        choices_of=task.doc_to_choice if task.OUTPUT_TYPE == "multiple_choice" else None,
        generations=engine.generations,
        engine_start_id=spec.engine_start_id,
    )
    result = TaskResult(
        task=spec.task.task,
        family=spec.task.family,
        metric=metric,
        filter=chosen,
        version=str(task.VERSION),
        documents=len(rows),
        mean_score=mean_score(rows),
        output_type=task.OUTPUT_TYPE,
        duration_s=time.monotonic() - started,
        engine_start_id=spec.engine_start_id,
        truncated_prompts=engine.truncated,
        documents_available=len(every),
    )
    partial = out_dir.with_name(f".{out_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        pq.write_table(pa.Table.from_pylist(rows, schema=SAMPLES), partial / "samples.parquet")
        pq.write_table(
            pa.Table.from_pylist(prompt_rows(samples), schema=PROMPTS), partial / "prompts.parquet"
        )
        (partial / RESULT).write_text(result.model_dump_json(indent=1), encoding="utf-8")
        partial.rename(out_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def describe(error: BaseException) -> QuantgateError:
    """An error as one line with a mend, for whoever started the evaluation."""
    if isinstance(error, QuantgateError):
        return error
    if isinstance(error, asyncio.TimeoutError | requests.Timeout):
        return RunError("the engine did not answer a request in time", mend="See the engine's log.")
    if isinstance(error, aiohttp.ClientConnectionError | requests.ConnectionError):
        return RunError(f"{STOPPED_ANSWERING}: {_reason(error)}", mend="See the engine's log.")
    return RunError(f"lm-eval failed: {type(error).__name__}: {_short(error)}")


def _reason(error: BaseException) -> str:
    """The system's reason at the bottom of a connection's error."""
    below: BaseException | None = error
    while below is not None:
        number = getattr(below, "errno", None)
        if isinstance(number, int):
            return os.strerror(number)
        below = below.__cause__ or below.__context__
    return _short(error)


def _short(error: BaseException) -> str:
    """An error's message on one line, its end if it is long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"…{text[-200:]}"


def main(arguments: list[str]) -> int:
    """Run as a script; returns the exit status."""
    spec_path, out_dir = Path(arguments[0]), Path(arguments[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    # Once a request has failed for good, lm-eval leaves the others' failures unread: one reason is enough.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        spec = Evaluation.model_validate_json(spec_path.read_text(encoding="utf-8"))
        run(spec, out_dir, Progress(spec_path.with_name(PROGRESS)), os.environ.get("OPENAI_API_KEY", ""))
    except Exception as error:  # whatever it is, its reason must reach the asking process
        traceback.print_exc()
        told = describe(error)
        failure = {"what": told.what, "where": told.where, "mend": told.mend, "exit_status": told.exit_status}
        spec_path.with_name(FAILURE).write_text(json.dumps(failure), encoding="utf-8")
        return told.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
