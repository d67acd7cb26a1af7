"""Arrow schemas of a bundle's Parquet files; every number's unit stands in its name."""

from __future__ import annotations

import pyarrow as pa

SAMPLES = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("filter", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),  # the document's `id`, else its content hash
        pa.field("doc_repeat", pa.int32(), nullable=False),  # numbers documents that are the same
        pa.field("doc_hash", pa.string(), nullable=False),
        pa.field("prompt_hash", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
        pa.field("target_hash", pa.string(), nullable=False),
        pa.field("responses", pa.string(), nullable=False),  # JSON, as lm-eval gives them
        pa.field("answer", pa.string(), nullable=False),  # filtered response; the chosen option for choices
        pa.field("score", pa.float64(), nullable=False),
        pa.field("output_tokens", pa.int64()),
        pa.field("finish_reason", pa.string()),
        pa.field("cluster", pa.string()),  # subject or passage, where there is one
        pa.field("engine_start_id", pa.string(), nullable=False),
        pa.field("position", pa.int32()),  # in the order of quantgate.judge.document_order, from 0
    ]
)

TEXT_COLUMNS = ("target", "responses", "answer")
"""Columns of the samples that nobody judges by; a reasoning model's are long."""

PROMPTS = pa.schema(
    [
        pa.field("prompt_hash", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)

_LATENCIES = [
    pa.field(f"{metric}_{statistic}_ms", pa.float64())
    for metric in ("ttft", "tpot", "itl", "e2el")
    for statistic in ("mean", "p50", "p90", "p99")
]

LOAD_POINTS = pa.schema(
    [
        pa.field("operating_point", pa.string(), nullable=False),  # e.g. c8
        pa.field("concurrency", pa.int32(), nullable=False),
        pa.field("isl_tokens", pa.int32(), nullable=False),
        pa.field("osl_tokens", pa.int32(), nullable=False),
        pa.field("requests", pa.int32(), nullable=False),
        pa.field("completed", pa.int32(), nullable=False),
        pa.field("failed", pa.int32(), nullable=False),
        pa.field("warmup_requests", pa.int32(), nullable=False),
        pa.field("duration_s", pa.float64(), nullable=False),
        pa.field("input_tokens", pa.int64(), nullable=False),
        pa.field("output_tokens", pa.int64(), nullable=False),
        pa.field("requests_per_s", pa.float64(), nullable=False),  # requests per second
        pa.field("output_tok_s", pa.float64(), nullable=False),
        pa.field("total_tok_s", pa.float64(), nullable=False),
        *_LATENCIES,
        pa.field("prefix_cache_hit_tokens", pa.int64()),
        pa.field("client_cpu_share", pa.float64()),  # CPU seconds of the client per second of wall
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("validity", pa.string(), nullable=False),
        pa.field("validity_reasons", pa.list_(pa.string()), nullable=False),
        pa.field("engine_start_id", pa.string(), nullable=False),
        pa.field("measured_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)

REQUESTS = pa.schema(
    [
        pa.field("operating_point", pa.string(), nullable=False),
        pa.field("request", pa.int32(), nullable=False),
        pa.field("start_s", pa.float64()),
        pa.field("ttft_ms", pa.float64()),
        pa.field("itl_ms", pa.list_(pa.float64())),
        pa.field("e2el_ms", pa.float64()),
        pa.field("input_tokens", pa.int64()),
        pa.field("output_tokens", pa.int64()),
        pa.field("error", pa.string()),
    ]
)

TELEMETRY = pa.schema(
    [
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("phase", pa.string(), nullable=False),
        pa.field("engine_start_id", pa.string(), nullable=False),
        pa.field("engine_rss_bytes", pa.int64()),
        pa.field("engine_cpu_percent", pa.float64()),  # 100 is one core
        pa.field("requests_running", pa.float64()),
        pa.field("requests_waiting", pa.float64()),
        pa.field("kv_cache_usage", pa.float64()),  # fraction, 0 to 1
    ]
)

FIDELITY = pa.schema(
    [
        pa.field("text_id", pa.string(), nullable=False),
        # In the text, from 0; the first token has no prediction.
        pa.field("token_index", pa.int32(), nullable=False),
        pa.field("token_id", pa.int32(), nullable=False),
        pa.field("logprob", pa.float64(), nullable=False),  # natural logarithm, of the text's own token
        pa.field("top_token_ids", pa.list_(pa.int32()), nullable=False),  # most probable first
        pa.field("top_logprobs", pa.list_(pa.float32()), nullable=False),
        pa.field("k", pa.int32(), nullable=False),  # entries asked for; the vocabulary's size: all of it
        pa.field("vocab_size", pa.int32(), nullable=False),
        # That of the manifest's fidelity record; of a baseline once more, by another start (A/A).
        pa.field("engine_start_id", pa.string(), nullable=False),
    ]
)

SAMPLES_FILE, PROMPTS_FILE = "samples.parquet", "prompts.parquet"
CONTROL_SAMPLES_FILE, FIDELITY_FILE = "control_samples.parquet", "fidelity.parquet"

LEAST_LOGPROB = -9999.0
"""What vLLM writes for a probability of 0 (its clamp_prompt_logprobs); infinity is read as it."""

BUNDLE_FILES: dict[str, pa.Schema] = {
    "samples.parquet": SAMPLES,
    "prompts.parquet": PROMPTS,
    "load_points.parquet": LOAD_POINTS,
    "requests.parquet": REQUESTS,
    "telemetry.parquet": TELEMETRY,
    "control_samples.parquet": SAMPLES,
    "fidelity.parquet": FIDELITY,
}
"""Every Parquet file of a bundle; a run without quality or without load holds an empty one."""

LATER_FILES = frozenset({"control_samples.parquet", "fidelity.parquet"})
LATER_COLUMNS = {"samples.parquet": ("position",)}
"""What a bundle of schema_version 1 lacks: whole files, and columns that may be empty."""
