-- How a candidate's next-token distributions compare with its baseline's: one row per candidate whose baseline's run is
-- there, computed once, at a load, from store.fidelity.
CREATE TABLE store.fidelity_figures (
    run_id VARCHAR NOT NULL,
    baseline_run_id VARCHAR NOT NULL,
    text_id VARCHAR,
    tokens BIGINT NOT NULL,
    k INTEGER,
    vocab_size INTEGER,
    nan_tokens BIGINT NOT NULL,
    perplexity_baseline DOUBLE,
    perplexity DOUBLE,
    top1_agreement DOUBLE,              -- fraction of the tokens
    kl_mean_nats DOUBLE,
    kl_median_nats DOUBLE,
    kl_p99_nats DOUBLE,
    kl_p999_nats DOUBLE,
    reason VARCHAR                      -- why the figures are NULL
);
