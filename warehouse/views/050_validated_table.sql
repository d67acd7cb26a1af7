-- The part of validated_table that depends on no price and no time: the last run of each fingerprint with its operating
-- points; a run without load has one row without a point. The loader stores it as store.table_points: joining a million
-- points with their baselines' in every query would take seconds, and planning the join a quarter of one.
CREATE OR REPLACE VIEW store.fresh_table_points AS
WITH last_start AS (
    SELECT run_id, kv_cache_tokens
    FROM store.engine_starts
    QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY started_at DESC, engine_start_id DESC) = 1
)
SELECT
    r.model,
    r.checkpoint,
    r.revision,
    r.baseline,
    r.is_baseline,
    r.precision,
    r.weight_format,
    r.kv_cache_dtype,
    coalesce(t.kernel, r.kernel) AS kernel,
    coalesce(t.kernel_mode, r.kernel_mode) AS kernel_mode,
    r.weights,
    r.gpu,
    r.sm_arch,
    r.mig_slice,
    r.gpu_count,
    r.engine,
    r.engine_version,
    r.workload,
    t.isl,
    t.osl,
    t.operating_point,
    t.concurrency,
    t.output_tok_s,
    t.total_tok_s,
    t.ttft_p50_ms,
    t.ttft_p99_ms,
    t.tpot_p50_ms,
    t.tpot_p99_ms,
    coalesce(t.kv_cache_tokens, s.kv_cache_tokens) AS kv_cache_tokens,
    l.bound_tok_s,
    pct_of(t.output_tok_s, l.bound_tok_s) AS pct_of_bound,
    CASE
        WHEN t.operating_point IS NULL THEN 'no_throughput'
        WHEN is_impossible(t.validity_reasons) THEN 'quarantined'
        WHEN t.output_tok_s IS NULL THEN 'no_completed_requests'
        WHEN t.kernel_mode = 'emulated' OR b.kernel_mode = 'emulated' THEN 'emulated_no_speed'
        WHEN t.kernel_mode IS NULL OR (b.run_id IS NOT NULL AND b.kernel_mode IS NULL) THEN 'unknown_kernel'
        WHEN b.output_tok_s IS NULL THEN 'no_baseline_point'
        -- What is not known is not the same.
        WHEN b.mig_slice IS DISTINCT FROM r.mig_slice OR NOT coalesce(
            b.gpu = r.gpu AND b.engine_version = t.engine_version AND b.isl = t.isl AND b.osl = t.osl,
            false) THEN 'not_comparable'
        WHEN t.validity <> 'valid' OR b.validity <> 'valid' THEN 'quarantined'
    END AS no_speedup,
    CASE WHEN no_speedup IS NULL THEN t.output_tok_s / nullif(b.output_tok_s, 0) END AS speedup_vs_baseline,
    r.policy,
    pol.stale_after_days,
    r.evidence,
    coalesce(t.validity, r.validity) AS validity,
    coalesce(t.validity_reasons, r.validity_reasons) AS validity_reasons,
    r.started_at,
    coalesce(t.measured_at, r.measured_at) AS measured_at,
    r.run_id,
    q.serving_arguments,
    CASE WHEN r.is_baseline THEN r.precision ELSE br.precision END AS baseline_precision
FROM main.runs r
JOIN (SELECT run_id, serving_arguments FROM store.runs) q USING (run_id)
JOIN store.policies pol USING (policy, policy_fingerprint)
LEFT JOIN store.runs br ON br.run_id = r.baseline_run_id
LEFT JOIN main.throughput_points t USING (run_id)
LEFT JOIN last_start s USING (run_id)
LEFT JOIN store.run_bounds l ON l.run_id = t.run_id AND l.operating_point = t.operating_point
LEFT JOIN main.throughput_points b
  ON b.run_id = coalesce(r.baseline_run_id, r.run_id)
 AND b.workload = t.workload
 AND b.operating_point = t.operating_point
WHERE r.latest AND r.evidence IN ('measured', 'imported')
ORDER BY r.model, r.run_id, t.concurrency;

