-- Prices and GPUs come from the configuration and are replaced whole, so their tables are simply made anew.
DROP TABLE store.price_offers;
CREATE TABLE store.price_offers (
    provider VARCHAR NOT NULL,
    region VARCHAR NOT NULL,
    gpu VARCHAR NOT NULL,
    gpu_count INTEGER NOT NULL,         -- the GPUs that usd_per_hour buys together
    price_kind VARCHAR NOT NULL,
    usd_per_hour DOUBLE NOT NULL,
    currency VARCHAR NOT NULL,
    valid_from DATE NOT NULL,           -- from its start, UTC
    valid_to DATE,                      -- until its start, UTC
    evidence VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    origin VARCHAR NOT NULL,            -- the file it lies in
    note VARCHAR
);

-- What a reservation is said to save: at most one row, and never an offer.
CREATE TABLE store.reserved_rule (
    saving_low DOUBLE NOT NULL,
    saving_high DOUBLE NOT NULL,
    source VARCHAR NOT NULL
);

DROP TABLE store.gpus;
CREATE TABLE store.gpus (
    gpu VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    nvml_names VARCHAR[] NOT NULL,
    sm_arch VARCHAR,
    vram_gb DOUBLE,
    nvml_memory_mib BIGINT,             -- what NVML reports as the total
    bandwidth_gb_s DOUBLE,
    dense_fp16_tflops DOUBLE,
    dense_fp8_tflops DOUBLE,
    dense_fp4_tflops DOUBLE,
    mig_slices_max INTEGER,
    mig_profiles MAP(VARCHAR, INTEGER) NOT NULL,    -- instances that one GPU holds
    interconnect VARCHAR,
    interconnect_gb_s DOUBLE,           -- GPU to GPU, both directions together, one GPU
    formats MAP(VARCHAR, VARCHAR) NOT NULL,         -- precision: native, weight_only or none
    source VARCHAR NOT NULL,
    sources MAP(VARCHAR, VARCHAR) NOT NULL,         -- of the figures that `source` doesn't hold for
    note VARCHAR
);

-- NULL for a run that was measured before these were recorded.
ALTER TABLE store.runs ADD COLUMN cuda_version VARCHAR;
ALTER TABLE store.runs ADD COLUMN sm_clock_max_mhz INTEGER;
ALTER TABLE store.runs ADD COLUMN memory_clock_max_mhz INTEGER;
ALTER TABLE store.runs ADD COLUMN power_limit_w DOUBLE;
