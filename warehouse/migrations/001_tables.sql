-- Facts as the bundles and the configuration hold them. Views are the public face; tables stay in schema store.
-- Rows are appended per run and never updated. No secondary indexes and no foreign keys: the loader checks a
-- bundle whole before it takes it in, and every table is keyed by run_id.
CREATE TABLE store.settings (name VARCHAR NOT NULL, value VARCHAR NOT NULL);

CREATE TABLE store.runs (
    run_id VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL,
    verdict_key VARCHAR NOT NULL,       -- what a verdict belongs to: a repeat of it is a drift check
    checkpoint VARCHAR NOT NULL,
    checkpoint_source VARCHAR NOT NULL,
    revision VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    architecture VARCHAR NOT NULL,
    precision VARCHAR NOT NULL,
    weight_format VARCHAR NOT NULL,
    kv_cache_dtype VARCHAR NOT NULL,
    parameters BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    vocab_size BIGINT NOT NULL,
    max_position_embeddings BIGINT,
    weights VARCHAR NOT NULL,
    baseline VARCHAR,                   -- NULL for the baseline itself
    baseline_revision VARCHAR,
    baseline_run_id VARCHAR,
    gpu VARCHAR NOT NULL,
    device_name VARCHAR NOT NULL,
    gpu_count INTEGER NOT NULL,
    sm_arch VARCHAR NOT NULL,
    mig_slice VARCHAR,
    driver VARCHAR,
    memory_bytes BIGINT NOT NULL,
    cpu_cores INTEGER NOT NULL,
    engine VARCHAR NOT NULL,
    engine_version VARCHAR NOT NULL,
    suite VARCHAR,                      -- NULL: no quality declared
    workload VARCHAR,                   -- NULL: no throughput declared
    policy VARCHAR NOT NULL,
    policy_fingerprint VARCHAR NOT NULL,
    evidence VARCHAR NOT NULL,
    validity VARCHAR NOT NULL,
    validity_reasons VARCHAR[] NOT NULL,
    continues VARCHAR,
    started_at TIMESTAMPTZ NOT NULL,
    measured_at TIMESTAMPTZ NOT NULL,
    schema_version INTEGER NOT NULL,
    manifest JSON NOT NULL
);

