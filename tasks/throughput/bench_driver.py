"""Run vLLM's own ``bench serve`` in the engine's environment, once for every level of a concurrency sweep.

One process for the whole sweep pays vLLM's import once. ``python bench_driver.py SPEC.json``; each level's
result appears whole, by rename, when it is finished. The API key is in OPENAI_API_KEY.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

COUNTERS = {
    "prefix_cache_hit_tokens": re.compile(r"^vllm:prefix_cache_hits_total(?:\{.*\})? (\S+)$", re.MULTILINE),
    # A request that ends so breaks off its stream by an event that the bench takes for its end.
    "engine_errors": re.compile(
        r'^vllm:request_success_total\{.*finished_reason="(?:error|abort)".*\} (\S+)$', re.MULTILINE
    ),
}


def _counters(base_url: str) -> dict[str, float]:
    """Return what the engine has counted so far; what it doesn't count is left out."""
    try:
        with urllib.request.urlopen(f"{base_url}/metrics", timeout=10) as answer:  # noqa: S310
            text = answer.read().decode()
    except OSError:
        return {}
    counts = {name: pattern.findall(text) for name, pattern in COUNTERS.items()}
    return {name: sum(map(float, values)) for name, values in counts.items() if values}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _arguments(
    spec: dict[str, Any], level: dict[str, Any], parser: argparse.ArgumentParser
) -> argparse.Namespace:
    """Return the bench's arguments; those whose defaults mislead or differ between versions are explicit."""
    return parser.parse_args(
        [
            *("--backend", "openai", "--base-url", spec["base_url"], "--endpoint", "/v1/completions"),
            *("--model", spec["model"], "--served-model-name", spec["model"]),
            *("--tokenizer", spec["tokenizer"]),
            *("--dataset-name", "random", "--random-input-len", str(spec["isl_tokens"])),
            *("--random-output-len", str(spec["osl_tokens"]), "--random-range-ratio", "0", "--ignore-eos"),
            *("--num-prompts", str(level["requests"]), "--max-concurrency", str(level["concurrency"])),
            *("--request-rate", "inf", "--num-warmups", str(level["warmup_requests"])),
            *("--seed", str(level["seed"]), "--temperature", "0", "--ready-check-timeout-sec", "60"),
            *("--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,99"),
            "--save-detailed",
            "--disable-tqdm",
            *(("--trust-remote-code",) if spec["trust_remote_code"] else ()),
        ]
    )


def main() -> None:
    """Run the levels of the specification, one after the other."""
    from vllm.benchmarks import serve

    spec = json.loads(Path(sys.argv[1]).read_text())
    parser = argparse.ArgumentParser()
    serve.add_cli_args(parser)
    measured: dict[str, float] = {}
    benchmark = serve.benchmark

    async def watched(*args: Any, **kwargs: Any) -> Any:
        # The client's own CPU time around the requests, without imports and prompt generation.
        cpu_s, wall_s = _cpu_seconds(), time.perf_counter()
        result = await benchmark(*args, **kwargs)
        measured["client_cpu_share"] = (_cpu_seconds() - cpu_s) / (time.perf_counter() - wall_s)
        return result

    serve.benchmark = watched
    for level in spec["levels"]:
        before = _counters(spec["base_url"])
        result = serve.main(_arguments(spec, level, parser))
        after = _counters(spec["base_url"])
        counted = {
            name: int(after[name] - before[name]) if {name} <= before.keys() & after.keys() else None
            for name in COUNTERS
        }
        finished = {**level, "result": result, **counted, **measured}
        target = Path(level["out"])
        partial = target.with_suffix(".partial")
        partial.write_text(json.dumps(finished, default=float))
        os.replace(partial, target)  # noqa: PTH105 - the engine's interpreter may be older
        print(f"LEVEL DONE {level['operating_point']}", flush=True)


if __name__ == "__main__":
    main()
