"""Measure throughput and latency over a concurrency sweep with vLLM's own bench, on the running engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quantgate.bundles.seal import LoadRows
from quantgate.bundles.staging import REMOVE, write_json
from quantgate.model.config.workloads import Workload
from quantgate.model.enums import Validity
from quantgate.model.errors import RunError
from quantgate.model.words import counted
from quantgate.model.yaml_file import read_object
from tasks.engine.endpoint import EngineEndpoint
from tasks.engine.process import OutOfTimeError, await_end, child_environment, run_tied
from tasks.engine.server import RunningEngine
from tasks.progress import Reporter
from tasks.throughput import bench_driver
from tasks.time_left import level_key

# A single-threaded client that is busy this share of the time is what is being measured.
CLIENT_SATURATED_SHARE = 0.9
# Where half of all tokens follow the one before almost at once, they arrived in bursts: client or server was
# starved of its core, and TTFT holds what belongs to TPOT.
BURST_SHARE_OF_TPOT = 0.1
SHORTFALL = 0.01
"""Share by which a level may fall short of what was asked: lengths are exact, since a prompt's end is ignored."""
STARTUP_ALLOWANCE_S = 300.0
LEVEL_COLUMNS = ("operating_point", "concurrency", "requests", "warmup_requests", "seed", "engine_start_id")
LOAD_COLUMNS = tuple(name for name in LEVEL_COLUMNS if name != "engine_start_id")
"""Columns that make the load of a level, beside its lengths."""
POINTS_FILE, REQUESTS_FILE = "load_points.parquet", "requests.parquet"
METRICS = ("ttft", "tpot", "itl", "e2el")


def operating_point(concurrency: int) -> str:
    """Return the name of a load level, e.g. ``c8``."""
    return f"c{concurrency}"


def levels(workload: Workload, out_dir: Path) -> list[dict[str, Any]]:
    """Return the concurrency sweep: each level with its requests, its warm-up and its own seed (fresh prompts)."""
    return [
        {
            "operating_point": operating_point(concurrency),
            "concurrency": concurrency,
            "requests": max(workload.min_prompts, workload.prompts_per_concurrency * concurrency),
            "warmup_requests": concurrency,
            "seed": workload.seed * 1000 + index,
            "out": str(out_dir / f"{operating_point(concurrency)}.json"),
        }
        for index, concurrency in enumerate(workload.concurrency)
    ]