-- The verdict that stands for each run and use, with the run that decided it and what of that run it rests on.
CREATE OR REPLACE VIEW store.fresh_standing_verdicts AS
WITH every_verdict AS MATERIALIZED (
    SELECT run_id, use, o.use_key, o.declared_at, v.decided_by, v.standing, v.standing_reason, v.worst_task,
        v.quality_delta, v.quality_delta_ci_low, v.quality_delta_ci_high, v.flip_rate, v.measured_at, v.suite, v.policy,
        v.policy_fingerprint, v.baseline_revision, v.tries
    FROM main.verdicts v
    JOIN store.own_verdicts o USING (run_id, use)
    WHERE v.declared = 'declared'
),
answered AS (
    SELECT t.run_id, u.use, list(t.task ORDER BY t.task) AS tasks, sum(t.documents)::BIGINT AS documents
    FROM store.run_tasks t
    JOIN store.runs r USING (run_id)
    JOIN store.policies p USING (policy, policy_fingerprint),
    unnest(map_entries(p.uses)) AS e(entry),
    (SELECT entry.key AS use, entry.value AS families) AS u
    WHERE len(u.families) = 0 OR list_contains(u.families, t.family)
    GROUP BY ALL
),
looked AS (
    SELECT run_id, use, max(looks)::BIGINT AS looks_used, max(margin) FILTER (task = worst) AS margin
    FROM (
        SELECT t.*, v.worst_task AS worst
        FROM store.task_verdicts t
        JOIN store.verdicts v USING (run_id, use)
    )
    GROUP BY ALL
),
alarming AS (
    SELECT run_id, list_sort(list_distinct(flatten(list(alarms)))) AS alarms FROM main.controls GROUP BY ALL
)
SELECT v.run_id, v.use, v.decided_by, v.standing AS verdict, d.worst_task, d.quality_delta,
    d.quality_delta_ci_low, d.quality_delta_ci_high, d.flip_rate, d.measured_at AS decided_at, d.suite,
    coalesce(a.tasks, []) AS tasks, coalesce(a.documents, 0) AS documents, v.standing_reason AS reason, d.policy,
    d.policy_fingerprint,
    l.margin, l.looks_used, d.declared_at, d.baseline_revision, v.tries, coalesce(c.alarms, []) AS alarms
FROM every_verdict v
JOIN every_verdict d ON d.run_id = v.decided_by AND d.use_key = v.use_key
LEFT JOIN answered a ON a.run_id = d.run_id AND a.use = d.use
LEFT JOIN looked l ON l.run_id = d.run_id AND l.use = d.use
LEFT JOIN alarming c ON c.run_id = v.decided_by;

