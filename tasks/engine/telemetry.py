"""Sample the engine's processes while they are measured: memory, CPU, requests in flight, KV cache."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psutil

from tasks.engine import log
from tasks.engine.server import RunningEngine

INTERVAL_S = 2.0


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def sample(engine: RunningEngine, phase: str, seen: dict[int, psutil.Process]) -> dict[str, Any]:
    """Return one row of ``telemetry.parquet``.

    Args:
        engine: the engine.
        phase: what is being measured.
        seen: processes seen before, by id; CPU use is counted since a process was last seen.
    """
    resident, busy = 0, 0.0
    for child in _tree(engine.process.pid):
        process = seen.setdefault(child.pid, child)
        try:
            resident += process.memory_info().rss
            busy += process.cpu_percent(None)
        except psutil.NoSuchProcess:
            continue
    metrics = engine.endpoint.metrics()
    return {
        "at": datetime.now(UTC),
        "phase": phase,
        "engine_start_id": engine.start.engine_start_id,
        "engine_rss_bytes": resident or None,
        "engine_cpu_percent": busy,
        "requests_running": log.metric_sum(metrics, "vllm:num_requests_running"),
        "requests_waiting": log.metric_sum(metrics, "vllm:num_requests_waiting"),
        "kv_cache_usage": log.metric_sum(metrics, "vllm:kv_cache_usage_perc"),
    }


@contextmanager
def watch(engine: RunningEngine, phase: str) -> Iterator[list[dict[str, Any]]]:
    """Sample the engine about every two seconds; the rows are in the list that is given."""
    rows: list[dict[str, Any]] = []
    seen: dict[int, psutil.Process] = {}
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(INTERVAL_S):
            rows.append(sample(engine, phase, seen))

    thread = threading.Thread(target=loop, daemon=True, name="telemetry")
    thread.start()
    try:
        yield rows
    finally:
        ended.set()
        thread.join(timeout=10)