def load_of(workload: Workload, level: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes the load of a level: equal for two levels that ask an engine the same."""
    lengths = {"isl_tokens": workload.isl_tokens, "osl_tokens": workload.osl_tokens}
    return {name: level[name] for name in LOAD_COLUMNS} | lengths


def unfinished(workload: Workload, out_dir: Path) -> list[dict[str, Any]]:
    """Return the levels that have no result yet."""
    return [level for level in levels(workload, out_dir) if not Path(level["out"]).exists()]


def write_reused(
    level: Mapping[str, Any], point: Mapping[str, Any], requests: Sequence[Mapping[str, Any]], run_id: str
) -> None:
    """Finish a level with what an earlier run measured.

    Args:
        level: of `levels`.
        point: its row of ``load_points.parquet``.
        requests: its rows of ``requests.parquet``.
        run_id: the run that measured it.
    """
    point = {**point, "measured_at": point["measured_at"].isoformat()}
    write_json(Path(level["out"]), {"reused_from": run_id, "point": point, "requests": requests})


def measure_load(
    engine: RunningEngine,
    workload: Workload,
    *,
    tokenizer: str,
    out_dir: Path,
    log: Path,
    report: Reporter,
    title: str,
    trust_remote_code: bool = False,
) -> None:
    """Measure every level that is not finished; each appears in ``out_dir`` as it ends.

    Raises:
        RunError: the bench or the engine failed, or ran out of time.
    """
    todo = unfinished(workload, out_dir)
    if not todo:
        return
    out_dir.mkdir(parents=True, exist_ok=True)
    spec_file = out_dir / "spec.json"
    own = {"tokenizer": tokenizer, "trust_remote_code": trust_remote_code}
    spec_file.write_text(json.dumps(_spec(engine.endpoint, workload, todo) | own))
    variables = child_environment() | engine.environment.config.environment
    variables |= {"OPENAI_API_KEY": engine.endpoint.api_key, "HF_HUB_OFFLINE": "1"}

    parts = [level_key(level["concurrency"]) for level in todo]

    def poll() -> None:
        engine.endpoint.check_alive()
        step.update(sum(Path(level["out"]).exists() for level in todo), len(todo))

    try:
        with report.step(f"{title}: {counted(len(todo), 'load level')}", unit="levels", parts=parts) as step:
            run_tied(
                [str(engine.environment.python), bench_driver.__file__, str(spec_file)],
                what=title,
                log=log,
                environment=variables,
                timeout_s=STARTUP_ALLOWANCE_S + workload.level_timeout_s * len(todo),
                poll=poll,
            )
        if _with_failures(todo):
            await_end(engine.endpoint.check_alive, engine.endpoint.metrics)
    except RunError as error:
        # Requests that failed because the engine was ending say nothing of the level.
        for file in _with_failures(todo):
            file.unlink()
        if isinstance(error, OutOfTimeError):
            engine.endpoint.check_alive()
            words = engine.endpoint.last_words()
            raise RunError(f"{error.what}; the engine: {words}", where=error.where, hint=error.hint) from None
        if error.where == title:
            await_end(engine.endpoint.check_alive, engine.endpoint.metrics)
        raise


def _spec(engine: EngineEndpoint, workload: Workload, todo: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the engine, the load and the levels that ``bench_driver`` is to run; it holds no secret."""
    return {
        "base_url": engine.base_url,
        "model": engine.served_model,
        "isl_tokens": workload.isl_tokens,
        "osl_tokens": workload.osl_tokens,
        "levels": [{**level, "engine_start_id": engine.engine_start_id} for level in todo],
    }


def _with_failures(todo: list[dict[str, Any]]) -> list[Path]:
    """Return results of these levels that hold failed requests."""
    files = [Path(level["out"]) for level in todo]
    return [file for file in files if file.exists() and read_object(file, REMOVE)["result"]["failed"]]


def _falls_short(measured: float, asked: float) -> bool:
    """Return True if a figure is more than `SHORTFALL` below what it must be."""
    return measured < (1 - SHORTFALL) * asked


def _shortfalls(workload: Workload, result: Mapping[str, Any], level: Mapping[str, Any]) -> dict[str, bool]:
    """Hold a level against what was asked; the bench counts a stream that broke off as completed.

    Args:
        workload: its lengths.
        result: as the bench wrote it.
        level: what was asked, and what the engine counted.

    Returns:
        By reason, whether it applies.
    """
    completed, tokens, duration_s = result["completed"], result["total_output_tokens"], result["duration"]
    ends_s = [
        start + ttft + sum(itls)
        for start, ttft, itls in zip(result["start_times"], result["ttfts"], result["itls"], strict=False)
    ]
    span_s = max(ends_s) - min(result["start_times"]) if ends_s else 0.0
    return {
        "fewer_requests": _falls_short(completed + result["failed"], level["requests"]),
        "fewer_input_tokens": _falls_short(result["total_input_tokens"], completed * workload.isl_tokens),
        "fewer_output_tokens": _falls_short(tokens, completed * workload.osl_tokens),
        "in_band_errors": bool(level.get("engine_errors"))
        or sum(map(bool, result["errors"])) > result["failed"],
        "duration_mismatch": _falls_short(duration_s, span_s)
        or _falls_short(duration_s * result["output_throughput"], tokens)
        or _falls_short(tokens, duration_s * result["output_throughput"]),
    }


def _reasons(workload: Workload, result: dict[str, Any], level: dict[str, Any]) -> list[str]:
    """Return why a level's figures must not be used; empty if they may."""
    completed = result["completed"]
    applies = {
        "no_request_completed": not completed,
        "failed_requests": result["failed"],
        **_shortfalls(workload, result, level),
        "client_saturated": level.get("client_cpu_share", 0) >= CLIENT_SATURATED_SHARE,
        "client_starved": completed
        and result["median_itl_ms"] <= BURST_SHARE_OF_TPOT * result["mean_tpot_ms"],
        "prefix_cache_hits": level.get("prefix_cache_hit_tokens"),
    }
    return [reason for reason, holds in applies.items() if holds]


def _latencies(result: dict[str, Any]) -> dict[str, float | None]:
    """Return mean and percentiles in ms; None if nothing completed, where the bench reports zeros."""
    return {
        f"{metric}_{statistic}_ms": result.get(f"{statistic}_{metric}_ms") if result["completed"] else None
        for metric in METRICS
        for statistic in ("mean", "p50", "p90", "p99")
    }


def rows(workload: Workload, out_dir: Path) -> LoadRows:
    """Make the rows of ``load_points.parquet`` and ``requests.parquet`` from the finished levels."""
    points: list[dict[str, Any]] = []
    requests: list[dict[str, Any]] = []
    reused: dict[str, str] = {}
    for file in (Path(level["out"]) for level in levels(workload, out_dir)):
        level = read_object(file, REMOVE)
        if "reused_from" in level:
            point = level["point"]
            reused[point["operating_point"]] = level["reused_from"]
            points.append({**point, "measured_at": datetime.fromisoformat(point["measured_at"])})
            requests += level["requests"]
            continue
        result = level["result"]
        reasons = _reasons(workload, result, level)
        points.append(
            {
                **{name: level[name] for name in LEVEL_COLUMNS},
                "isl_tokens": workload.isl_tokens,
                "osl_tokens": workload.osl_tokens,
                "completed": result["completed"],
                "failed": result["failed"],
                "duration_s": result["duration"],
                "input_tokens": result["total_input_tokens"],
                "output_tokens": result["total_output_tokens"],
                "requests_per_s": result["request_throughput"],
                "output_tok_s": result["output_throughput"],
                "total_tok_s": result["total_token_throughput"],
                **_latencies(result),
                "prefix_cache_hit_tokens": level.get("prefix_cache_hit_tokens"),
                "client_cpu_share": level.get("client_cpu_share"),
                "validity": Validity.QUARANTINED if reasons else Validity.VALID,
                "validity_reasons": reasons,
                "measured_at": datetime.fromtimestamp(file.stat().st_mtime, UTC),
            }
        )
        requests += _requests(level["operating_point"], result)
    return LoadRows(points, requests, reused)


def _requests(point: str, result: dict[str, Any]) -> list[dict[str, Any]]:
    """Make one row a request; an end-to-end latency is the first token's plus all that follow."""
    rows = []
    for index, error in enumerate(result["errors"]):
        itls_s, ttft_s = result["itls"][index], result["ttfts"][index]
        answered = not error
        rows.append(
            {
                "operating_point": point,
                "request": index,
                "start_s": result["start_times"][index],
                "ttft_ms": ttft_s * 1000 if answered else None,
                "itl_ms": [value * 1000 for value in itls_s],
                "e2el_ms": (ttft_s + sum(itls_s)) * 1000 if answered else None,
                "input_tokens": result["input_lens"][index],
                "output_tokens": result["output_lens"][index],
                "error": error or None,
            }
        )
    return rows