CREATE TABLE store.engine_starts (
    run_id VARCHAR NOT NULL,
    engine_start_id VARCHAR NOT NULL,
    engine VARCHAR NOT NULL,
    engine_version VARCHAR NOT NULL,
    kernels MAP(VARCHAR, VARCHAR) NOT NULL,
    kernel_mode VARCHAR NOT NULL,
    attention_backend VARCHAR,
    kv_cache_tokens BIGINT,
    start_duration_s DOUBLE NOT NULL,
    environment MAP(VARCHAR, VARCHAR) NOT NULL,
    command VARCHAR[] NOT NULL,
    started_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE store.run_tasks (
    run_id VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    family VARCHAR NOT NULL,
    metric VARCHAR NOT NULL,
    filter VARCHAR NOT NULL,
    version VARCHAR NOT NULL,
    documents BIGINT NOT NULL,
    mean_score DOUBLE NOT NULL,
    output_type VARCHAR NOT NULL,
    duration_s DOUBLE NOT NULL,
    engine_start_id VARCHAR NOT NULL,
    truncated_prompts BIGINT NOT NULL   -- requests whose prompt was cut to fit the engine's context
);

CREATE TABLE store.samples (
    run_id VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    family VARCHAR NOT NULL,
    filter VARCHAR NOT NULL,
    metric VARCHAR NOT NULL,
    doc_id VARCHAR NOT NULL,
    doc_repeat INTEGER NOT NULL,
    doc_hash VARCHAR NOT NULL,
    prompt_hash VARCHAR NOT NULL,
    target VARCHAR NOT NULL,
    target_hash VARCHAR NOT NULL,
    responses VARCHAR NOT NULL,
    answer VARCHAR NOT NULL,
    score DOUBLE NOT NULL,
    output_tokens BIGINT,
    finish_reason VARCHAR,
    cluster VARCHAR,
    engine_start_id VARCHAR NOT NULL
);

CREATE TABLE store.prompts (prompt_hash VARCHAR NOT NULL, text VARCHAR NOT NULL);

CREATE TABLE store.load_points (
    run_id VARCHAR NOT NULL,
    operating_point VARCHAR NOT NULL,
    concurrency INTEGER NOT NULL,
    isl_tokens INTEGER NOT NULL,
    osl_tokens INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    warmup_requests INTEGER NOT NULL,
    duration_s DOUBLE NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    requests_per_s DOUBLE NOT NULL,
    output_tok_s DOUBLE NOT NULL,
    total_tok_s DOUBLE NOT NULL,
    ttft_mean_ms DOUBLE,
    ttft_p50_ms DOUBLE,
    ttft_p90_ms DOUBLE,
    ttft_p99_ms DOUBLE,
    tpot_mean_ms DOUBLE,
    tpot_p50_ms DOUBLE,
    tpot_p90_ms DOUBLE,
    tpot_p99_ms DOUBLE,
    itl_mean_ms DOUBLE,
    itl_p50_ms DOUBLE,
    itl_p90_ms DOUBLE,
    itl_p99_ms DOUBLE,
    e2el_mean_ms DOUBLE,
    e2el_p50_ms DOUBLE,
    e2el_p90_ms DOUBLE,
    e2el_p99_ms DOUBLE,
    prefix_cache_hit_tokens BIGINT,
    client_cpu_share DOUBLE,
    seed BIGINT NOT NULL,
    validity VARCHAR NOT NULL,
    validity_reasons VARCHAR[] NOT NULL,
    engine_start_id VARCHAR NOT NULL,
    measured_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE store.requests (
    run_id VARCHAR NOT NULL,
    operating_point VARCHAR NOT NULL,
    request INTEGER NOT NULL,
    start_s DOUBLE,
    ttft_ms DOUBLE,
    itl_ms DOUBLE[],
    e2el_ms DOUBLE,
    input_tokens BIGINT,
    output_tokens BIGINT,
    error VARCHAR
);

CREATE TABLE store.telemetry (
    run_id VARCHAR NOT NULL,
    "at" TIMESTAMPTZ NOT NULL,
    phase VARCHAR NOT NULL,
    engine_start_id VARCHAR NOT NULL,
    engine_rss_bytes BIGINT,
    engine_cpu_percent DOUBLE,
    requests_running DOUBLE,
    requests_waiting DOUBLE,
    kv_cache_usage DOUBLE
);

-- From the configuration: replaced whole when it changes.
CREATE TABLE store.price_offers (
    provider VARCHAR NOT NULL,
    region VARCHAR NOT NULL,
    gpu VARCHAR NOT NULL,
    gpu_count INTEGER NOT NULL,         -- the GPUs that usd_per_hour buys together
    price_kind VARCHAR NOT NULL,
    usd_per_hour DOUBLE NOT NULL,
    valid_from DATE NOT NULL,           -- from its start, UTC
    valid_to DATE,                      -- until its start, UTC
    source VARCHAR NOT NULL,
    note VARCHAR
);

CREATE TABLE store.gpus (
    gpu VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    nvml_names VARCHAR[] NOT NULL,
    sm_arch VARCHAR,
    vram_gb DOUBLE,
    bandwidth_gb_s DOUBLE,
    dense_fp16_tflops DOUBLE,
    dense_fp8_tflops DOUBLE,
    dense_fp4_tflops DOUBLE,
    mig_slices_max INTEGER,
    source VARCHAR NOT NULL,
    note VARCHAR
);

-- Policies as runs declared them and as the configuration holds them now, told apart by fingerprint.
CREATE TABLE store.policies (
    policy VARCHAR NOT NULL,
    policy_fingerprint VARCHAR NOT NULL,
    description VARCHAR NOT NULL,
    alpha DOUBLE NOT NULL,
    planned_power DOUBLE NOT NULL,
    stale_after_days INTEGER NOT NULL,
    families MAP(VARCHAR, STRUCT(margin DOUBLE, min_documents BIGINT)) NOT NULL,
    uses MAP(VARCHAR, VARCHAR[]) NOT NULL
);

CREATE TABLE store.current_policies (policy VARCHAR NOT NULL, policy_fingerprint VARCHAR NOT NULL);

-- What the judge said of a run, once, under the policy that its manifest declares.
CREATE TABLE store.verdicts (
    run_id VARCHAR NOT NULL,
    baseline_run_id VARCHAR NOT NULL,
    use VARCHAR NOT NULL,
    policy VARCHAR NOT NULL,
    policy_fingerprint VARCHAR NOT NULL,
    verdict VARCHAR NOT NULL,
    worst_task VARCHAR,
    quality_delta DOUBLE,
    ci_low DOUBLE,
    ci_high DOUBLE,
    flip_rate DOUBLE,
    degraded BOOLEAN,
    documents_needed BIGINT,
    reason VARCHAR NOT NULL
);

CREATE TABLE store.task_verdicts (
    run_id VARCHAR NOT NULL,
    baseline_run_id VARCHAR NOT NULL,
    use VARCHAR NOT NULL,
    policy VARCHAR NOT NULL,
    policy_fingerprint VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    family VARCHAR NOT NULL,
    margin DOUBLE NOT NULL,
    pairs BIGINT NOT NULL,
    baseline_score DOUBLE NOT NULL,
    candidate_score DOUBLE NOT NULL,
    quality_delta DOUBLE NOT NULL,
    ci_low DOUBLE NOT NULL,
    ci_high DOUBLE NOT NULL,
    worse BIGINT NOT NULL,
    better BIGINT NOT NULL,
    flip_rate DOUBLE NOT NULL,
    p_noninferior DOUBLE NOT NULL,
    p_inferior DOUBLE NOT NULL,
    p_inferior_holm DOUBLE NOT NULL,
    p_degraded DOUBLE NOT NULL,
    degraded BOOLEAN NOT NULL,
    outcome VARCHAR NOT NULL,
    test VARCHAR NOT NULL,
    documents_needed BIGINT,
    reason VARCHAR NOT NULL
);
