-- Claims of the guide against the evidence of the warehouse: measured runs if there are any, else published figures,
-- else an estimate. The three are never mixed in one number.

-- Speed per GPU by series: figures of one series differ in the GPU or the precision only, so they compare. A
-- published series is one round of one source on one engine, and its value the median of the entries; at maximum
-- offline load the requests in flight have no limit. Measured: valid runs of real weights on native kernels.
CREATE OR REPLACE VIEW claim_speeds AS
WITH published AS (
    SELECT *, CASE WHEN scenario = 'Offline' THEN 'infinity'::DOUBLE ELSE concurrency END AS in_flight
    FROM published_throughput
    WHERE counts AND NOT by_guide AND gpu IS NOT NULL
)
SELECT
    evidence, dataset, round, concat_ws(', ', dataset || ' ' || round, engine_name) AS series, model,
    billion_parameters, gpu, precision, scenario, isl, osl, in_flight, count(*) AS entries,
    median(tok_s_per_gpu) AS tok_s, NULL::DOUBLE AS ttft_p50_ms
FROM published
GROUP BY ALL
UNION ALL BY NAME
SELECT
    r.evidence, concat_ws(', ', 'run', t.engine || ' ' || t.engine_version, t.workload) AS series, r.model,
    r.parameters / 1e9 AS billion_parameters, r.gpu, r.precision, t.isl, t.osl,
    t.concurrency::DOUBLE AS in_flight, count(*) AS entries,
    median(t.output_tok_s / r.gpu_count) AS tok_s, median(t.ttft_p50_ms) AS ttft_p50_ms
FROM throughput_points t
JOIN runs r USING (run_id)
WHERE t.latest AND t.validity = 'valid' AND t.kernel_mode = 'native' AND r.weights = 'real'
  AND r.mig_slice IS NULL AND t.output_tok_s IS NOT NULL
GROUP BY ALL;

-- Quality deltas in points: of each task, and (task NULL) the mean over a model's tasks. The interval of a mean of
-- independent deltas has the root of the summed squares of their half widths over their number.
CREATE OR REPLACE VIEW claim_deltas AS
WITH deltas AS (
    SELECT
        evidence, dataset AS series, model, billion_parameters, precision, task, quality_delta AS delta,
        quality_delta_ci_low AS low, quality_delta_ci_high AS high
    FROM published_quality
    WHERE is_primary
    UNION ALL
    SELECT
        r.evidence, 'run ' || r.run_id, r.model, r.parameters / 1e9, r.precision, d.task, d.quality_delta,
        d.quality_delta_ci_low, d.quality_delta_ci_high
    FROM quality_delta d
    JOIN runs r USING (run_id)
    WHERE d.use = 'all' AND d.declared = 'declared' AND r.latest AND r.validity = 'valid' AND r.weights = 'real'
)
SELECT
    evidence, series, model, billion_parameters, precision, task, count(*) AS tasks,
    100 * avg(delta) AS points,
    100 * (avg(delta) - sqrt(sum((delta - low) ** 2)) / count(*)) AS points_low,
    100 * (avg(delta) + sqrt(sum((high - delta) ** 2)) / count(*)) AS points_high
FROM deltas
GROUP BY GROUPING SETS (
    (evidence, series, model, billion_parameters, precision),
    (evidence, series, model, billion_parameters, precision, task)
);

