-- Published figures, one per row; totals are over all accelerators of a system.

-- A figure of the same system, model and load under another accuracy target is a repeat: it stays visible and does
-- not count.
CREATE OR REPLACE VIEW published_throughput AS
SELECT
    concat_ws(' ', round, entry, benchmark, scenario, precision_declared, isl || '/' || osl) AS evidence_id,
    *,
    output_tok_s / gpu_count AS tok_s_per_gpu,
    regexp_extract(engine, '^[A-Za-z-]+') AS engine_name,
    nullif(first_value(benchmark) OVER measurement, benchmark) AS repeat_of,
    row_number() OVER measurement = 1 AS counts,
    'published' AS evidence
FROM store.published_throughput
WINDOW measurement AS (
    PARTITION BY dataset, round, entry, model, scenario, precision_declared, isl, osl, concurrency
    ORDER BY benchmark
);

-- Quantile of the standard normal distribution for a two-sided interval of 90 % (1 - 2 alpha, alpha .05).
CREATE OR REPLACE MACRO z90() AS 1.6448536269514722;

-- Wilson's score interval of a proportion p of n documents (Wilson 1927): its half width and its centre.
CREATE OR REPLACE MACRO wilson_centre(p, n) AS (p + z90() ** 2 / (2 * n)) / (1 + z90() ** 2 / n);
CREATE OR REPLACE MACRO wilson_half(p, n) AS
    z90() / (1 + z90() ** 2 / n) * sqrt(p * (1 - p) / n + z90() ** 2 / (4 * n ** 2));

-- Interval of the difference p2 - p1 of two independent proportions of n documents each (Newcombe 1998, method 10).
-- For two precisions over the same documents it is wider than a paired one, which needs the samples.
CREATE OR REPLACE MACRO newcombe_low(p1, p2, n) AS
    p2 - p1 - sqrt((p2 - wilson_centre(p2, n) + wilson_half(p2, n)) ** 2
        + (wilson_centre(p1, n) + wilson_half(p1, n) - p1) ** 2);
CREATE OR REPLACE MACRO newcombe_high(p1, p2, n) AS
    p2 - p1 + sqrt((wilson_centre(p2, n) + wilson_half(p2, n) - p2) ** 2
        + (p1 - wilson_centre(p1, n) + wilson_half(p1, n)) ** 2);

-- A published quality delta without samples: its mean over the repeated runs, an unpaired interval, and the range of
-- the runs of one checkpoint. A score that isn't a count of documents (an
-- instruction-level accuracy) gets no interval.
CREATE OR REPLACE VIEW published_quality AS
WITH counted AS (
    SELECT dataset, benchmark, task, metric, filter
    FROM store.published_scores
    GROUP BY ALL
    HAVING bool_and(abs(score * documents - round(score * documents)) <= documents * 1e-6)
),
means AS (
    SELECT
        dataset, model, billion_parameters, benchmark, precision, is_baseline, checkpoint, revision, task,
        task_version, metric, filter, is_primary, hardware, gpu, engine, harness, source, licence,
        any_value(published_on) AS published_on,
        count(*) AS runs,
        min(documents) AS documents,
        avg(score) AS score,
        max(score) - min(score) AS spread
    FROM store.published_scores
    GROUP BY ALL
),
deltas AS (
    SELECT
        c.*,
        b.checkpoint AS baseline,
        b.score AS baseline_score,
        c.score - b.score AS quality_delta,
        least(c.documents, b.documents) AS n,
        greatest(c.spread, b.spread) AS run_noise,
        least(c.runs, b.runs) > 1 AS repeated,
        d.dataset IS NOT NULL AS counted
    FROM means c
    JOIN means b USING (dataset, benchmark, task, task_version, metric, filter, hardware, engine)
    LEFT JOIN counted d
      ON d.dataset = c.dataset AND d.benchmark = c.benchmark AND d.task = c.task
     AND d.metric = c.metric AND d.filter = c.filter
    WHERE b.is_baseline AND NOT c.is_baseline
)
SELECT
    dataset,
    model,
    billion_parameters,
    precision,
    checkpoint,
    revision,
    baseline,
    task,
    metric,
    filter,
    is_primary,
    n AS documents,
    runs,
    baseline_score,
    score,
    quality_delta,
    CASE WHEN counted THEN newcombe_low(baseline_score, score, n) END AS quality_delta_ci_low,
    CASE WHEN counted THEN newcombe_high(baseline_score, score, n) END AS quality_delta_ci_high,
    CASE WHEN repeated THEN run_noise END AS run_noise,
    CASE
        WHEN repeated AND abs(quality_delta) <= run_noise THEN 'within the noise of repeated runs'
        WHEN NOT counted THEN 'no interval: not a count of documents'
        WHEN newcombe_high(baseline_score, score, n) < 0 THEN 'a loss'
        WHEN newcombe_low(baseline_score, score, n) > 0 THEN 'a gain'
        ELSE 'undecided without samples'
    END AS reading,
    published_on,
    hardware,
    gpu,
    engine,
    harness,
    source,
    licence,
    'published' AS evidence
