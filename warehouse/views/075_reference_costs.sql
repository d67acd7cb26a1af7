-- The guide's cost table from its inputs: a published throughput over its GPUs, scaled where the guide scales it,
-- and the price of the guide's provider and day. No result is typed in; `guide` is the guide's own figure.

-- Dense TFLOPS that a GPU has for a precision.
CREATE OR REPLACE MACRO dense_tflops_for(precision, fp16_tflops, fp8_tflops, fp4_tflops) AS
    element_at(map {'bf16': fp16_tflops, 'fp16': fp16_tflops, 'fp8': fp8_tflops, 'nvfp4': fp4_tflops}, precision)[1];

CREATE OR REPLACE VIEW reference_costs AS
WITH prices AS (
    SELECT p.gpu, p.price_kind, p.usd_per_gpu_hour
    FROM gpu_prices_at((SELECT day_start(prices_of) FROM store.guide)) p
    JOIN store.guide USING (provider)
    QUALIFY row_number() OVER (PARTITION BY gpu, price_kind ORDER BY p.gpu_count, region) = 1
),
throughput AS (
    SELECT
        c.*,
        t.tok_s_per_gpu,
        t.scenario,
        dense_tflops_for(c.precision, g.dense_fp16_tflops, g.dense_fp8_tflops, g.dense_fp4_tflops)
            / dense_tflops_for(c.precision, s.dense_fp16_tflops, s.dense_fp8_tflops, s.dense_fp4_tflops) AS scale
    FROM store.reference_costs c
    JOIN published_throughput t
      ON t.dataset = c.dataset AND t.entry = c.entry AND t.model = c.model
     AND t.scenario IN ('Offline', 'batch') AND t.counts
    JOIN store.gpus g ON g.gpu = c.gpu
    LEFT JOIN store.gpus s ON s.gpu = c.scaled_from
)
SELECT
    t.config,
    t.tok_s_per_gpu * CASE WHEN t.scaled_from IS NULL THEN 1 ELSE t.scale END AS tok_s,
    p.usd_per_gpu_hour AS usd_per_hour,
    usd_per_mtok(p.usd_per_gpu_hour, tok_s) AS usd_per_mtok,
    t.stated_usd_per_mtok AS guide,
    CASE WHEN t.scaled_from IS NULL THEN 'published' ELSE 'estimated' END AS evidence,
    t.entry || CASE WHEN t.scaled_from IS NULL THEN '' ELSE ', scaled' END AS source
FROM throughput t
LEFT JOIN prices p ON p.gpu = t.gpu AND p.price_kind = t.price_kind
ORDER BY t.position;

-- The figures of GPUs, one per row, each with its source.
CREATE OR REPLACE VIEW gpu_quantities AS
SELECT q.gpu, q.quantity, q.amount, coalesce(element_at(g.sources, q.quantity)[1], g.source) AS source
FROM (UNPIVOT (
    SELECT
        gpu, vram_gb, nvml_memory_mib::DOUBLE AS nvml_memory_mib, bandwidth_gb_s, interconnect_gb_s,
        dense_fp16_tflops, dense_fp8_tflops, dense_fp4_tflops,
        list_max(map_values(mig_profiles))::DOUBLE AS mig_profiles
    FROM store.gpus
) ON COLUMNS(* EXCLUDE gpu) INTO NAME quantity VALUE amount) q
JOIN store.gpus g USING (gpu);

-- The guide's ratios, each of two stored quantities, and the price at which one configuration costs as much per
-- token as another.
CREATE OR REPLACE VIEW reference_ratios AS
WITH quantities AS (
    SELECT gpu AS subject, quantity, amount FROM gpu_quantities
    UNION ALL
    SELECT config, quantity, amount
    FROM (UNPIVOT (SELECT config, tok_s, usd_per_hour, usd_per_mtok FROM reference_costs)
        ON tok_s, usd_per_hour, usd_per_mtok INTO NAME quantity VALUE amount)
)
SELECT r.ratio, r.value, r.unit, r.guide, r.note
FROM (
    SELECT r.position, r.ratio, n.amount / d.amount AS value, 'ratio' AS unit, r.stated AS guide, r.note
    FROM store.reference_ratios r
    JOIN quantities n ON n.subject = r."of" AND n.quantity = r.quantity
    JOIN quantities d ON d.subject = r."to" AND d.quantity = r.quantity
    UNION ALL
    SELECT r.position, r.ratio, d.usd_per_hour * n.tok_s / d.tok_s, 'USD/h', r.stated, r.note
    FROM store.reference_ratios r
    JOIN reference_costs n ON n.config = r."of"
    JOIN reference_costs d ON d.config = r."to"
    WHERE r.quantity IS NULL
) r
ORDER BY r.position;