-- Every value that is evidence for a claim. `value_low` and `value_high` are its interval, if it has one; each end is
-- one-sided at alpha .05, as a task's verdict is: a loss lies within a margin if the lower end does.
CREATE OR REPLACE VIEW claim_values AS
WITH prices AS (
    SELECT p.gpu, p.price_kind, p.usd_per_gpu_hour
    FROM gpu_prices_at((SELECT day_start(prices_of) FROM store.guide)) p
    JOIN store.guide USING (provider)
    QUALIFY row_number() OVER (PARTITION BY gpu, price_kind ORDER BY p.gpu_count, region) = 1
),
-- The share of the memory that an engine takes is its user's choice: vLLM's usual one, and a high one.
fits AS MATERIALIZED (
    FROM memory_fit_at(utilization := 0.9)
    UNION
    FROM memory_fit_at(utilization := 0.97)
),
one_gpu AS (
    FROM fits WHERE gpu_count = 1
),
limits AS MATERIALIZED (
    SELECT * FROM bounds_at(counts := [1], levels := [1, 4, 8, 32])
),
chosen AS (
    SELECT c.claim_id, c.measure, c.versus_gpu, c.versus_precision, c.versus_price_kind, s.*,
        concat_ws(' ', s.gpu, s.precision, s.model, s.isl || '/' || s.osl) AS what,
        p.usd_per_gpu_hour, usd_per_mtok(p.usd_per_gpu_hour, s.tok_s) AS usd
    FROM store.claims c
    JOIN claim_speeds s
      ON (c.gpu IS NULL OR s.gpu = c.gpu)
     AND (len(c.precision) = 0 OR list_contains(c.precision, s.precision))
     AND (len(c.models) = 0 OR list_contains(c.models, s.model))
     AND (c.dataset IS NULL OR s.dataset = c.dataset OR s.evidence <> 'published')
     AND (c.round IS NULL OR s.round = c.round)
     AND (c.scenario IS NULL OR s.scenario = c.scenario OR s.evidence <> 'published')
     AND s.billion_parameters >= c.min_billion_parameters
     AND (c.max_billion_parameters IS NULL OR s.billion_parameters <= c.max_billion_parameters)
     AND (c.min_concurrency IS NULL OR s.in_flight >= c.min_concurrency)
     AND (c.max_concurrency IS NULL OR s.in_flight <= c.max_concurrency)
    LEFT JOIN prices p ON p.gpu = s.gpu AND p.price_kind = c.price_kind
),
compared AS (
    SELECT n.*, v.tok_s AS versus_tok_s, usd_per_mtok(p.usd_per_gpu_hour, v.tok_s) AS versus_usd,
        concat_ws(' ', v.gpu, v.precision) AS versus_what
    FROM chosen n
    JOIN claim_speeds v
      ON v.evidence = n.evidence AND v.series = n.series AND v.model = n.model
     AND v.scenario IS NOT DISTINCT FROM n.scenario AND v.in_flight IS NOT DISTINCT FROM n.in_flight
     AND v.isl IS NOT DISTINCT FROM n.isl AND v.osl IS NOT DISTINCT FROM n.osl
     AND v.gpu = coalesce(n.versus_gpu, n.gpu)
     AND CASE WHEN len(n.versus_precision) > 0 THEN list_contains(n.versus_precision, v.precision)
            ELSE v.precision = n.precision END
    LEFT JOIN prices p ON p.gpu = v.gpu AND p.price_kind = n.versus_price_kind
),
gathered AS (
    SELECT claim_id, evidence, tok_s AS amount, NULL::DOUBLE AS low, NULL::DOUBLE AS high,
        concat_ws(', ', what, series) AS what
    FROM chosen WHERE measure = 'throughput'
    UNION ALL
    SELECT claim_id, evidence, usd, NULL, NULL, concat_ws(', ', what, series) FROM chosen WHERE measure = 'cost'
    UNION ALL
    SELECT claim_id, evidence, ttft_p50_ms, NULL, NULL, concat_ws(', ', what, series)
    FROM chosen WHERE measure = 'ttft'
    UNION ALL
    SELECT claim_id, evidence, tok_s / versus_tok_s, NULL, NULL, concat_ws(', ', what || ' to ' || versus_what, series)
    FROM compared WHERE measure = 'throughput_ratio'
    UNION ALL
    SELECT claim_id, evidence, usd / versus_usd, NULL, NULL, concat_ws(', ', what || ' to ' || versus_what, series)
    FROM compared WHERE measure = 'cost_ratio'
    UNION ALL
    SELECT c.claim_id, d.evidence, d.points, d.points_low, d.points_high,
        concat_ws(', ', d.model || ' ' || d.precision, coalesce(d.task, d.tasks || ' tasks'), d.series)
    FROM store.claims c
    JOIN claim_deltas d
      ON list_contains(c.precision, d.precision) AND d.billion_parameters >= c.min_billion_parameters
     AND (len(c.models) = 0 OR list_contains(c.models, d.model))
    WHERE c.measure = CASE WHEN d.task IS NULL THEN 'quality' ELSE 'quality_task' END
    UNION ALL
    SELECT c.claim_id, t.evidence, max(t.output_tok_s), NULL, NULL,
        max({'amount': t.output_tok_s, 'what': t.entry || ' of ' || t.submitter}).what
    FROM store.claims c
    JOIN published_throughput t
      ON t.gpu = c.gpu AND t.gpu_count = c.gpu_count AND t.dataset = c.dataset AND t.round = c.round
     AND t.scenario = c.scenario AND list_contains(c.models, t.model)
    WHERE c.measure = 'best_system' AND NOT t.by_guide
    GROUP BY ALL
    UNION ALL
    SELECT DISTINCT c.claim_id, t.evidence, TRY_CAST(regexp_extract(t.hardware, '(\d+)GB', 1) AS DOUBLE), NULL::DOUBLE, NULL::DOUBLE,
        t.hardware || coalesce(format(', NVML {:.0f} GiB', g.nvml_memory_mib / 1024), '')
    FROM store.claims c
    JOIN published_throughput t ON t.gpu = c.gpu
    JOIN store.gpus g ON g.gpu = c.gpu
    WHERE c.measure = 'board_memory' AND NOT t.by_guide
    UNION ALL
    SELECT c.claim_id, 'published', q.amount, NULL, NULL, q.gpu || ': ' || q.source
    FROM store.claims c
    JOIN gpu_quantities q ON q.gpu = c.gpu AND q.quantity = c.quantity
    WHERE c.measure = 'gpu_fact' AND q.source <> 'guide'
    UNION ALL
    -- A ratio of figures that the guide itself states is arithmetic: it counts as an estimate.
    SELECT c.claim_id, CASE WHEN 'guide' IN (n.source, d.source) THEN 'estimated' ELSE 'published' END,
        n.amount / d.amount, NULL, NULL, format('{:g} to {:g}, {}', n.amount, d.amount, n.source)
    FROM store.claims c
    JOIN gpu_quantities n ON n.gpu = c.gpu AND n.quantity = c.quantity
    JOIN gpu_quantities d ON d.gpu = c.versus_gpu AND d.quantity = c.quantity
    WHERE c.measure = 'gpu_ratio'
    UNION ALL
    SELECT c.claim_id, 'published', n.usd_per_gpu_hour / d.usd_per_gpu_hour, NULL, NULL,
        format('{:g} to {:g} USD/h', n.usd_per_gpu_hour, d.usd_per_gpu_hour)
    FROM store.claims c
    JOIN prices n ON n.gpu = c.gpu AND n.price_kind = c.price_kind
    JOIN prices d ON d.gpu = c.versus_gpu AND d.price_kind = c.versus_price_kind
    WHERE c.measure = 'price_ratio'
    UNION ALL
    SELECT c.claim_id, n.evidence, 100 * (1 - n.usd_per_hour / d.usd_per_hour), NULL, NULL,
        concat_ws(' ', n.provider, n.gpu, n.valid_from)
    FROM store.claims c
    JOIN store.price_offers n ON n.price_kind = c.price_kind AND n.evidence <> 'estimated'
    JOIN store.price_offers d
      ON d.price_kind = c.versus_price_kind AND d.evidence <> 'estimated'
     AND (d.provider, d.region, d.gpu, d.gpu_count) = (n.provider, n.region, n.gpu, n.gpu_count)
     AND d.valid_from <= n.valid_from AND (d.valid_to IS NULL OR n.valid_from < d.valid_to)
    WHERE c.measure = 'saving'
    UNION ALL
    SELECT DISTINCT c.claim_id, 'estimated', n.crossover_batch_least, NULL::DOUBLE, NULL::DOUBLE,
        concat_ws(' ', n.gpu, n.precision, n.model)
    FROM store.claims c
    JOIN limits n ON list_contains(c.models, n.model) AND list_contains(c.precision, n.precision)
    WHERE c.measure = 'bound_batch'
    UNION ALL
    SELECT c.claim_id, 'estimated', n.decode_tok_s / d.decode_tok_s, NULL, NULL,
        format('{} {} {} at {} to {}', n.gpu, n.precision, n.model, n.concurrency, d.gpu)
    FROM store.claims c
    JOIN limits n ON n.gpu = c.gpu AND list_contains(c.models, n.model) AND list_contains(c.precision, n.precision)
    JOIN limits d
      ON d.gpu = c.versus_gpu AND d.model = n.model AND d.precision = n.precision AND d.concurrency = n.concurrency
    WHERE c.measure = 'bound_ratio' AND n.concurrency BETWEEN c.min_concurrency AND c.max_concurrency
    UNION ALL
    -- FLOPs per byte of a decode step, at the most requests to those at the fewest.
    SELECT c.claim_id, 'estimated', (n.decode_tflop / n.decode_gb) / (d.decode_tflop / d.decode_gb), NULL, NULL,
        format('{} {} {} at {} to {}', n.gpu, n.precision, n.model, n.concurrency, d.concurrency)
    FROM store.claims c
    JOIN limits n
      ON n.concurrency = c.max_concurrency AND list_contains(c.models, n.model)
     AND list_contains(c.precision, n.precision)
    JOIN limits d
      ON d.concurrency = c.min_concurrency AND d.gpu = n.gpu AND d.model = n.model AND d.precision = n.precision
    WHERE c.measure = 'intensity_ratio'
),
held AS (
    SELECT c.claim_id, n.gpu_memory_utilization, n.left_gb AS amount,
        format('{:.1f} GB left, {:.1f} GB of weights in {:.1f} GB', n.left_gb, n.weights_gb, n.memory_gb) AS what
    FROM store.claims c
    JOIN one_gpu n
      ON n.gpu = c.gpu AND n.memory_model = c.quantity
     AND list_contains(c.models, n.model) AND list_contains(c.precision, n.precision)
    WHERE c.measure = 'memory_left'
    UNION ALL
    SELECT c.claim_id, n.gpu_memory_utilization, n.kv_cache_tokens, format('{:.1f} GiB of KV cache', n.kv_cache_gib)
    FROM store.claims c
    JOIN one_gpu n
      ON n.gpu = c.gpu AND n.memory_model = c.quantity
     AND list_contains(c.models, n.model) AND list_contains(c.precision, n.precision)
    WHERE c.measure = 'kv_tokens'
    UNION ALL
    SELECT DISTINCT c.claim_id, n.gpu_memory_utilization, n.memory_gb, format('{:.1f} GB of {}', n.memory_gb, n.gpu)
    FROM store.claims c
    JOIN one_gpu n ON n.gpu = c.gpu AND n.memory_model = c.quantity
    WHERE c.measure = 'memory_usable'
    UNION ALL
    SELECT c.claim_id, n.gpu_memory_utilization, n.left_gb / d.left_gb,
        format('{:.1f} to {:.1f} GB', n.left_gb, d.left_gb)
    FROM store.claims c
    JOIN one_gpu n
      ON n.gpu = c.gpu AND n.memory_model = c.quantity
     AND list_contains(c.models, n.model) AND list_contains(c.precision, n.precision)
    JOIN one_gpu d
      ON d.gpu = c.versus_gpu AND d.memory_model = n.memory_model AND d.model = n.model
     AND d.precision = n.precision AND d.gpu_memory_utilization IS NOT DISTINCT FROM n.gpu_memory_utilization
    WHERE c.measure = 'memory_left_ratio'
    UNION ALL
    -- What somebody ran on eight GPUs shows that eight suffice, not that they are needed.
    SELECT c.claim_id, n.gpu_memory_utilization, min(n.gpu_count),
        min({'gpus': n.gpu_count, 'what': format('{:.0f} GB of weights in {} in {:.0f} GB of {} {}',
            n.weights_gb, n.precision, n.memory_gb, n.gpu_count, n.gpu)}).what
    FROM store.claims c
    JOIN fits n
      ON n.gpu = c.gpu AND n.memory_model = c.quantity AND n.fits
     AND list_contains(c.models, n.model) AND list_contains(c.precision, n.precision)
    WHERE c.measure = 'fewest_gpus'
    GROUP BY c.claim_id, n.gpu_memory_utilization
)
SELECT
    c.claim_id,
    g.evidence,
    g.gpu_memory_utilization,
    g.amount AS value,
    g.low AS value_low,
    g.high AS value_high,
    coalesce(g.low, g.amount) >= coalesce(c.low, '-infinity'::DOUBLE)
        AND coalesce(g.high, g.amount) <= coalesce(c.high, 'infinity'::DOUBLE) AS inside,
    coalesce(g.high, g.amount) < c.low OR coalesce(g.low, g.amount) > c.high AS outside,
    g.what