FROM deltas
ORDER BY dataset, model, precision, task, metric, filter;

-- Published throughputs with the columns that bounds_of needs. Missing facts are assumed in favour of the limit: an FP8
-- KV cache, as many requests as memory holds.
CREATE OR REPLACE VIEW published_points AS
SELECT
    evidence_id, benchmark AS model, precision, NULL::VARCHAR AS kernel_mode, 'fp8' AS kv_cache_dtype, gpu, gpu_count,
    NULL::VARCHAR AS mig_slice, TRY_CAST(regexp_extract(parallelism, '^TP(\d+)$', 1) AS INTEGER) AS tensor_parallel,
    isl, osl, concurrency
FROM published_throughput;

-- Every published figure, throughput and quality, with its source; a throughput also has its limit.
CREATE OR REPLACE VIEW published_evidence AS
SELECT
    'throughput' AS kind, t.evidence_id, t.dataset, t.round, t.entry, t.published_on, t.submitter, t.availability,
    t.hardware, t.gpu, t.gpu_count, t.nodes, t.parallelism, t.model, t.benchmark, t.scenario, t.isl, t.osl,
    t.concurrency, t.precision, t.precision_declared, t.precision_note, t.engine, t.output_tok_s, t.tok_s_per_gpu,
    b.bound_tok_s, b.bound_by, pct_of(t.output_tok_s, b.bound_tok_s) AS pct_of_bound, b.no_bound, t.accuracy,
    NULL AS task, NULL AS metric, NULL AS filter, NULL::BIGINT AS documents, NULL::DOUBLE AS score, t.repeat_of,
    t.counts, t.evidence, t.source, t.licence
FROM published_throughput t
JOIN bounds_of('published_points') b USING (evidence_id)
UNION ALL BY NAME
SELECT
    'quality' AS kind, concat_ws(' ', benchmark, precision_declared, run, task, metric, filter) AS evidence_id,
    dataset, run AS round, checkpoint || coalesce('@' || revision, '') AS entry, published_on, hardware, gpu,
    1 AS gpu_count, 1 AS nodes, model, benchmark, precision, precision_declared, engine || ', ' || harness AS engine,
    task, metric, filter, documents, score, NULL AS repeat_of, is_primary AS counts, 'published' AS evidence,
    source, licence
FROM store.published_scores;

-- The cost of a published throughput at the offers of an instant; NULL without a price.
CREATE OR REPLACE MACRO published_costs_at(ts) AS TABLE
SELECT
    t.evidence_id,
    t.dataset,
    t.round,
    t.entry,
    t.published_on,
    t.hardware,
    t.gpu,
    t.gpu_count,
    t.model,
    t.billion_parameters,
    t.scenario,
    t.isl,
    t.osl,
    t.concurrency,
    t.precision,
    t.engine,
    t.engine_name,
    t.output_tok_s,
    t.tok_s_per_gpu,
    p.provider,
    p.region,
    p.price_kind,
    usd_per_hour_of(p.usd_per_hour, p.gpu_count, t.gpu_count) AS usd_per_hour,
    p.price_as_of,
    usd_per_mtok(p.usd_per_gpu_hour, t.tok_s_per_gpu) AS usd_per_mtok_output,
    CASE WHEN t.gpu IS NULL THEN 'other_hardware' ELSE p.null_reason END AS null_reason,
    t.repeat_of,
    t.counts,
    t.evidence,
    t.source
FROM published_throughput t
LEFT JOIN gpu_prices_at(ts) p USING (gpu);

CREATE OR REPLACE VIEW published_costs AS SELECT * FROM published_costs_at(now());
