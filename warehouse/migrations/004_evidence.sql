-- What others published, and what the guide says of it. From configs/reference and configs/claims.yaml: replaced
-- whole when they change.
CREATE TABLE store.published_throughput (
    dataset VARCHAR NOT NULL,
    round VARCHAR NOT NULL,             -- MLPerf's round, a documentation's version
    entry VARCHAR NOT NULL,
    published_on DATE,                  -- NULL: the source has no date, round says which version it is
    submitter VARCHAR,
    availability VARCHAR,
    system VARCHAR,
    hardware VARCHAR NOT NULL,          -- as the source names it
    gpu VARCHAR,                        -- NULL: other hardware than any of store.gpus
    gpu_count INTEGER NOT NULL,         -- accelerators per node times nodes
    nodes INTEGER NOT NULL,
    parallelism VARCHAR,
    benchmark VARCHAR NOT NULL,         -- the model as the source names it, with its accuracy target
    model VARCHAR NOT NULL,
    billion_parameters DOUBLE,
    scenario VARCHAR NOT NULL,
    isl INTEGER,
    osl INTEGER,
    concurrency INTEGER,                -- NULL: as many requests as it takes
    precision VARCHAR,                  -- NULL: unknown
    precision_declared VARCHAR,
    precision_note VARCHAR,
    engine VARCHAR,
    output_tok_s DOUBLE NOT NULL,       -- of all its GPUs
    accuracy VARCHAR,
    by_guide BOOLEAN NOT NULL,          -- the guide's own figure: no evidence for the guide's claims
    source VARCHAR NOT NULL,
    licence VARCHAR NOT NULL
);

CREATE TABLE store.published_scores (
    dataset VARCHAR NOT NULL,
    run VARCHAR NOT NULL,
    published_on DATE,
    benchmark VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    billion_parameters DOUBLE,
    precision VARCHAR,
    precision_declared VARCHAR NOT NULL,
    is_baseline BOOLEAN NOT NULL,
    checkpoint VARCHAR NOT NULL,
    revision VARCHAR,
    task VARCHAR NOT NULL,
    task_version VARCHAR NOT NULL,
    metric VARCHAR NOT NULL,
    filter VARCHAR NOT NULL,
    is_primary BOOLEAN NOT NULL,        -- the one score that stands for its task
    documents BIGINT NOT NULL,
    score DOUBLE NOT NULL,
    hardware VARCHAR NOT NULL,
    gpu VARCHAR,
    engine VARCHAR NOT NULL,
    harness VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    licence VARCHAR NOT NULL
);

-- The guide's tables as references to stored inputs; `stated` is its own figure, kept to compare with.
CREATE TABLE store.guide (provider VARCHAR NOT NULL, prices_of DATE NOT NULL);

CREATE TABLE store.reference_costs (
    position INTEGER NOT NULL,
    config VARCHAR NOT NULL,
    gpu VARCHAR NOT NULL,
    precision VARCHAR NOT NULL,
    price_kind VARCHAR NOT NULL,
    dataset VARCHAR NOT NULL,
    entry VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    scaled_from VARCHAR,                -- the GPU whose throughput is scaled by dense TFLOPS of the precision
    stated_usd_per_mtok DOUBLE
);

CREATE TABLE store.reference_ratios (
    position INTEGER NOT NULL,
    ratio VARCHAR NOT NULL,
    quantity VARCHAR,                   -- NULL: the break-even price of `of` against `to`
    "of" VARCHAR NOT NULL,
    "to" VARCHAR NOT NULL,
    stated DOUBLE,
    note VARCHAR
);

CREATE TABLE store.shown_models (position INTEGER NOT NULL, model VARCHAR NOT NULL);

CREATE TABLE store.claims (
    position INTEGER NOT NULL,
    claim_id VARCHAR NOT NULL,
    claim VARCHAR NOT NULL,
    section VARCHAR NOT NULL,           -- of the guide
    measure VARCHAR NOT NULL,           -- what bears on it; view claim_values has a part for each
    low DOUBLE,
    high DOUBLE,
    about DOUBLE,                       -- the middle of a range that stands for "about"
    unit VARCHAR NOT NULL,
    rule VARCHAR NOT NULL,              -- every: each value lies in the range; typical: their median does
    condition VARCHAR,
    gpu VARCHAR,
    versus_gpu VARCHAR,
    precision VARCHAR[],
    versus_precision VARCHAR[],
    price_kind VARCHAR,
    versus_price_kind VARCHAR,
    quantity VARCHAR,
    dataset VARCHAR,
    round VARCHAR,
    models VARCHAR[],
    scenario VARCHAR,
    gpu_count INTEGER,
    min_billion_parameters DOUBLE NOT NULL,
    max_billion_parameters DOUBLE,
    min_concurrency INTEGER,
    max_concurrency INTEGER
);
