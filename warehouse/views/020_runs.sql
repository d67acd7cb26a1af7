-- Every run. `latest` marks the one of its fingerprint that validated_table shows: the last, and none that
-- another run continues and has measured all of its load levels too. A run with a figure that can't be is quarantined.
CREATE OR REPLACE VIEW runs AS
WITH RECURSIVE later AS (
    SELECT continues AS run_id, run_id AS later_run_id FROM store.runs WHERE continues IS NOT NULL
    UNION
    SELECT l.run_id, r.run_id FROM later l JOIN store.runs r ON r.continues = l.later_run_id
),
superseded AS (
    SELECT l.run_id
    FROM later l
    JOIN store.runs r USING (run_id)
    JOIN store.runs n ON n.run_id = l.later_run_id
    LEFT JOIN store.load_points p ON p.run_id = l.run_id
    LEFT JOIN store.load_points q
      ON q.run_id = l.later_run_id
     AND n.workload = r.workload
     AND q.operating_point = p.operating_point
     AND (q.isl_tokens, q.osl_tokens) = (p.isl_tokens, p.osl_tokens)
    GROUP BY l.run_id, l.later_run_id
    HAVING count(p.operating_point) = count(q.operating_point)
),
starts AS (
    SELECT
        run_id,
        count(*) AS engine_starts,
        worst_kernel_mode(list(kernel_mode)) AS kernel_mode,
        nullif(string_agg(DISTINCT kernel_names(kernels), ', ' ORDER BY kernel_names(kernels)), '') AS kernel,
        bool_or(NOT is_amount(start_duration_s)) AS impossible_duration,
        bool_or(kv_cache_tokens < 0) AS impossible_tokens
    FROM store.engine_starts
    GROUP BY run_id
),
quality AS (
    SELECT
        run_id,
        count(*) AS tasks,
        sum(documents)::BIGINT AS documents,
        bool_or(NOT is_amount(duration_s)) AS impossible_duration,
        bool_or(documents < 0 OR truncated_prompts < 0) AS impossible_size,
        bool_or(isinf(mean_score)) AS impossible_score
    FROM store.run_tasks
    GROUP BY run_id
),
load AS (
    SELECT run_id, count(*) AS load_points FROM store.load_points GROUP BY run_id
)
SELECT * EXCLUDE (codes) REPLACE (
    CASE WHEN len(codes) > 0 THEN 'quarantined' ELSE validity END AS validity,
    list_distinct(list_concat(validity_reasons, codes)) AS validity_reasons
)
FROM (
SELECT
    r.run_id,
    r.fingerprint,
    r.verdict_key,
    r.model,
    r.checkpoint,
    r.checkpoint_source,
    r.revision,
    coalesce(r.baseline, r.checkpoint) AS baseline,
    r.baseline_revision,
    r.baseline_run_id,
    r.baseline_run_id IS NULL AS is_baseline,
    r.precision,                        -- as stored
    served_precision(r.precision, r.serving_arguments['dtype']) AS served_precision,
    r.weight_format,
    r.kv_cache_dtype,                   -- as served
    r.manifest ->> '$.checkpoint.kv_cache_dtype' AS declared_kv_cache_dtype,
    r.architecture,
    r.parameters,
    r.size_bytes,
    r.vocab_size,
    r.max_position_embeddings,
    r.weights,
    s.kernel,
    s.kernel_mode,
    r.gpu,
    r.device_name,
    r.gpu_count,
    r.sm_arch,
    r.mig_slice,
    r.driver,
    r.cuda_version,
    r.sm_clock_max_mhz,
    r.memory_clock_max_mhz,
    r.power_limit_w,
    r.memory_bytes,
    r.cpu_cores,
    r.engine,
    r.engine_version,
    coalesce(s.engine_starts, 0) AS engine_starts,
    r.suite,
    r.workload,
    r.policy,
    r.policy_fingerprint,
    coalesce(q.tasks, 0) AS tasks,
    coalesce(q.documents, 0) AS documents,
    coalesce(l.load_points, 0) AS load_points,
    r.evidence,
    r.validity,
    r.validity_reasons,
    r.continues,
    r.started_at,
    r.declared_order,
    r.measured_at,
    r.schema_version,
    row_number() OVER (PARTITION BY r.fingerprint ORDER BY run_order(r.declared_order, r.started_at, r.run_id) DESC) = 1
        AND r.run_id NOT IN (SELECT run_id FROM superseded) AS latest,
    codes_of([
        {'holds': s.impossible_duration OR q.impossible_duration, 'code': 'impossible_duration'},
        {'holds': s.impossible_tokens, 'code': 'impossible_tokens'},
        {'holds': q.impossible_score, 'code': 'impossible_score'},
        {'holds': coalesce(q.impossible_size, false)
            OR least(r.parameters, r.size_bytes, r.vocab_size, r.memory_bytes, r.cpu_cores) < 0,
         'code': 'impossible_size'}
    ]) AS codes
FROM store.runs r
LEFT JOIN starts s USING (run_id)
LEFT JOIN quality q USING (run_id)
LEFT JOIN load l USING (run_id)
);

-- Of each run whether its answers count where answers are added up: `latest`, and no run continues it, since that run
-- has them too.
CREATE OR REPLACE VIEW store.latest_answers AS
SELECT r.run_id, r.latest AND r.run_id NOT IN (SELECT continues FROM store.runs WHERE continues IS NOT NULL) AS latest
FROM main.runs r;

-- One row per policy and family; `in_use` lists the uses that require the family.
CREATE OR REPLACE VIEW policies AS
SELECT
    p.policy,
    p.policy_fingerprint,
    EXISTS (
        SELECT 1 FROM store.current_policies c
        WHERE c.policy = p.policy AND c.policy_fingerprint = p.policy_fingerprint
    ) AS current,
    p.description,
    p.alpha,
    p.planned_power,
    p.stale_after_days,
    p.looks,
    p.min_clusters,
    p.aa_documents,
    p.reserve,
    p.seed,
    family,
    p.families[family].margin AS margin,
    p.families[family].min_documents AS min_documents,
    list_sort(list_filter(map_keys(p.uses), lambda use: len(p.uses[use]) = 0 OR list_contains(p.uses[use], family)))
        AS in_use
FROM store.policies p, unnest(map_keys(p.families)) AS f(family);

CREATE OR REPLACE VIEW gpus AS SELECT * FROM store.gpus;

-- Every offer of the price history; `current` are those that a cost of this moment may use.
CREATE OR REPLACE VIEW prices AS
SELECT
    o.*,
    usd_per_hour_of(o.usd_per_hour, o.gpu_count, 1) AS usd_per_gpu_hour,
    coalesce(o.valid_from = c.valid_from, false) AS current
FROM store.price_offers o
LEFT JOIN offers_at(now()) c USING (provider, region, gpu, gpu_count, price_kind)
ORDER BY o.provider, o.region, o.gpu, o.gpu_count, o.price_kind, o.valid_from;
