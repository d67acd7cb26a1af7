-- What validated_table needs of runs, points and verdicts, free of prices and times. Each table is the view of the
-- same name with `fresh_` before it, as of the last load, which fills it anew.
CREATE TABLE store.table_points (
    model VARCHAR NOT NULL,
    checkpoint VARCHAR NOT NULL,
    revision VARCHAR NOT NULL,
    baseline VARCHAR NOT NULL,
    is_baseline BOOLEAN NOT NULL,
    precision VARCHAR NOT NULL,
    weight_format VARCHAR NOT NULL,
    kv_cache_dtype VARCHAR NOT NULL,
    kernel VARCHAR,
    kernel_mode VARCHAR,
    weights VARCHAR NOT NULL,
    gpu VARCHAR NOT NULL,
    sm_arch VARCHAR NOT NULL,
    mig_slice VARCHAR,
    gpu_count INTEGER NOT NULL,
    engine VARCHAR NOT NULL,
    engine_version VARCHAR NOT NULL,
    workload VARCHAR,
    isl INTEGER,
    osl INTEGER,
    operating_point VARCHAR,            -- NULL: no load was measured, one row for the run
    concurrency INTEGER,
    output_tok_s DOUBLE,
    total_tok_s DOUBLE,
    ttft_p50_ms DOUBLE,
    ttft_p99_ms DOUBLE,
    tpot_p50_ms DOUBLE,
    tpot_p99_ms DOUBLE,
    kv_cache_tokens BIGINT,
    bound_tok_s DOUBLE,
    pct_of_bound DOUBLE,
    no_speedup VARCHAR,                 -- why speedup_vs_baseline is NULL
    speedup_vs_baseline DOUBLE,
    policy VARCHAR NOT NULL,
    stale_after_days INTEGER NOT NULL,
    evidence VARCHAR NOT NULL,
    validity VARCHAR NOT NULL,
    validity_reasons VARCHAR[] NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    measured_at TIMESTAMPTZ NOT NULL,
    run_id VARCHAR NOT NULL
);

CREATE TABLE store.standing_verdicts (
    run_id VARCHAR NOT NULL,
    use VARCHAR NOT NULL,
    decided_by VARCHAR NOT NULL,        -- the run whose verdict stands
    verdict VARCHAR NOT NULL,
    worst_task VARCHAR,
    quality_delta DOUBLE,
    quality_delta_ci_low DOUBLE,
    quality_delta_ci_high DOUBLE,
    flip_rate DOUBLE,
    decided_at TIMESTAMPTZ NOT NULL
);
