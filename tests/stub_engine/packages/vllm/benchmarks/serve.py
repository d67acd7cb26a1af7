"""A stub of ``vllm bench serve``: real requests to the server, figures that depend on the level alone."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vllm.stub_answers import draw

TEXT = (
    *("backend", "base-url", "endpoint", "model", "served-model-name", "tokenizer", "dataset-name"),
    *("random-range-ratio", "request-rate", "temperature", "percentile-metrics", "metric-percentiles"),
)
NUMBERS = (
    *("random-input-len", "random-output-len", "num-prompts", "max-concurrency", "num-warmups", "seed"),
    "ready-check-timeout-sec",
)
FLAGS = ("ignore-eos", "save-detailed", "disable-tqdm")


def add_cli_args(parser: argparse.ArgumentParser) -> None:
    """The bench's own flags, as far as Quantgate passes them."""
    for name in TEXT:
        parser.add_argument(f"--{name}")
    for name in NUMBERS:
        parser.add_argument(f"--{name}", type=int)
    for name in FLAGS:
        parser.add_argument(f"--{name}", action="store_true")


def _request(args: argparse.Namespace, number: int) -> str:
    """One streamed request; its error, or nothing."""
    asked = {"model": args.model, "prompt": f"{args.seed} {number}", "stream": True}
    request = urllib.request.Request(
        args.base_url + args.endpoint,
        json.dumps(asked | {"max_tokens": args.random_output_len}).encode(),
        {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return "" if answer.read().endswith(b"[DONE]\n\n") else "the stream broke off"
    except OSError as error:
        return str(error)


async def benchmark(args: argparse.Namespace) -> list[str]:
    """The errors of every request."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(args.max_concurrency) as pool:
        asked = [
            loop.run_in_executor(pool, _request, args, number)
            for number in range(args.num_warmups + args.num_prompts)
        ]
        return (await asyncio.gather(*asked))[args.num_warmups :]


def main(args: argparse.Namespace) -> dict[str, Any]:
    """The result in the bench's own format."""
    errors = asyncio.run(benchmark(args))
    checkpoint, level, tokens = Path(args.tokenizer).name, args.max_concurrency, args.random_output_len
    completed = sum(not error for error in errors)
    itl_s = 0.004 + 0.001 * level**0.5 + 0.001 * draw(checkpoint)
    ttfts = [
        0 if errors[i] else 0.01 * level**0.5 * (1 + draw(args.seed, i)) for i in range(args.num_prompts)
    ]
    itls = [[] if error else [itl_s * (1 + 0.1 * draw(i))] * (tokens - 1) for i, error in enumerate(errors)]
    e2els = [ttft + sum(gaps) for ttft, gaps in zip(ttfts, itls, strict=True)]
    free_s, starts = [0.0] * level, []
    for e2el in e2els:  # whoever is free first asks next
        asker = free_s.index(min(free_s))
        starts.append(free_s[asker])
        free_s[asker] += e2el
    duration = max(*free_s, 1e-3)
    total_in, total_out = completed * args.random_input_len, completed * tokens
    answered = [i for i, error in enumerate(errors) if not error]
    series = {
        "ttft": [ttfts[i] for i in answered],
        "tpot": [sum(itls[i]) / (tokens - 1) for i in answered],
        "itl": [gap for i in answered for gap in itls[i]],
        "e2el": [e2els[i] for i in answered],
    }
    figures: dict[str, float] = {}
    for name, values in series.items():
        ordered = sorted(value * 1000 for value in values) or [0.0]
        figures[f"mean_{name}_ms"] = statistics.fmean(ordered)
        figures[f"std_{name}_ms"] = statistics.pstdev(ordered)
        figures[f"median_{name}_ms"] = statistics.median(ordered)
        for percent in (50, 90, 99):
            figures[f"p{percent}_{name}_ms"] = ordered[round((len(ordered) - 1) * percent / 100)]
    return {
        "duration": duration,
        "completed": completed,
        "failed": len(errors) - completed,
        "total_input_tokens": total_in,
        "total_output_tokens": total_out,
        "request_throughput": completed / duration,
        "output_throughput": total_out / duration,
        "total_token_throughput": (total_in + total_out) / duration,
        "input_lens": [args.random_input_len] * len(errors),
        "output_lens": [0 if error else tokens for error in errors],
        "start_times": starts,
        "ttfts": ttfts,
        "itls": itls,
        "errors": errors,
        **figures,
    }
