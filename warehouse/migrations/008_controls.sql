-- What a run's samples say of its own soundness, counted once by the loader (warehouse/controls.py).
CREATE TABLE store.task_controls (
    run_id VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    baseline_loaded BOOLEAN NOT NULL,   -- false: its baseline's run wasn't there, counted again when it is
    documents BIGINT NOT NULL,
    mean_score DOUBLE,                  -- of the scores that are numbers
    nan_scores BIGINT NOT NULL,
    empty_answers BIGINT NOT NULL,
    ended BIGINT NOT NULL,              -- answers of which the engine said why they ended
    cap_hits BIGINT NOT NULL,           -- of them those that reached the token limit
    output_tokens_mean DOUBLE,
    output_length_ratio DOUBLE,         -- candidate / baseline, over the same documents
    baseline_cap_hit_rate DOUBLE,       -- over the same documents
    p_gain DOUBLE                       -- exact, one-sided, of no gain over the baseline
);

-- The baseline against itself over a restart of its engine (A/A).
CREATE TABLE store.aa_controls (
    run_id VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    documents BIGINT NOT NULL,
    flips BIGINT NOT NULL,              -- documents whose score changed
    changed_responses BIGINT NOT NULL,  -- documents whose answer changed at all
    flip_rate_upper DOUBLE NOT NULL,    -- one-sided 1 - alpha bound
    delta DOUBLE NOT NULL,              -- second - first, a fraction
    delta_ci_low DOUBLE NOT NULL,       -- two-sided 1 - 2 alpha
    delta_ci_high DOUBLE NOT NULL,
    p_moved DOUBLE NOT NULL,            -- exact, two-sided, of no change
    resolution DOUBLE NOT NULL          -- the margin that so many flips leave to the task's documents, a fraction
);

-- Scores of baselines that somebody published (configs/models): replaced whole when they change.
CREATE TABLE store.baseline_scores (
    checkpoint VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    metric VARCHAR NOT NULL,
    filter VARCHAR NOT NULL,
    score DOUBLE NOT NULL,              -- a fraction
    documents BIGINT,
    comparable BOOLEAN NOT NULL,        -- by the settings of lm-eval's task
    source VARCHAR NOT NULL,
    note VARCHAR
);