-- The validated table at the prices of an instant: one row per (run, workload, operating point, price offer,
-- use), the last run of each fingerprint. Unknown values are NULL, with a reason in null_reasons.
CREATE OR REPLACE MACRO validated_table_at(ts) AS TABLE
WITH joined AS (
    SELECT
        m.* EXCLUDE (policy),
        v.* EXCLUDE (run_id),
        p.* EXCLUDE (gpu, gpu_count),
        usd_per_mtok(p.usd_per_hour, m.output_tok_s) AS usd_per_mtok_output,
        usd_per_mtok(p.usd_per_hour, m.total_tok_s) AS usd_per_mtok_total,
        list_filter([
            CASE WHEN is_stale(m.measured_at, m.stale_after_days, ts) THEN 'measurement' END,
            CASE WHEN is_stale(v.decided_at, m.stale_after_days, ts) THEN 'verdict' END,
            CASE WHEN p.price_valid_to IS NULL AND is_stale(day_start(p.price_as_of), m.stale_after_days, ts)
                THEN 'price' END
        ], lambda reason: reason IS NOT NULL) AS stale_reasons,
        CASE
            WHEN m.operating_point IS NULL THEN 'no_throughput'
            WHEN is_impossible(m.validity_reasons) THEN 'quarantined'
            WHEN m.output_tok_s IS NULL THEN 'no_completed_requests'
        END AS no_throughput,
        CASE WHEN m.mig_slice IS NOT NULL THEN 'mig_unpriced' ELSE 'no_price' END AS no_price,
        CASE v.verdict
            WHEN 'BASELINE' THEN 'not_applicable'
            WHEN 'UNVALIDATED' THEN 'no_quality'
            WHEN 'NOT_COMPARABLE' THEN 'not_comparable'
            ELSE 'not_decided'
        END AS no_quality
    FROM store.table_points m
    JOIN store.standing_verdicts v USING (run_id)
    LEFT JOIN hardware_prices_at(ts) p ON p.gpu = m.gpu AND p.gpu_count = m.gpu_count AND m.mig_slice IS NULL
),
reasoned AS (
    SELECT
        *,
        coalesce(no_throughput, CASE WHEN usd_per_hour IS NULL THEN no_price END) AS no_cost,
        NULL::DOUBLE AS nothing
    FROM joined
)
SELECT
    model,
    checkpoint,
    revision,
    baseline,
    precision,
    weight_format,
    kv_cache_dtype,
    kernel,
    kernel_mode,
    weights,
    gpu,
    sm_arch,
    mig_slice,
    gpu_count,
    engine,
    engine_version,
    workload,
    isl,
    osl,
    operating_point,
    concurrency,
    provider,
    region,
    price_kind,
    usd_per_hour,
    price_as_of,
    output_tok_s,
    nothing AS output_tok_s_ci_low,
    nothing AS output_tok_s_ci_high,
    usd_per_mtok_output,
    nothing AS usd_per_mtok_output_ci_low,
    nothing AS usd_per_mtok_output_ci_high,
    usd_per_mtok_total,
    nothing AS usd_per_mtok_goodput,
    ttft_p50_ms,
    ttft_p99_ms,
    tpot_p50_ms,
    tpot_p99_ms,
    nothing AS joules_per_token,
    pct_of_bound,
    kv_cache_tokens,
    speedup_vs_baseline,
    use,
    policy,
    verdict,
    worst_task,
    quality_delta,
    quality_delta_ci_low,
    quality_delta_ci_high,
    flip_rate,
    evidence,
    validity,
    validity_reasons,
    map_from_entries(list_filter([
        why_null('kernel', kernel, 'no_kernel_named'),
        why_null('kernel_mode', kernel_mode, 'unknown_kernel'),
        why_null('mig_slice', mig_slice, 'not_applicable'),
        why_null('workload', workload, 'no_throughput'),
        why_null('isl', isl, 'no_throughput'),
        why_null('osl', osl, 'no_throughput'),
        why_null('operating_point', operating_point, 'no_throughput'),
        why_null('concurrency', concurrency, 'no_throughput'),
        why_null('provider', provider, no_price),
        why_null('region', region, no_price),
        why_null('price_kind', price_kind, no_price),
        why_null('usd_per_hour', usd_per_hour, no_price),
        why_null('price_as_of', price_as_of, no_price),
        why_null('output_tok_s', output_tok_s, no_throughput),
        why_null('output_tok_s_ci_low', nothing, coalesce(no_throughput, 'single_repeat')),
        why_null('output_tok_s_ci_high', nothing, coalesce(no_throughput, 'single_repeat')),
        why_null('usd_per_mtok_output', usd_per_mtok_output, no_cost),
        why_null('usd_per_mtok_output_ci_low', nothing, coalesce(no_cost, 'single_repeat')),
        why_null('usd_per_mtok_output_ci_high', nothing, coalesce(no_cost, 'single_repeat')),
        why_null('usd_per_mtok_total', usd_per_mtok_total, no_cost),
        why_null('usd_per_mtok_goodput', nothing, coalesce(no_cost, 'no_slo')),
        why_null('ttft_p50_ms', ttft_p50_ms, coalesce(no_throughput, 'not_measured')),
        why_null('ttft_p99_ms', ttft_p99_ms, coalesce(no_throughput, 'not_measured')),
        why_null('tpot_p50_ms', tpot_p50_ms, coalesce(no_throughput, 'not_measured')),
        why_null('tpot_p99_ms', tpot_p99_ms, coalesce(no_throughput, 'not_measured')),
        why_null('joules_per_token', nothing, coalesce(no_throughput, 'no_telemetry')),
        why_null('pct_of_bound', pct_of_bound, coalesce(
            no_throughput, CASE WHEN kernel_mode = 'emulated' THEN 'emulated_no_speed'
                WHEN kernel_mode IS NULL THEN 'unknown_kernel' END,
            CASE WHEN bound_tok_s IS NULL THEN 'no_bounds' ELSE 'above_bound' END)),
        why_null('kv_cache_tokens', kv_cache_tokens, 'not_measured'),
        why_null('speedup_vs_baseline', speedup_vs_baseline, no_speedup),
        why_null('worst_task', worst_task, no_quality),
        why_null('quality_delta', quality_delta, no_quality),
        why_null('quality_delta_ci_low', quality_delta_ci_low, no_quality),
        why_null('quality_delta_ci_high', quality_delta_ci_high, no_quality),
        why_null('flip_rate', flip_rate, no_quality),
        why_null('suite', suite, 'no_quality'),
        why_null('margin', margin, no_quality),
        why_null('looks_used', looks_used, no_quality),
        why_null('baseline_revision', baseline_revision, no_quality),
        why_null('serving_arguments', serving_arguments, 'not_recorded'),
        why_null('baseline_precision', baseline_precision, 'not_recorded')
    ], lambda entry: entry IS NOT NULL)) AS null_reasons,
    measured_at,
    len(stale_reasons) > 0 AS stale,
    run_id,
    stale_reasons,
    decided_by AS verdict_run_id,
    suite,
    tasks,
    documents,
    margin,
    policy_fingerprint,
    declared_at,
    baseline_revision,
    looks_used,
    tries,
    serving_arguments,
    alarms,
    baseline_precision
FROM reasoned
ORDER BY model, gpu, engine_version, workload, NOT is_baseline, started_at, run_id, concurrency,
    provider, region, price_kind, use <> 'all', use;

CREATE OR REPLACE VIEW validated_table AS SELECT * FROM validated_table_at(now());