FROM (
    FROM gathered
    UNION ALL BY NAME
    SELECT *, 'estimated' AS evidence FROM held
) g
JOIN store.claims c USING (claim_id)
WHERE g.amount IS NOT NULL;

-- Every claim with its status, from the best available evidence. `every`: one value whose interval lies wholly
-- outside contradicts, all whose intervals lie inside support. `typical`: the median decides.
-- What depends on gpu_memory_utilization is decided at each of its values: a claim that holds at only one of them isn't
-- settled, and `bears_on` says what each decides.
CREATE OR REPLACE VIEW claims AS
WITH judged AS (
    SELECT
        c.claim_id,
        v.evidence,
        v.gpu_memory_utilization,
        count(*) AS n,
        min(v.value) AS least,
        median(v.value) AS middle,
        max(v.value) AS greatest,
        min(v.value_low) AS least_low,
        max(v.value_high) AS greatest_high,
        min({'value': v.value, 'what': v.what}).what AS least_what,
        max({'value': v.value, 'what': v.what}).what AS greatest_what,
        CASE WHEN n = 1 THEN least_what ELSE least_what || ' … ' || greatest_what END AS what,
        CASE
            WHEN c.rule = 'typical' THEN coalesce(middle >= c.low, true) AND coalesce(middle <= c.high, true)
            WHEN bool_or(coalesce(v.outside, false)) THEN false
            WHEN bool_and(v.inside) THEN true
        END AS holds
    FROM store.claims c
    JOIN claim_values v USING (claim_id)
    GROUP BY c.claim_id, c.rule, c.low, c.high, v.evidence, v.gpu_memory_utilization
),
tallied AS (
    SELECT
        claim_id,
        evidence,
        sum(n)::BIGINT AS n,
        min(least) AS least,
        CASE WHEN count(*) = 1 THEN any_value(middle) END AS middle,  -- of settings there is none
        max(greatest) AS greatest,
        min(least_low) AS least_low,
        max(greatest_high) AS greatest_high,
        CASE WHEN count(*) = 1 THEN any_value(what) ELSE string_agg(
            format('at gpu_memory_utilization {:g} {}, {}', gpu_memory_utilization,
                CASE WHEN holds THEN 'supported' WHEN NOT holds THEN 'contradicted' ELSE 'not settled' END, what),
            '; ' ORDER BY gpu_memory_utilization) END AS what,
        CASE WHEN count(holds) = count(*) AND min(holds) = max(holds) THEN min(holds) END AS holds
    FROM judged
    GROUP BY claim_id, evidence
),
best AS (
    SELECT *
    FROM tallied
    QUALIFY row_number() OVER (
        PARTITION BY claim_id
        ORDER BY list_position(['measured', 'imported', 'published', 'estimated'], evidence)
    ) = 1
)
SELECT
    c.claim_id,
    c.claim,
    CASE WHEN b.holds THEN 'supported' WHEN NOT b.holds THEN 'contradicted' ELSE 'no_evidence' END AS status,
    b.evidence,
    CASE
        WHEN c.about IS NOT NULL THEN format('{:g} ± {:g} % {}', c.about, 100 * (c.high - c.low) / 2 / c.about, c.unit)
        WHEN c.low IS NULL THEN format('at most {:g} {}', c.high, c.unit)
        WHEN c.high IS NULL THEN format('at least {:g} {}', c.low, c.unit)
        WHEN c.low = c.high THEN format('{:g} {}', c.low, c.unit)
        ELSE format('{:g} to {:g} {}', c.low, c.high, c.unit)
    END AS claimed,
    c.rule,
    b.n AS values,
    b.least AS value_min,
    b.middle AS value_median,
    b.greatest AS value_max,
    b.least_low AS interval_low,
    b.greatest_high AS interval_high,
    c.unit,
    b.what AS bears_on,
    c.condition,
    c.section
FROM store.claims c
LEFT JOIN best b USING (claim_id)
ORDER BY c.position;
